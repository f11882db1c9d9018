"""Nobody who reads the store, its slow log, a snapshot of it, or our logs gets a usable id."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import session

from elasticache_sessions.session import handle_of
from tests.support import resp
from tests.support.load import PATIENT, Instance, instances, manager_of, manager_session
from tests.support.servers import REDIS_7_0, VALKEY_8_1, VALKEY_9_1, Flavour, Server
from tests.support.stores import Store

# In the sessions' content: where it does not show, the test has looked in the wrong place.
CANARY = "canary-4711"


def forms(session_id: str) -> list[bytes]:
    """How an id could be written."""
    raw = base64.urlsafe_b64decode(session_id)
    return [
        session_id.encode(),
        raw,
        raw.hex().encode(),
        base64.b64encode(raw),
        session_id.encode().hex().encode(),
        base64.b64encode(session_id.encode()),
        repr(raw)[2:-1].encode(),
    ]


def assert_no_id(ids: set[str], text: bytes) -> None:
    assert len(ids) >= 8
    for session_id in ids:
        assert not any(form in text for form in forms(session_id))


def use(shop: Instance) -> set[str]:
    """Everything that can happen to a session; the ids that were ever in a cookie."""
    ids: set[str] = set()

    def ask(view: Callable[[], object], cookie: str | None = None) -> str:
        cookie = shop.ask(view, cookie).cookie or cookie or ""
        ids.add(cookie.removesuffix(".p"))
        return cookie

    first = ask(lambda: session.update(a=CANARY))
    ask(lambda: dict(session), first)
    ask(lambda: session.update(cart=["kettle"]), first)
    ask(lambda: shop.sessions.apply(lambda fields: fields.update(count=1)), first)
    second = ask(shop.sessions.cycle_id, first)
    ask(lambda: session.update(late=True), first)  # the old id: begins one of its own
    third = ask(lambda: shop.sessions.login("ada"), second)
    ask(lambda: setattr(session, "permanent", True), third)
    ask(lambda: None, third + ".p")
    fourth = ask(lambda: session.update(a=CANARY))
    shop.ask(shop.sessions.logout, fourth)
    ask(lambda: session.update(a=CANARY), fourth)
    ask(lambda: dict(session), "i" * 40)  # an id that a client made up
    ask(lambda: session.update(a=CANARY), "j" * 40)

    # A conflict, and a change that comes too late.
    def late() -> None:
        session["late"] = True
        ask(lambda: session.update(other=True), third)
        ask(shop.sessions.logout, third)

    ask(late, third)
    return ids - {""}


def test_no_key_and_no_value_holds_an_id(store: Store) -> None:
    with instances(store.url) as (shop,):
        ids = use(shop)
    keys = store.keys()
    everything = b"\n".join([*keys, *[store.get(key) or b"" for key in keys]])
    assert CANARY.encode() in everything
    assert_no_id(ids, everything)


@pytest.fixture(params=[REDIS_7_0, VALKEY_8_1, VALKEY_9_1], ids=lambda flavour: flavour.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Writes snapshots that can be read as they are, and counts every command as slow."""
    flavour: Flavour = request.param
    options = ("--rdbcompression", "no", "--slowlog-log-slower-than", "0", "--slowlog-max-len", "10000")
    with Server(flavour, *options) as server:
        yield server


def everything_said(server: Server, act: Callable[[], None]) -> bytes:
    """What MONITOR shows while `act` runs."""
    said: list[bytes] = []
    with resp.Connection(server.port) as monitor:
        assert monitor("MONITOR") == b"OK"

        def listen() -> None:
            while not said or b"the end of it" not in said[-1]:
                line = monitor.read()
                assert isinstance(line, bytes)
                said.append(line)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        act()
        server.command("ECHO", "the end of it")
        listener.join(10)
        assert not listener.is_alive()
    return b"\n".join(said)


def test_monitor_shows_no_id(server: Server) -> None:
    ids: set[str] = set()
    with instances(server.url) as (shop,):
        said = everything_said(server, lambda: ids.update(use(shop)))
    assert CANARY.encode() in said and b'"EVALSHA"' in said
    assert_no_id(ids, said)


def test_monitor_shows_no_id_of_an_event_loop(server: Server) -> None:
    ids: set[str] = set()

    def act() -> None:
        with manager_of("asyncio", server.url, timeout=PATIENT) as manager:
            for _ in range(8):
                stored = manager_session(manager, a=CANARY)
                ids.add(stored.id or "")
                assert manager.load(stored.id) is not None
                manager.cycle(stored)
                ids.add(stored.id or "")
                manager.end(stored)

    said = everything_said(server, act)
    assert CANARY.encode() in said
    assert_no_id(ids, said)


def test_the_slow_log_shows_no_id(server: Server) -> None:
    with instances(server.url) as (shop,):
        ids = use(shop)
    log = repr(server.command("SLOWLOG", "GET", "-1")).encode()
    assert log.count(b"EVALSHA") >= 20
    assert any(handle_of(session_id).encode() in log for session_id in ids)
    assert_no_id(ids, log)


def test_a_snapshot_holds_no_id(server: Server) -> None:
    with instances(server.url) as (shop,):
        ids = use(shop)
    assert server.command("SAVE") == b"OK"
    snapshot = b"".join(path.read_bytes() for path in server.directory.iterdir() if path.suffix == ".rdb")
    assert CANARY.encode() in snapshot
    assert_no_id(ids, snapshot)


def test_what_the_server_tells_about_its_clients_and_its_scripts_holds_no_id(server: Server) -> None:
    with instances(server.url) as (shop,):
        ids = use(shop)
        told = repr([server.command("CLIENT", "LIST"), server.command("INFO", "everything")]).encode()
    assert_no_id(ids, told)


def test_our_logs_hold_no_id(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with instances(store.url) as (shop,):
        ids = use(shop)
        # What cannot be read is logged, too.
        torn = shop.ask(lambda: session.update(a=1)).session_id
        store.set(f"sess:{handle_of(torn)}".encode(), b"torn", ttl=60)
        shop.ask(lambda: dict(session), torn)
    ids.add(torn)
    logged = "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records)
    assert handle_of(torn) in logged and "dropped" in logged
    assert_no_id(ids, logged.encode())


def test_the_session_objects_show_no_id(store: Store) -> None:
    with instances(store.url) as (shop,):
        cookie = shop.ask(lambda: session.update(a=1)).session_id
        ours: Any = session
        shown = shop.ask(lambda: f"{session!r} {session} {ours.handle}", cookie).result
        shown += repr(shop.manager.load(cookie))
    assert handle_of(cookie) in shown
    assert cookie not in shown
