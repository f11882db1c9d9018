"""Client objects that the app made: taken as they are, but for their own retries, which could write twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
import redis.asyncio
import valkey
import valkey.asyncio
from flask import Flask, session

from elasticache_sessions import (
    AsyncSessionManager,
    ConfigurationError,
    Fields,
    SessionEnded,
    SessionManager,
    Settings,
    StoreUnavailable,
)
from elasticache_sessions.clients.base import Look, Scan
from elasticache_sessions.flask import ElastiCacheSessions
from elasticache_sessions.settle import Flow
from tests.support.load import PATIENT, OnLoop, at_once, contents, is_write, lose_every, manager_session
from tests.support.proxy import Proxy
from tests.support.stores import Store

# name: (makes the object, the stores it is for). Nothing is said about retries: they have their defaults.
CLIENTS: dict[str, tuple[Callable[..., Any], str]] = {
    "redis.Redis": (redis.Redis, "single"),
    "redis.RedisCluster": (redis.RedisCluster, "cluster"),
    "valkey.Valkey": (valkey.Valkey, "single"),
    "valkey.ValkeyCluster": (valkey.ValkeyCluster, "cluster"),
    "redis.asyncio.Redis": (redis.asyncio.Redis, "single"),
    "redis.asyncio.RedisCluster": (redis.asyncio.RedisCluster, "cluster"),
    "valkey.asyncio.Valkey": (valkey.asyncio.Valkey, "single"),
    "valkey.asyncio.ValkeyCluster": (valkey.asyncio.ValkeyCluster, "cluster"),
}
THREADS = [name for name in CLIENTS if "asyncio" not in name]
SETTINGS = Settings(timeout=PATIENT, connect_timeout=PATIENT)

Manager = SessionManager | OnLoop


@pytest.fixture(params=CLIENTS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of client object in turn, by its name."""
    return str(request.param)


@pytest.fixture
def behind(kind: str, give_store: Callable[[str], Store]) -> Iterator[Proxy]:
    """A proxy before a store that this kind is for."""
    store = give_store("cluster" if CLIENTS[kind][1] == "cluster" else "valkey-9.1")
    with Proxy(*store.ports) as proxy:
        yield proxy


@pytest.fixture
def given(kind: str, behind: Proxy) -> Iterator[Manager]:
    """A manager around such an object."""
    make = CLIENTS[kind][0]
    if "asyncio" not in kind:
        client = make(host=behind.host, port=behind.port)
        manager = SessionManager.connect(SETTINGS, client=client)
        yield manager
        manager.close()
        # What the app made, the app closes: it must still be open.
        assert client.get("nothing") is None
        client.close()
        return
    # Made where it is used: it belongs to that event loop.
    client = on_a_loop(make, behind)
    on_loop = OnLoop(AsyncSessionManager.connect(SETTINGS, client=client))
    yield on_loop
    assert on_loop.runner.run(client.get("nothing")) is None
    on_loop.runner.run(client.aclose())
    on_loop.close()


def on_a_loop(make: Callable[..., Any], proxy: Proxy) -> Any:
    async def made() -> Any:
        return make(host=proxy.host, port=proxy.port)

    return asyncio.run(made())


def increment(fields: Fields) -> int:
    fields["count"] += 1
    return int(fields["count"])


def test_every_verb_works_with_a_given_client(given: Manager) -> None:
    stored = manager_session(given, count=0, user="Ada")
    first = stored.id
    loaded = given.load(first)
    assert loaded is not None
    loaded.fields["cart"] = ["kettle"]
    given.save(loaded)
    assert given.apply(stored, increment) == 1  # a conflict by now
    assert contents(given, first) == {"count": 1, "user": "Ada", "cart": ["kettle"]}
    given.cycle(stored, "ada")
    assert stored.id != first and given.load(first) is None
    assert contents(given, stored.id) == {"count": 1, "user": "Ada", "cart": ["kettle"]}
    loaded.fields["late"] = True
    with pytest.raises(SessionEnded):
        given.save(loaded)
    assert given.end(stored.id or "") is True
    assert given.end(first or "") is False
    assert given.load(stored.id) is None
    assert given.load("x" * 40) is None


def test_a_given_client_looks_and_searches(given: Manager) -> None:
    ids = [manager_session(given, number=number).id or "" for number in range(20)]
    wanted = [given.rules.key(each) for each in ids]

    def survey() -> Flow[tuple[Any, set[bytes]]]:
        seen = yield Look((*wanted, b"sess:none"))
        found, page = set(), (yield Scan(b"sess:"))
        while page.cursor is not None:
            found |= set(page.keys)
            page = yield Scan(b"sess:", page.cursor)
        return seen, found | set(page.keys)

    seen, found = given.run(survey())
    assert [glance is not None for glance in seen] == [True] * 20 + [False]
    assert found == set(wanted)


def test_a_given_client_does_not_send_a_write_again_by_itself(given: Manager, behind: Proxy) -> None:
    stored = manager_session(given, count=0)
    for number in range(1, 6):
        lost = behind.lose_reply(when=is_write)
        with behind.counting() as count:
            assert given.apply(stored, increment) == number
        assert lost.fired == 1
        assert sum(is_write(command) for command in count.commands) == 2
    assert contents(given, stored.id) == {"count": 5}


def test_a_given_client_gives_up_after_our_own_sendings(given: Manager, behind: Proxy) -> None:
    stored = manager_session(given, count=0)
    lost = behind.lose_reply(when=is_write, times=100)
    with behind.counting() as count, pytest.raises(StoreUnavailable):
        given.apply(stored, increment)
    assert 1 <= lost.fired <= 4
    assert sum(is_write(command) for command in count.commands) == lost.fired
    behind.heal()
    assert contents(given, stored.id) == {"count": 1}


@pytest.mark.parametrize("kind", THREADS, indirect=True)
def test_a_given_client_writes_once_each_from_many_threads_though_replies_are_lost(
    given: Manager, behind: Proxy
) -> None:
    stored = manager_session(given, count=0)

    def add(thread: int) -> None:
        for number in range(20):
            loaded = given.load(stored.id)
            assert loaded is not None
            loaded.fields[f"{thread}-{number}"] = 1
            given.save(loaded)

    lost = lose_every(behind, 9)
    at_once(*[lambda thread=thread: add(thread) for thread in range(6)])
    assert lost.fired >= 6 * 20 // 9
    found = given.load(stored.id)
    assert found is not None and found.stored is not None
    # Nobody wrote twice: each write is one generation.
    assert found.stored.header.generation == 1 + 6 * 20


def test_a_given_client_is_used_by_flask_instead_of_a_url(single_store: Store) -> None:
    app = Flask("shop")
    with redis.Redis(port=single_store.ports[0]) as client:
        ElastiCacheSessions(app, client=client)
        app.add_url_rule("/", "count", lambda: str(session.setdefault("user", "Ada")))
        assert app.test_client().get("/").text == "Ada"
    assert len(single_store.keys()) == 1


def test_a_given_client_keeps_its_own_settings(single_proxy: Proxy) -> None:
    with redis.Redis(port=single_proxy.port, db=5, client_name="shop", protocol=3) as client:
        manager = SessionManager.connect(SETTINGS, client=client)
        with single_proxy.counting() as count:
            manager_session(manager, count=0)
        assert "SELECT" in count.names and "HELLO" in count.names
        assert any(command[:2] == [b"CLIENT", b"SETNAME"] for command in count.commands)


def wrong() -> dict[str, tuple[Any, bool, str]]:
    return {
        "a string": ("redis://localhost", False, "str"),
        "a class": (redis.Redis, False, "Pass a redis.Redis"),
        "a pool": (redis.ConnectionPool(), False, "ConnectionPool"),
        "a pipeline of asyncio": (redis.asyncio.Redis(), False, "redis"),
        "asyncio for threads": (valkey.asyncio.Valkey(), False, "valkey"),
        "threads for asyncio": (redis.Redis(), True, r"redis\.asyncio"),
        "valkey's threads for asyncio": (valkey.Valkey(), True, r"valkey\.asyncio"),
        "str replies": (redis.Redis(decode_responses=True), False, "decode_responses=False"),
        "str replies of valkey": (valkey.Valkey(decode_responses=True), False, "decode_responses=False"),
        "str replies on a loop": (redis.asyncio.Redis(decode_responses=True), True, "decode_responses=False"),
    }


@pytest.mark.parametrize("which", wrong())
def test_what_is_no_client_object_of_the_right_kind_is_refused_with_what_to_pass(which: str) -> None:
    client, asynchronous, says = wrong()[which]
    connect = AsyncSessionManager.connect if asynchronous else SessionManager.connect
    with pytest.raises(ConfigurationError, match=says):
        manager = connect(SETTINGS, client=client)
        # An async client is made on its loop, so it may be looked at only there.
        with suppress(StoreUnavailable):
            if isinstance(manager, AsyncSessionManager):
                asyncio.run(manager.load("x" * 40))


@pytest.mark.parametrize("waits", [None, 5, 0.4])
def test_a_given_client_that_waits_longer_than_our_time_limit_is_told_of(
    kind: str, behind: Proxy, caplog: pytest.LogCaptureFixture, waits: float | None
) -> None:
    def make(host: str, port: int) -> Any:
        return CLIENTS[kind][0](host=host, port=port, socket_timeout=waits)

    threads = kind in THREADS
    client = make(behind.host, behind.port) if threads else on_a_loop(make, behind)
    (SessionManager if threads else AsyncSessionManager).connect(Settings(timeout=0.5), client=client)
    lines = [record.getMessage() for record in caplog.records if record.name == "elasticache_sessions"]
    assert len(lines) == (waits != 0.4)
    assert all("Retry(NoBackoff(), 0)" in line for line in lines)
    if threads:
        client.close()
