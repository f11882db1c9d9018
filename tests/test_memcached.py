"""Memcached alone: which node has a key, TTLs, what is too large, nodes that fail, and eviction."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, strategies as st

from elasticache_sessions import (
    AsyncSessionManager,
    Session,
    SessionEnded,
    SessionManager,
    Settings,
    StoreUnavailable,
    ValueTooLarge,
)
from elasticache_sessions.clients.base import (
    ABSENT,
    CacheClient,
    Conflict,
    Entry,
    Read,
    Replace,
    Stored,
    Write,
)
from elasticache_sessions.clients.breaker import Breakers
from elasticache_sessions.clients.memcached import connect, connect_async
from elasticache_sessions.clients.memcached_connection import Connection
from elasticache_sessions.clients.memcached_nodes import owner, ranked
from elasticache_sessions.clients.memcached_wire import expiry
from elasticache_sessions.limit import TimeLimit
from tests.support import memcached, servers, topologies
from tests.support.demo import wait_until
from tests.support.dialects import MEMCACHED
from tests.support.load import PATIENT, Manager, at_once, contents, manager_of, manager_session, stored_id
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.stores import Store
from tests.support.topologies import Nodes

DAY = 86_400
MONTH = 30 * DAY
KINDS = pytest.mark.parametrize("kind", ["threads", "asyncio"])


@pytest.fixture
def single(give_store: Callable[[str], Store]) -> Store:
    """One node, empty."""
    return give_store("memcached")


@pytest.fixture
def client(single: Store) -> Iterator[CacheClient]:
    made = connect(Settings(url=single.url, timeout=PATIENT, connect_timeout=PATIENT))
    yield made
    made.close()


@contextmanager
def own_server(*options: str) -> Iterator[Server]:
    with Server(servers.MEMCACHED, *options) as server:
        yield server


# Which node has a key

names = st.sets(st.from_regex(r"[a-z]{1,9}:[0-9]{1,5}", fullmatch=True), min_size=1, max_size=9).map(sorted)
keys = st.binary(min_size=1, max_size=60)


def test_every_process_ranks_alike() -> None:
    nodes = ["10.0.1.5:11211", "10.0.1.6:11211", "[::1]:11211"]
    owners = [ranked(nodes, b"sess:%d" % number)[0] for number in range(8)]
    assert [nodes.index(owner) for owner in owners] == [2, 1, 1, 1, 2, 2, 1, 1]


@given(names, keys, st.data())
def test_the_order_in_the_url_does_not_matter(nodes: list[str], key: bytes, data: st.DataObject) -> None:
    assert sorted(ranked(nodes, key)) == nodes
    assert ranked(data.draw(st.permutations(nodes)), key) == ranked(nodes, key)
    assert owner(nodes, key) == ranked(nodes, key)[0]


@given(names, keys, st.data())
def test_a_node_that_is_taken_away_moves_its_own_keys_alone(
    nodes: list[str], key: bytes, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(nodes))
    left = [node for node in nodes if node != gone]
    assert ranked(left, key) == [node for node in ranked(nodes, key) if node != gone]


@pytest.mark.parametrize("size", [2, 3, 7])
def test_every_node_has_its_share(size: int) -> None:
    nodes = [f"cache.{number:04}.use1.cache.amazonaws.com:11211" for number in range(size)]
    owners = Counter(ranked(nodes, b"sess:%d" % number)[0] for number in range(2000 * size))
    assert set(owners) == set(nodes)
    assert all(1750 < count < 2250 for count in owners.values()), owners


# What is sent


def test_a_read_that_touches_is_one_gats(single: Store) -> None:
    with Proxy(*single.ports, dialect=MEMCACHED) as proxy:
        made = connect(Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT))
        made.perform(Write(b"key", b"value", 100, ABSENT))
        with proxy.counting() as count:
            entry = made.perform(Read(b"key", touch=600, now=int(time.time())))
        made.close()
    assert isinstance(entry, Entry) and (entry.value, entry.ttl_left) == (b"value", None)
    assert count.commands == [[b"gats", b"600", b"key"]]
    assert single.ttl(b"key") in (599, 600)


def test_no_command_is_ever_sent_without_waiting_for_its_reply(single: Store) -> None:
    with Proxy(*single.ports, dialect=MEMCACHED) as proxy:
        made = connect(Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT))
        made.perform(Write(b"key", b"1", 100, ABSENT))
        entry = made.perform(Read(b"key"))
        assert isinstance(entry, Entry)
        made.perform(Write(b"key", b"2", 100, entry.token))
        made.perform(Write(b"key", b"3", 100, entry.token))
        made.perform(Replace(b"key", b"4", 100))
        made.close()
        said = proxy.total.commands
    assert [command[0] for command in said] == [b"add", b"gets", b"cas", b"cas", b"gets", b"replace"]
    assert not any(b"noreply" in command for command in said)


def test_a_name_of_several_addresses_is_tried_at_each(single: Store) -> None:
    """ "localhost" is often ::1 first, where nobody listens."""
    with manager_of(
        "threads", f"memcached://localhost:{single.ports[0]}", timeout=PATIENT, connect_timeout=PATIENT
    ) as manager:
        assert contents(manager, stored_id(manager, a=1)) == {"a": 1}


# TTLs


@pytest.mark.parametrize("ttl", [5, MONTH - 1, MONTH, MONTH + 1, 31 * DAY, 365 * DAY])
def test_a_ttl_is_what_the_node_says_it_is(client: CacheClient, single: Store, ttl: int) -> None:
    def is_right() -> bool:
        left = single.ttl(b"key")
        # Its clock ticks once a second, late on a busy machine; a TTL taken for a time, or a time for a TTL, is years off.
        return left is not None and abs(left - ttl) <= 4

    assert client.perform(Write(b"key", b"1", ttl, ABSENT)) == Stored(None)
    assert is_right()
    assert client.perform(Replace(b"key", b"2", 100)) is True
    entry = client.perform(Read(b"key", touch=ttl, now=int(time.time())))
    assert is_right()
    single.expire(b"key", 100)
    assert isinstance(entry, Entry) and client.perform(Write(b"key", b"3", ttl, entry.token)) == Stored(None)
    assert is_right()
    single.expire(b"key", 100)
    assert client.perform(Replace(b"key", b"4", ttl)) is True
    assert is_right()


def test_a_ttl_that_ends_after_2038_ends_then(client: CacheClient, single: Store) -> None:
    client.perform(Write(b"key", b"1", 2**32, ABSENT))
    left = single.ttl(b"key")
    assert left is not None and abs(time.time() + left - 2**31) < 5


@given(st.integers(1, 2**32), st.integers(1_700_000_000, 2**32))
def test_an_expiry_is_never_a_time_gone_by_and_fits(ttl: int, now: int) -> None:
    told = expiry(ttl, now)
    assert 2 <= told < 2**31
    if told <= MONTH:
        assert told == max(2, ttl) or now + MONTH >= 2**31 - 1
    else:
        assert now + MONTH < told <= now + ttl


# Too large


@pytest.mark.parametrize(
    ("options", "limit"), [(("-I", "512k"), 524_288), ((), 1_048_576)], ids=["-I 512k", "default"]
)
@KINDS
def test_what_the_node_does_not_take_is_too_large_and_the_stored_session_stays(
    kind: str, options: tuple[str, ...], limit: int
) -> None:
    with (
        own_server(*options) as server,
        manager_of(
            kind, server.url, max_bytes=10 * limit, timeout=PATIENT, connect_timeout=PATIENT
        ) as manager,
    ):
        stored = manager_session(manager, user="Ada")
        loaded = manager.load(stored.id)
        assert loaded is not None
        loaded.fields["text"] = "x" * (limit + 1)
        for _ in range(3):
            with pytest.raises(ValueTooLarge, match=r"takes no item of that size.*max_item_size"):
                manager.save(loaded)
            assert contents(manager, stored.id) == {"user": "Ada"}
        with pytest.raises(ValueTooLarge):
            manager_session(manager, text="x" * (limit + 1))
        assert memcached.stats(server.port)["curr_items"] == "1"
        loaded.fields["text"] = "x" * (limit // 2)
        manager.save(loaded)
        assert contents(manager, stored.id) == {"user": "Ada", "text": "x" * (limit // 2)}


def test_a_session_of_the_largest_size_that_is_allowed_by_default_fits(single: Store) -> None:
    with manager_of("threads", single.url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
        text = "x" * 999_900
        assert contents(manager, stored_id(manager, text=text)) == {"text": text}


# Nodes that fail


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Three of the test's own."""
    with topologies.nodes(3) as nodes:
        yield nodes


def by_node(manager: Manager, nodes: Nodes, count: int = 30) -> dict[int, dict[str, int]]:
    """`count` stored sessions: of each node's port, the ids and what they hold."""
    found: dict[int, dict[str, int]] = {port: {} for port in nodes.ports}
    for number in range(count):
        stored = manager_session(manager, number=number)
        assert stored.id is not None
        found[memcached.owner(nodes.ports, f"sess:{stored.handle}".encode())][stored.id] = number
    assert all(found.values())
    return found


@KINDS
@pytest.mark.usefixtures("never_left_alone")
def test_a_dead_node_is_an_error_for_its_sessions_and_nothing_for_the_others(nodes: Nodes, kind: str) -> None:
    dead, *living = nodes.nodes
    with manager_of(kind, nodes.url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
        sessions = by_node(manager, nodes)
        before = {server.port: memcached.stats(server.port)["curr_items"] for server in living}
        loaded = [found for session_id in sessions[dead.port] if (found := manager.load(session_id))]
        assert len(loaded) == len(sessions[dead.port])
        dead.kill()
        for session in loaded:
            with pytest.raises(StoreUnavailable) as failed:
                manager.load(session.id)
            assert str(dead.port) in str(failed.value) and failed.value.sent is False
            session.fields["late"] = True
            for act in (manager.save, manager.cycle, manager.end):
                with pytest.raises(StoreUnavailable):
                    act(session)
        for server in living:
            for session_id, number in sessions[server.port].items():
                assert contents(manager, session_id) == {"number": number}
        # Nothing of the dead node's was looked for, or put, elsewhere. (A cycle whose new id lies there is stored first.)
        handles = {f"sess:{session.handle}".encode() for session in loaded}
        for server in living:
            connection = memcached.Connection(server.port)
            assert not handles & set(memcached.keys(connection))
            connection.close()
            assert int(memcached.stats(server.port)["curr_items"]) >= int(before[server.port])
        # A new session, and a new id, find a node that lives.
        for number in range(30):
            assert contents(manager, stored_id(manager, number=number)) == {"number": number}
        for session_id, number in [each for server in living for each in sessions[server.port].items()]:
            moving = manager.load(session_id)
            assert moving is not None
            manager.cycle(moving)
            assert contents(manager, moving.id) == {"number": number}
        dead.start()
        for session_id in sessions[dead.port]:
            assert manager.load(session_id) is None  # it came back empty
        for session in loaded:
            session.fields["later"] = True
            with pytest.raises(SessionEnded):
                manager.save(session)
        assert memcached.stats(dead.port)["curr_items"] == "0"


@pytest.mark.usefixtures("never_left_alone")
def test_a_node_that_hangs_holds_up_no_thread_that_asks_another(nodes: Nodes) -> None:
    hung, *living = nodes.nodes
    with manager_of("threads", nodes.url, timeout=2.0, max_connections=4) as manager:
        sessions = by_node(manager, nodes)
        others = {session_id: n for server in living for session_id, n in sessions[server.port].items()}
        theirs = list(sessions[hung.port])

        def ask_in_vain(session_id: str) -> None:
            with pytest.raises(StoreUnavailable):
                manager.load(session_id)

        def ask() -> None:
            for session_id, number in others.items():
                assert contents(manager, session_id) == {"number": number}

        hung.pause()
        at_once(ask, *[lambda n=n: ask_in_vain(theirs[n % len(theirs)]) for n in range(8)])
        hung.resume()
        assert contents(manager, theirs[0]) == {"number": sessions[hung.port][theirs[0]]}


@pytest.mark.usefixtures("never_left_alone")
def test_a_node_that_hangs_holds_up_no_task_that_asks_another(nodes: Nodes) -> None:
    hung, *living = nodes.nodes
    manager = AsyncSessionManager.connect(Settings(url=nodes.url, timeout=2.0, max_connections=2))
    with manager_of("threads", nodes.url, timeout=PATIENT, connect_timeout=PATIENT) as helper:
        sessions = by_node(helper, nodes)
    others = {session_id: n for server in living for session_id, n in sessions[server.port].items()}

    async def load(session_id: str, number: int) -> None:
        found = await manager.load(session_id)
        assert found is not None and found.fields == {"number": number}

    async def main() -> None:
        theirs = list(sessions[hung.port])
        hung.pause()
        in_vain = [asyncio.create_task(manager.load(theirs[n % len(theirs)])) for n in range(20)]
        await asyncio.sleep(0)
        for session_id, number in others.items():
            await load(session_id, number)
        # Two wait for the node, and for the others there is no place, or one when the time is over.
        results = await asyncio.gather(*in_vain, return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert any("MAX_CONNECTIONS" in str(result) for result in results)
        hung.resume()
        await load(theirs[0], sessions[hung.port][theirs[0]])

    asyncio.run(main())


# Connections and threads


@KINDS
def test_who_finds_no_free_connection_is_told_what_to_raise(single: Store, kind: str) -> None:
    with Proxy(*single.ports, dialect=MEMCACHED) as proxy:
        settings = Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT, max_connections=1)
        proxy.hold_replies()
        refused = (_refused if kind == "threads" else _refused_task)(settings, proxy)
    assert "every connection that this process may have is busy" in str(refused)
    assert "ELASTICACHE_SESSIONS_MAX_CONNECTIONS" in str(refused)
    assert (refused.sent, refused.retry) == (False, False)


def _refused(settings: Settings, proxy: Proxy) -> StoreUnavailable:
    """What somebody hears who has less patience than whoever holds the one connection."""
    client = connect(settings)
    holder = threading.Thread(target=client.perform, args=[Read(b"key")])
    holder.start()
    wait_until(lambda: proxy.total.commands, PATIENT, "nobody asks")
    with pytest.raises(StoreUnavailable) as refused, TimeLimit(0.2, 0.2):
        client.perform(Read(b"key"))
    proxy.release_replies()
    holder.join()
    client.close()
    return refused.value


def _refused_task(settings: Settings, proxy: Proxy) -> StoreUnavailable:
    async def main() -> StoreUnavailable:
        client = connect_async(settings, Breakers(settings.timeouts))
        holder = asyncio.ensure_future(client.perform(Read(b"key")))
        await asyncio.to_thread(wait_until, lambda: proxy.total.commands, PATIENT, "nobody asks")
        with pytest.raises(StoreUnavailable) as refused, TimeLimit(0.2, 0.2):
            await client.perform(Read(b"key"))
        proxy.release_replies()
        await holder
        await client.aclose()
        return refused.value

    return asyncio.run(main())


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("elasticache-sessions")]


def test_tasks_share_as_many_threads_as_there_are_connections_and_leave_none(single: Store) -> None:
    manager = AsyncSessionManager.connect(
        Settings(url=single.url, timeout=PATIENT, connect_timeout=PATIENT, max_connections=3)
    )

    async def main() -> None:
        stored = Session()
        stored.fields["a"] = 1
        await manager.save(stored)
        assert len(our_threads()) == 1
        found = await asyncio.gather(*[manager.load(stored.id) for _ in range(60)])
        assert all(session is not None and session.fields == {"a": 1} for session in found)
        assert len(our_threads()) <= 3

    asyncio.run(main())
    deadline = time.monotonic() + 5
    while our_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert our_threads() == []


def test_each_command_of_a_task_is_one_hop_to_a_thread(
    single: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[object] = []
    submit = ThreadPoolExecutor.submit

    def counting(self: ThreadPoolExecutor, job: Any, *arguments: Any) -> Any:
        hops.append(arguments[-1])
        return submit(self, job, *arguments)

    async def main() -> None:
        manager = AsyncSessionManager.connect(
            Settings(url=single.url, timeout=PATIENT, connect_timeout=PATIENT)
        )
        stored = Session()
        stored.fields["a"] = 1
        monkeypatch.setattr(ThreadPoolExecutor, "submit", counting)
        await manager.save(stored)
        loaded = await manager.load(stored.id)
        assert loaded is not None
        loaded.fields["a"] = 2
        await manager.save(loaded)

    asyncio.run(main())
    assert [type(hop) for hop in hops] == [Write, Read, Write]


def test_a_command_does_not_wait_for_more_to_send(single: Store) -> None:
    """Nagle's algorithm holds a small packet back until the last one is acknowledged: 40 ms with delayed ones."""
    with TimeLimit(PATIENT, PATIENT):
        connection = Connection(("127.0.0.1", single.ports[0]))
    assert connection.sock._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


def test_a_failure_of_the_look_after_a_conflict_says_that_nothing_was_stored(single: Store) -> None:
    with Proxy(*single.ports, dialect=MEMCACHED) as proxy:
        client = connect(Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT))
        client.perform(Write(b"key", b"1", 100, ABSENT))
        proxy.lose_reply(when="gets")
        with pytest.raises(StoreUnavailable) as failed:
            client.perform(Write(b"key", b"2", 100, ABSENT))
        assert (failed.value.sent, failed.value.retry) == (False, True)
        reply = client.perform(Write(b"key", b"2", 100, ABSENT))
        assert isinstance(reply, Conflict) and reply.entry is not None and reply.entry.value == b"1"
        client.close()


# Eviction


@KINDS
def test_a_session_that_was_evicted_is_none_is_counted_and_is_never_anybody_elses(kind: str) -> None:
    with (
        own_server("-m", "2") as server,
        manager_of(kind, server.url, timeout=PATIENT, connect_timeout=PATIENT) as manager,
    ):
        stored = {}
        for number in range(300):
            stored[stored_id(manager, number=number, text=f"{number:05}" * 2000)] = number
        lost = 0
        for session_id, number in stored.items():
            found = contents(manager, session_id)
            assert found in (None, {"number": number, "text": f"{number:05}" * 2000})
            lost += found is None
        assert int(memcached.stats(server.port)["evictions"]) > 0
        assert 0 < lost < 300
        assert (manager.counts["missing"], manager.counts["created"]) == (lost, 300)
        # What was evicted while a request used it is gone: its change is dropped, and creates nothing.
        kept = manager.load(stored_id(manager, text="x" * 10_000))
        assert kept is not None
        for number in range(300):
            manager_session(manager, text=f"{number:05}" * 2000)
        kept.fields["late"] = True
        with pytest.raises(SessionEnded):
            manager.save(kept)
        assert contents(manager, kept.id) is None


def test_a_node_that_may_not_evict_says_that_it_is_out_of_memory() -> None:
    with (
        own_server("-m", "2", "-M") as server,
        manager_of("threads", server.url, timeout=PATIENT, connect_timeout=PATIENT) as manager,
    ):
        stored: dict[str, int] = {}
        with pytest.raises(StoreUnavailable, match="out of memory and could not make room") as failed:
            for number in range(400):
                stored[stored_id(manager, number=number, text="x" * 10_000)] = number
        assert (failed.value.sent, failed.value.retry) == (False, False)
        assert len(stored) > 10
        for session_id, number in stored.items():
            found = manager.load(session_id)
            assert found is not None and found.fields["number"] == number
        # A change that finds no room leaves the session as it was.
        session_id = next(iter(stored))
        session = manager.load(session_id)
        assert session is not None
        session.fields["text"] = "y" * 10_001
        with pytest.raises(StoreUnavailable):
            manager.save(session)
        assert (contents(manager, session_id) or {})["text"] == "x" * 10_000


def test_events_of_many_threads_are_all_counted(single: Store) -> None:
    manager = SessionManager.connect(Settings(url=single.url, timeout=PATIENT, connect_timeout=PATIENT))
    at_once(*[lambda: [manager.load("x" * 40) for _ in range(100)]] * 8)
    assert manager.counts == {"missing": 800}
    manager.close()


def test_a_connection_is_closed_for_good_by_a_failure(single: Store) -> None:
    with Proxy(*single.ports, dialect=MEMCACHED) as proxy, TimeLimit(PATIENT, PATIENT):
        connection = Connection(("127.0.0.1", proxy.port))
        assert connection.is_usable
        proxy.replace_reply(b"ERROR\r\n")
        with pytest.raises(StoreUnavailable):
            connection.ask(Read(b"key"))
        assert not connection.is_usable


def test_no_thread_to_be_had_is_no_place_less(single: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        client = connect_async(settings, Breakers(settings.timeouts))
        with monkeypatch.context() as patch:
            patch.setattr(ThreadPoolExecutor, "submit", none)
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="no thread"):
                    await client.perform(Read(b"key"))
        assert await client.perform(Read(b"key")) is None
        await client.aclose()

    settings = Settings(url=single.url, timeout=PATIENT, connect_timeout=PATIENT, max_connections=2)
    asyncio.run(main())
