"""Logs, errors and tracebacks hold no id, no cookie and nothing of what a session holds, whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ormsgpack
import pytest

from elasticache_sessions import AsyncSessionManager, Fields, SessionManager, StoreUnavailable, scalars
from elasticache_sessions.opaque import OpaqueList
from elasticache_sessions.record import Header, Kind, Record, pack, unpack
from elasticache_sessions.sealing import Seal
from elasticache_sessions.session import handle_of, new_id
from elasticache_sessions.settle import Event
from tests.support.instances import CANARY, Instance, Visit, instances, use
from tests.support.leaks import IDS, Watch, shown, shown_of
from tests.support.load import OnLoop, is_write, manager_of
from tests.support.proxy import Proxy
from tests.support.signals import hearing
from tests.support.stores import Store


class Shown(logging.Handler):
    """Everything that is logged, at any level, by anybody."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(shown(record))


@contextmanager
def logged() -> Iterator[list[str]]:
    handler, root = Shown(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


REPLIES = {
    "redis": (
        b"*1\r\n$%d\r\n%b\r\n" % (len(CANARY), CANARY.encode()),
        b"-ERR unknown command 'X', with args beginning with: '%b'\r\n" % CANARY.encode(),
        b"-READONLY You can't write against a read only replica.\r\n",
    ),
    "memcached": (
        b"%b\r\n" % CANARY.encode(),
        b"VALUE %b\r\n" % CANARY.encode(),
        b"SERVER_ERROR out of memory storing object\r\n",
        b"CLIENT_ERROR bad data chunk\r\n",
    ),
}
"""What a store may answer."""


class Thing:
    """No value of a session."""

    def __repr__(self) -> str:
        return CANARY


def remember_failures(manager: SessionManager | AsyncSessionManager, errors: list[BaseException]) -> None:
    """Keep each error that an operation ends with, whoever handles it. Their tracebacks grow until then."""
    plain: Any = manager.run

    def run(flow: Any) -> Any:
        try:
            return plain(flow)
        except Exception as error:
            errors.append(error)
            raise

    async def arun(flow: Any) -> Any:
        try:
            return await plain(flow)
        except Exception as error:
            errors.append(error)
            raise

    manager.run = run if isinstance(manager, SessionManager) else arun  # type: ignore[method-assign]


def with_fields(store: Store, cookie: str, seal: Seal | None, **fields: bytes) -> None:
    """Have a session hold fields that are stored as these bytes."""
    key = f"sess:{handle_of(cookie)}".encode()
    record = unpack(store.get(key) or b"", seal)
    store.set(key, pack(Record(record.header, fields), seal), 600)


def trouble(shop: Instance, store: Store, proxy: Proxy, errors: list[BaseException]) -> Iterator[str]:
    """What can go wrong with a session that holds a canary; the cookies."""
    kind = "memcached" if proxy.url.startswith("memcached") else "redis"

    def ask(view: Callable[[Visit], object], cookie: str | None) -> None:
        errors.extend(shop.ask(view, cookie).errors)

    def begun() -> str:
        return shop.ask(lambda visit: visit.update(a=CANARY, b=[CANARY])).session_id

    def late(visit: Visit) -> None:
        visit["late"] = CANARY
        ask(lambda visit: visit.update(other=CANARY), first)

    yield (first := begun())
    ask(late, first)  # a conflict
    # What cannot be stored.
    deep: list[Any] = [CANARY]
    for _ in range(300):
        deep = [deep]
    for bad in (object(), Thing(), {CANARY: {(1, CANARY): Thing()}}, [CANARY, Thing()], deep, CANARY * 1_000):
        ask(lambda visit, bad=bad: visit.update(good=CANARY, bad=bad), first)  # type: ignore[misc]
        ask(lambda visit, bad=bad: visit.apply(lambda fields: fields.update(y=CANARY, x=bad)), first)  # type: ignore[misc]
    ask(lambda visit: (visit.get("a"), visit.raw.__setitem__(7, CANARY)), first)
    ask(lambda visit: visit.apply(lambda fields: fields["none"]), first)

    # What cannot be read.
    for broken in (
        b"\xc1" + CANARY.encode(),
        ormsgpack.packb(ormsgpack.Ext(scalars.FOREIGN, CANARY.encode())),
        *(ormsgpack.packb(ormsgpack.Ext(tag, ormsgpack.packb([CANARY] * 3))) for tag in scalars.UNPACK),
        *(ormsgpack.packb(ormsgpack.Ext(tag, CANARY.encode())) for tag in scalars.UNPACK),
    ):
        yield (corrupt := begun())
        with_fields(store, corrupt, shop.manager.rules.seal(corrupt), a=broken)
        ask(lambda visit: visit["a"], corrupt)
        ask(lambda visit: visit.apply(lambda fields: fields["a"]), corrupt)
    yield (corrupt := begun())
    key = f"sess:{handle_of(corrupt)}".encode()
    store.set(key, (store.get(key) or b"")[:-1] + b"?", 600)
    ask(dict, corrupt)
    store.set(key, CANARY.encode(), 600)
    ask(dict, corrupt)
    if kind == "redis":
        store.raw("DEL", key)
        store.raw("RPUSH", key, CANARY.encode())
        ask(dict, corrupt)
        ask(lambda visit: visit.update(a=CANARY), corrupt)

    # The store fails before, and in the middle.
    verbs: list[Callable[[Visit], object]] = [
        dict,
        lambda visit: visit.update(late=CANARY),
        lambda visit: visit.setdefault("late", CANARY),
        lambda visit: (visit.clear(), visit.update(late=CANARY)),
        lambda visit: visit.apply(lambda fields: [CANARY, fields.update(late=CANARY)]),
        lambda visit: visit.pop("a"),
        lambda visit: (visit.update(late=CANARY), visit.cycle()),
        lambda visit: (visit.update(late=CANARY), visit.login("ada")),
        lambda visit: visit.logout(),
        lambda visit: visit.meanwhile(lambda: shop.manager.for_user("ada")),
        lambda visit: visit.meanwhile(lambda: shop.manager.end_all("ada")),
    ]

    def fail_by(break_it: Callable[[], object], cookie: str) -> None:
        for verb in verbs:
            for at_once in (True, False):

                def view(visit: Visit) -> None:
                    if not at_once:
                        visit.get("a")
                    break_it()
                    verb(visit)

                ask(view, cookie)
                proxy.heal()

    faults: list[Callable[[], object]] = [
        proxy.go_down,
        lambda: proxy.lose_reply(when=is_write, times=100),
        *(partial(proxy.replace_reply, reply, times=100) for reply in REPLIES[kind]),
    ]
    for break_it in faults:
        yield (failed := begun())
        fail_by(break_it, failed)


@pytest.mark.usefixtures("never_left_alone")
@pytest.mark.parametrize(
    ("framework", "kind"),
    [
        ("flask", "valkey-9.1"),
        ("flask", "valkey-9.1, encrypted"),
        ("django-wsgi", "valkey-9.1"),
        ("django-asgi", "valkey-9.1"),
        ("flask", "memcached"),
        ("django-asgi", "memcached"),
    ],
)
def test_whatever_happens_nothing_shows_an_id_or_what_a_session_holds(
    framework: str, kind: str, give_store: Callable[[str], Store]
) -> None:
    def fail(event: Event) -> None:
        raise ValueError(event)

    store = give_store(kind.partition(",")[0])
    keys = ["k" * 32] if kind.endswith("encrypted") else None
    with (
        Proxy(*store.ports, dialect=store.dialect) as proxy,
        instances(framework, proxy.url, max_bytes=5_000, encryption_keys=keys) as (shop,),
        logged() as lines,
        hearing(shop) as heard,
    ):
        manager = shop.manager.manager if isinstance(shop.manager, OnLoop) else shop.manager
        manager.on_event(fail)
        errors: list[BaseException] = []
        remember_failures(manager, errors)
        cookies = {*use(shop), *trouble(shop, store, proxy, errors), "i" * 40, "j" * 40}
    kinds = {type(error).__name__ for error in errors}
    assert kinds >= {"EncodeError", "ValueTooLarge", "KeyError", "StoreUnavailable", "SessionEnded"}
    everything = "\n".join([*lines, *map(shown_of, errors), *map(str, heard)])
    # It has been looked in the right places.
    for said in (
        "its changes are dropped",
        "cannot be read and counts as none",
        "did not answer",
        "does not fit the question",
        "refused the command",
        "the session would take",
        "would not come back as it was",
        "nested deeper",
        ": conflict",
        "which was told what happened to a session, failed",
        "session_id = <session ",
        "value = <",
    ):
        assert said in everything, said
    assert IDS.within(everything) == []
    assert [secret for secret in cookies if secret in everything] == []
    assert [line for line in everything.splitlines() if CANARY in line] == []


def test_a_manager_that_is_given_a_plain_id_shows_none() -> None:
    with manager_of("threads", "redis://127.0.0.1:1") as manager:
        plain = str(new_id())
        for ask in (manager.load, manager.end):
            with pytest.raises(StoreUnavailable) as failed:
                ask(plain)
            assert plain not in shown_of(failed.value)


def test_every_test_fails_where_one_of_our_loggers_shows_an_id(no_id_is_logged: Watch) -> None:
    made, log = new_id(), logging.getLogger("elasticache_sessions.somewhere")
    log.warning("session %s, %r, %s", handle_of(made), made, "x" * 40)
    assert no_id_is_logged.found == []
    log.warning("session %s", made)
    assert no_id_is_logged.found == [f"session {made}"]
    no_id_is_logged.found.clear()


def test_sentry_shows_a_session_by_its_type_and_does_not_load_it() -> None:
    """It asks the type of each value for `__sentry_repr__`, and walks through dicts that have none."""

    def in_sentry(value: object) -> str:
        return str(type(value).__sentry_repr__(value))  # type: ignore[attr-defined]

    with instances("flask", "memory://") as (shop,):
        cookie = shop.ask(lambda visit: visit.update(a=CANARY)).cookie
        with shop.recording() as asked:
            seen = shop.ask(lambda visit: in_sentry(visit.raw), cookie).result
    assert (seen, asked) == ("<FlaskSession>", [])
    fields = Fields()
    fields["a"] = CANARY
    for value in (fields, fields.encoded(), OpaqueList([CANARY]), pack(Record(Header(Kind.LIVE, 0, (), 0)))):
        assert in_sentry(value) == f"<{type(value).__name__}>"
