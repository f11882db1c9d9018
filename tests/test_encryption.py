"""Encrypted sessions in every kind of store: what users notice of it, which is nothing, and what there is to find."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest

from elasticache_sessions import ConfigurationError, Session, Settings, ValueTooLarge
from elasticache_sessions.clients.base import Entry
from elasticache_sessions.clients.memcached_views import Copy, leaving, left
from elasticache_sessions.exceptions import DecodeError
from elasticache_sessions.index import Origin
from elasticache_sessions.record import (
    KEPT_REVISIONS,
    Header,
    Kind,
    Record,
    head,
    is_compressed,
    pack,
    restamped,
    unpack,
)
from elasticache_sessions.sealing import Box, Key
from elasticache_sessions.session import handle_of
from tests.support import topologies
from tests.support.dialects import MEMCACHED
from tests.support.fleet import key_of, owners
from tests.support.instances import CANARY, instances, use
from tests.support.load import contents, manager_of, manager_session, managers, stored_id
from tests.support.stores import MEMCACHED as NODES_OF_MEMCACHED, Store
from tests.support.topologies import Nodes

ID = "A" * 40
KEY, OLD = "the first of the keys, " * 2, "one that was the first, " * 2

each_kind_of_store = pytest.mark.parametrize(
    "store", ["memory", "valkey-9.1", "memcached", "memcached-copies"], indirect=True
)
each_kind_of_manager = pytest.mark.parametrize("kind", ["for threads", "asyncio"])


def values_of(store: Store) -> dict[bytes, bytes]:
    return {key: store.get(key) or b"" for key in store.keys()}


def number_of(key: str) -> int:
    return Key.of(key.encode()).number


def unreadable(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "counts as none" in record.getMessage()]


# Whatever may happen to a session


@each_kind_of_store
def test_a_snapshot_and_the_keys_open_nothing_without_an_id(framework: str, store: Store) -> None:
    with instances(framework, store.url, encryption_keys=[KEY, OLD], compress_min_bytes=40) as (shop,):
        ids = use(shop)
    found = values_of(store)
    assert CANARY.encode() not in b"".join(found.values())
    sealed = {key: value for key, value in found.items() if head(value).kind is Kind.LIVE}
    assert sealed and all(head(value).key_number == number_of(KEY) for value in sealed.values())
    box = Box.of([KEY.encode(), OLD.encode()])
    handles = [key.decode().removeprefix("sess:") for key in found]
    guesses = ["", *handles, *(head(value).owner.hex() for value in sealed.values())]
    for value, guess, handle in product(sealed.values(), guesses, handles):
        with pytest.raises(DecodeError):
            unpack(value, box.of_session(guess, handle))
    opened = 0
    for session_id in ids:
        own = sealed.get(key_of(session_id))
        if own is not None:
            opened += bool(unpack(own, box.of_session(session_id, handle_of(session_id))).fields)
    assert opened >= 2


@each_kind_of_store
def test_a_lost_key_is_no_session_a_log_line_and_no_error(
    framework: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        instances(framework, store.url, encryption_keys=[OLD]) as (before,),
        instances(framework, store.url, encryption_keys=[KEY]) as (shop,),
        instances(framework, store.url) as (bare,),
    ):
        cookie = before.ask(lambda visit: visit.update(a=1)).session_id
        held = values_of(store)
        for site in (shop, bare):
            caplog.clear()
            answer = site.ask(dict, cookie)
            assert (answer.code, answer.result, len(unreadable(caplog))) == (200, {}, 1)
            assert handle_of(cookie) in unreadable(caplog)[0] and cookie not in caplog.text
        assert values_of(store) == held
        assert before.ask(dict, cookie).result == {"a": 1}


@each_kind_of_store
@each_kind_of_manager
def test_keys_are_rotated_while_sessions_are_used(kind: str, store: Store) -> None:
    with (
        manager_of(kind, store.url, encryption_keys=[OLD]) as before,
        manager_of(kind, store.url, encryption_keys=[OLD, KEY]) as first,
        manager_of(kind, store.url, encryption_keys=[KEY, OLD]) as then,
        manager_of(kind, store.url, encryption_keys=[KEY]) as last,
    ):
        session_id = stored_id(before, a=1)
        key = key_of(session_id)
        assert contents(then, session_id) == contents(first, session_id) == {"a": 1}
        assert head(store.get(key) or b"").key_number == number_of(OLD)  # reading changes nothing
        session = then.load(session_id)
        assert session is not None
        session.fields["b"] = 2
        then.save(session)
        assert head(store.get(key) or b"").key_number == number_of(KEY)
        for manager in (first, then, last):
            assert contents(manager, session_id) == {"a": 1, "b": 2}
        assert contents(before, session_id) is None
        assert then.apply(session, lambda fields: fields.pop("a")) == 1
        last.end(session_id)
        assert contents(first, session_id) is None
        assert before.counts["unreadable"] == 1 and not first.counts["unreadable"]


@each_kind_of_store
def test_a_site_moves_in_without_losing_anybody(framework: str, store: Store) -> None:
    with (
        instances(framework, store.url) as (bare,),
        instances(framework, store.url, encryption_keys=[KEY], encryption_plain="write") as (knows,),
        instances(framework, store.url, encryption_keys=[KEY], encryption_plain="accept") as (moves,),
        instances(framework, store.url, encryption_keys=[KEY]) as (shop,),
    ):
        cookie = bare.ask(lambda visit: visit.update(a=1)).session_id
        assert knows.ask(lambda visit: visit.update(b=2), cookie).code == 200
        assert bare.ask(dict, cookie).result == {"a": 1, "b": 2}
        assert moves.ask(dict, cookie).result == {"a": 1, "b": 2}
        assert shop.ask(dict, cookie).result == {}
        moves.ask(lambda visit: visit.update(c=3), cookie)
        for site in (knows, moves, shop):
            assert site.ask(dict, cookie).result == {"a": 1, "b": 2, "c": 3}
        assert bare.ask(dict, cookie).result == {}


@each_kind_of_store
def test_an_encrypted_session_slides(store: Store) -> None:
    with managers(store.url, encryption_keys=[KEY]) as [manager]:
        session_id = stored_id(manager, a=1)
        key = key_of(session_id)
        value = store.get(key)
        store.expire(key, 100)
        assert contents(manager, session_id) == {"a": 1}
        assert store.get(key) == value
        left = store.ttl(key)
        assert left is not None and left > 1_000


@each_kind_of_store
def test_an_encrypted_session_with_an_idle_timeout_of_its_own_slides(store: Store) -> None:
    with managers(store.url, encryption_keys=[KEY], idle_timeout=10_000) as [manager]:
        session = Session(idle_ttl=5_000)
        session.fields["a"] = 1
        manager.save(session)
        key = key_of(session.id or "")
        store.expire(key, 100)
        assert contents(manager, session.id) == {"a": 1}
        if store.name not in NODES_OF_MEMCACHED:  # where a write slides it, and only once it is time
            assert 4_000 < (store.ttl(key) or 0) <= 5_000


def test_one_sessions_record_in_anothers_place_is_no_session(
    give_store: Callable[[str], Store], caplog: pytest.LogCaptureFixture
) -> None:
    store = give_store("memory")
    with managers(store.url, encryption_keys=[KEY]) as [manager]:
        mine, theirs = stored_id(manager, who="me"), stored_id(manager, who="them")
        store.set(key_of(mine), store.get(key_of(theirs)) or b"", 1_000)
        assert manager.load(mine) is None
        assert contents(manager, theirs) == {"who": "them"}
        assert len(unreadable(caplog)) == 1


@each_kind_of_store
def test_the_list_of_an_owners_sessions_is_encrypted(store: Store) -> None:
    with managers(store.url, store.url, encryption_keys=[KEY]) as [manager, other]:
        session = Session(origin=Origin("Chromium on Linux", "192.0.2.7"))
        session.fields["a"] = 1
        session.owner = "ada"
        manager.save(session)
        [info] = other.for_user("ada")
        assert (info.user_agent, info.ip, info.handle) == ("Chromium on Linux", "192.0.2.7", session.handle)
        found = values_of(store).values()
        [value] = [value for value in found if head(value).kind is Kind.INDEX]
        assert {head(value).key_number for value in found} == {number_of(KEY)}
        assert b"Chromium" not in value and b"192.0.2.7" not in value
        assert other.end_all("ada") == 1
        assert manager.load(session.id) is None


def test_max_bytes_bounds_what_is_stored() -> None:
    settings = {"max_bytes": 2_000, "compress_min_bytes": 100, "encryption_keys": [KEY]}
    with managers("memory://bounded", **settings) as [manager]:
        session_id = stored_id(manager, text="tea " * 10_000)
        assert contents(manager, session_id) == {"text": "tea " * 10_000}
        with pytest.raises(ValueTooLarge):
            manager_session(manager, noise=random.Random(1).randbytes(3_000))


# Two copies on Memcached, whose client has no key


def record(name: bytes, *, generation: int = 2, content: bytes = b"tea " * 100) -> Record:
    revisions = (name.ljust(6, b"-"), b"base--", *[bytes(6)] * (KEPT_REVISIONS - 2))
    return Record(Header(Kind.LIVE, generation, revisions, 5), {name.decode(): content})


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with topologies.nodes(2) as nodes:
        yield nodes


def url_of(nodes: Nodes) -> str:
    return MEMCACHED.url(nodes.ports) + "?copies=2"


def held(nodes: Nodes, session_id: str) -> list[bytes | None]:
    found = []
    for port in owners(nodes.ports, session_id, 2):
        lines = MEMCACHED.command(port, "get", key_of(session_id))
        assert isinstance(lines, list)
        found.append(lines[1] if lines else None)
    return found


def put(nodes: Nodes, session_id: str, *values: bytes) -> None:
    for port, value in zip(owners(nodes.ports, session_id, 2), values, strict=True):
        assert MEMCACHED.command(port, "set", key_of(session_id), 0, 1_000, len(value), value) == b"STORED"


SETTINGS: dict[str, dict[str, Any]] = {
    "encrypted": {"encryption_keys": [KEY]},
    "compressed": {"compress_min_bytes": 10},
    "both": {"encryption_keys": [KEY], "compress_min_bytes": 10},
}


@pytest.mark.parametrize("how", SETTINGS)
def test_a_copy_that_is_missing_or_old_is_mended(nodes: Nodes, how: str) -> None:
    with managers(url_of(nodes), **SETTINGS[how]) as [manager]:
        session_id = stored_id(manager, a="tea " * 50)
        first, _ = held(nodes, session_id)
        session = manager.load(session_id)
        assert session is not None
        session.fields["b"] = 2
        manager.save(session)
        newest, same = held(nodes, session_id)
        assert newest == same != first and newest is not None and first is not None
        for copies in ((first, newest), (newest, first)):
            put(nodes, session_id, *copies)
            assert contents(manager, session_id) == {"a": "tea " * 50, "b": 2}
            assert held(nodes, session_id) == [newest, newest]
        for port in owners(nodes.ports, session_id, 2):
            assert MEMCACHED.command(port, "delete", key_of(session_id)) == b"DELETED"
            assert contents(manager, session_id) == {"a": "tea " * 50, "b": 2}
            assert held(nodes, session_id) == [newest, newest]
        assert manager.counts["repaired"] == 4
        assert manager.end(session_id) and manager.load(session_id) is None


@pytest.mark.parametrize("how", SETTINGS)
def test_of_two_copies_that_have_parted_the_encrypted_one_that_counts_holds_whole(
    nodes: Nodes, how: str
) -> None:
    """Both say that they were written alone, so both may be acknowledged: two faults at once."""
    box = Settings(**SETTINGS[how]).box
    assert box is not None
    with managers(url_of(nodes), **SETTINGS[how]) as [manager]:
        for one, other in (("mine", "theirs"), ("theirs", "mine")):
            session_id = stored_id(manager, a=1)
            seal = box.of_session(session_id, handle_of(session_id))
            later = restamped(pack(record(one.encode(), generation=3), seal), alone=True)
            earlier = restamped(pack(record(other.encode()), seal), alone=True)
            put(nodes, session_id, later, earlier)
            session = manager.load(session_id)
            assert session is not None and session.stored is not None
            mended, same = held(nodes, session_id)
            assert mended is not None and mended == same
            if box.keys:
                assert set(session.stored.fields) == {one}
                assert mended == later
            else:
                assert set(session.stored.fields) == {one, other}
                assert is_compressed(mended) and len(mended) < len(pack(session.stored))


def test_an_encrypted_session_moves_to_another_node_as_it_is() -> None:
    sealed = restamped(
        pack(record(b"mine"), Box.of([KEY.encode()]).of_session(ID, handle_of(ID))), alone=True
    )
    moving = Copy.of("a", Entry(leaving(sealed, 7, 100), b"1"))
    assert (moving.kind, moving.counts, moving.leaving) == (Kind.LEAVING, False, sealed)
    assert moving.is_news(6, 100) and not moving.is_news(7, 100)
    assert moving.unpacked().header == head(sealed)
    word = Copy.of("a", Entry(left(7, 100, head(sealed)), b"1"))
    assert (word.kind, word.is_news(6, 100)) == (Kind.LEFT, True)
    assert word.header is not None and not word.header.key_number


# Settings


def test_keys_are_a_list_or_in_the_environment_a_text_with_commas() -> None:
    listed = Settings(encryption_keys=[KEY, OLD.encode()])  # type: ignore[arg-type]
    assert listed.encryption_keys == (KEY.encode(), OLD.encode())
    said = {"ELASTICACHE_SESSIONS_ENCRYPTION_KEYS": f"{'k' * 40} , {'o' * 40}"}
    assert Settings.from_mapping({}, said).encryption_keys == (b"k" * 40, b"o" * 40)
    assert Settings().encryption_keys is None and Settings().box is None
    assert KEY not in repr(listed) and "first" not in repr(listed)


@pytest.mark.parametrize("keys", [[], "", ["short"], "short," + "k" * 40, [KEY, 7], 7, b"k" * 40, {KEY}])
def test_what_is_no_list_of_keys_is_refused_with_how_to_make_one(keys: object) -> None:
    with pytest.raises(ConfigurationError, match="ENCRYPTION_KEYS") as refused:
        Settings(encryption_keys=keys)  # type: ignore[arg-type]
    assert "token_urlsafe(32)" in str(refused.value)
    assert "kkk" not in str(refused.value) and "short" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("encryption_plain", "accpet", "Did you mean 'accept'"),
        ("encryption_plain", True, "'refuse'"),
        ("compress_with", "gzip", "'zlib'"),
        ("compress_min_bytes", 0, "at least 1"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(name: str, value: object, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_nothing_of_a_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with managers("memory://logged", "memory://logged", encryption_keys=[KEY]) as [manager, _]:
        session_id = stored_id(manager, a=CANARY)
        assert contents(manager, session_id) == {"a": CANARY}
        shown = f"{manager.rules!r} {manager.load(session_id)!r}"
    for text in (caplog.text, shown):
        assert KEY not in text and CANARY not in text and session_id not in text
        assert repr(Key.of(KEY.encode()).extracted)[2:-1] not in text
