"""Looking at many keys, and searching for them: what it costs, and what becomes of it amid faults. What it is: the contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pytest

from elasticache_sessions import Settings, StoreUnavailable
from elasticache_sessions.clients import breaker
from elasticache_sessions.clients.base import (
    ABSENT,
    Glance,
    Look,
    Page,
    Scan,
    Write,
)
from elasticache_sessions.clients.choice import async_clients_for, client_for
from elasticache_sessions.record import HEADER_BYTES, Header, Kind, Record, pack
from tests.support import memcached, topologies
from tests.support.dialects import memcached_for
from tests.support.load import PATIENT
from tests.support.proxy import Proxy, Rule
from tests.support.resharding import move
from tests.support.servers import Server
from tests.support.stores import MEMCACHED, Store
from tests.support.topologies import Cluster

KINDS = ("threads", "asyncio")
Stored = dict[bytes, bytes]
T = TypeVar("T")


@dataclass
class Client:
    """A client of either kind, asked by plain functions."""

    look: Callable[[Look], tuple[Glance | None, ...]]
    scan: Callable[[Scan], Page]


@contextmanager
def client_of(kind: str, url: str, timeout: float = PATIENT) -> Iterator[Client]:
    settings = Settings(url=url, timeout=timeout, connect_timeout=PATIENT)
    client: Any
    if kind == "threads":
        client = client_for(settings, None)
        try:
            yield Client(client.look, getattr(client, "scan", refuse))
        finally:
            client.close()
        return
    with asyncio.Runner() as runner:

        async def made() -> Any:
            return async_clients_for(settings, None).make()

        client = runner.run(made())
        try:
            yield Client(
                lambda question: runner.run(client.look(question)),
                lambda question: runner.run(client.scan(question)),
            )
        finally:
            runner.run(client.aclose())


def refuse(question: Scan) -> Page:
    raise AssertionError("this store cannot be searched")


def store_many(url: str, count: int, prefix: bytes = b"sess:") -> Stored:
    """So many live records in the store, and their keys."""
    stored: Stored = {}
    client = client_for(Settings(url=url, timeout=PATIENT, connect_timeout=PATIENT), None)
    for number in range(count):
        key, header = (
            b"%b%d" % (prefix, number),
            Header(Kind.LIVE, 1, (number.to_bytes(6, "big"),), 1_700_000_000),
        )
        stored[key] = pack(Record(header, {"number": b"\xc0" * number}))
        client.perform(Write(key, stored[key], 1000, ABSENT))
    client.close()
    return stored


def shows(glances: tuple[Glance | None, ...], stored: Stored) -> bool:
    return [None if glance is None else glance.header[:HEADER_BYTES] for glance in glances] == [
        value[:HEADER_BYTES] for value in stored.values()
    ]


def all_pages(
    client: Client, prefix: bytes, between: Callable[[int], object] = lambda page: None
) -> set[bytes]:
    """What a search finds; `between` is called after each page, with its number."""
    found: set[bytes] = set()
    cursor: object = None
    for number in range(200):
        question = Scan(prefix, cursor)
        page = answered(lambda: client.scan(question))
        found |= set(page.keys)
        if page.cursor is None:
            return found
        cursor = page.cursor
        between(number)
    raise AssertionError("the search does not end")


# What it costs


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_at_fifty_keys_is_one_flight_to_each_node_that_has_some(
    networked_store: Store, proxy: Proxy, kind: str
) -> None:
    stored = store_many(networked_store.url if len(networked_store.ports) == 1 else proxy.url, 50)
    nodes = 1 if networked_store.name == "serverless" else len(proxy.ports)
    with client_of(kind, proxy.url) as client:
        client.look(Look(tuple(stored)))  # connects, and brings the script
        with proxy.counting() as count:
            assert shows(client.look(Look(tuple(stored))), stored)
    most = nodes
    if networked_store.name == "memcached-copies" and kind == "asyncio":
        most = nodes * (nodes - 1) * 2  # from a thread for each first owner
    assert count.round_trips <= most
    assert count.connections == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_at_what_is_gone_costs_no_more(networked_store: Store, proxy: Proxy, kind: str) -> None:
    keys = tuple(b"sess:gone%d" % number for number in range(50))
    with client_of(kind, proxy.url) as client:
        client.look(Look(keys))  # connects, and brings the script
        with proxy.counting() as count:
            assert client.look(Look(keys)) == (None,) * 50
    nodes = len(proxy.ports)
    most = nodes
    if networked_store.name == "memcached-copies" and kind == "asyncio":
        most = nodes * (nodes - 1) * 2  # from a thread for each first owner
    assert count.round_trips <= most


@pytest.mark.parametrize("kind", KINDS)
def test_more_keys_than_fit_a_flight_take_several(
    single_store: Store, single_proxy: Proxy, kind: str
) -> None:
    stored = store_many(single_store.url, 450)
    with client_of(kind, single_proxy.url) as client:
        client.look(Look((b"sess:none",)))
        with single_proxy.counting() as count:
            assert shows(client.look(Look(tuple(stored))), stored)
    assert count.round_trips == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_has_forgotten_the_script_costs_one_flight_more(
    single_store: Store, single_proxy: Proxy, kind: str
) -> None:
    stored = store_many(single_store.url, 50)
    with client_of(kind, single_proxy.url) as client:
        client.look(Look((b"sess:none",)))
        single_store.raw("SCRIPT", "FLUSH")
        with single_proxy.counting() as count:
            assert shows(client.look(Look(tuple(stored))), stored)
            assert shows(client.look(Look(tuple(stored))), stored)
    assert count.round_trips == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_of_a_search_is_one_flight(single_store: Store, single_proxy: Proxy, kind: str) -> None:
    stored = store_many(single_store.url, 1200)
    pages: list[int] = []
    with client_of(kind, single_proxy.url) as client, single_proxy.counting() as count:
        assert all_pages(client, b"sess:", pages.append) == set(stored)
    assert len(pages) + 1 == count.round_trips >= 3


def test_neither_is_a_change_that_replicas_would_hear_of(single_store: Store) -> None:
    stored = store_many(single_store.url, 20)
    single_store.raw("LPUSH", "sess:list", "no string")

    def changes() -> list[bytes]:
        told = single_store.raw("INFO", "everything")
        assert isinstance(told, bytes)
        words = (b"rdb_changes_since_last_save:", b"master_repl_offset:", b"total_writes_processed:")
        return [line for line in told.splitlines() if line.startswith(words[:2])]

    before = changes()
    assert len(before) == 2
    with client_of("threads", single_store.url) as client:
        (*_, odd) = client.look(Look((*stored, b"sess:list")))
        assert odd == Glance(b"", None), "what is no string is no record, and no error"
        assert all_pages(client, b"sess:") == {*stored, b"sess:list"}
    assert changes() == before


# Amid faults


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", ["valkey-9.1", "cluster", "memcached", "memcached-3"], indirect=True)
def test_a_reply_that_is_lost_in_the_middle_is_nobodys(store: Store, kind: str) -> None:
    stored = store_many(store.url, 30)
    asks = "MG" if store.name in MEMCACHED else "EVALSHA"
    with Proxy(*store.ports, dialect=store.dialect) as proxy:
        if store.name == "memcached-3":
            stored = store_many(proxy.url, 30, b"sess:more")
        keys = tuple(stored)
        middle = keys[len(keys) // 2]
        with client_of(kind, proxy.url) as client:
            client.look(Look(keys))
            breaks: list[Callable[..., Rule]] = [
                proxy.lose_reply,
                proxy.cut_reply,
                partial(proxy.replace_reply, b"*1\r\n:5\r\n"),
                proxy.lose_request,
            ]
            for break_it in breaks:
                rule = break_it(when=lambda command: middle in command)
                with pytest.raises(StoreUnavailable):
                    client.look(Look(keys))
                assert rule.fired == 1
                with proxy.counting() as count:
                    assert shows(client.look(Look(keys)), stored)
                assert asks in count.names
            proxy.extend_reply(
                b"EN\r\n" if asks == "MG" else b"$-1\r\n", when=lambda command: keys[-1] in command
            )
            with suppress(StoreUnavailable):  # where it was noticed already
                client.look(Look(keys))
            assert shows(client.look(Look(keys)), stored)


@pytest.mark.parametrize("kind", KINDS)
def test_replies_that_came_too_late_are_nobodys(single_store: Store, single_proxy: Proxy, kind: str) -> None:
    stored = store_many(single_store.url, 10)
    keys = tuple(stored)
    with client_of(kind, single_proxy.url, timeout=0.3) as client:
        client.look(Look(keys))
        single_proxy.hold_replies()
        with pytest.raises(StoreUnavailable):
            client.look(Look(keys))
        single_proxy.release_replies()
        assert shows(client.look(Look(keys[::-1])), dict(reversed(stored.items())))


@pytest.mark.parametrize("kind", KINDS)
def test_a_primary_that_has_become_a_replica_refuses_both(own_server: Server, kind: str) -> None:
    stored = store_many(own_server.url, 5)
    with client_of(kind, own_server.url) as client:
        assert shows(client.look(Look(tuple(stored))), stored)
        assert all_pages(client, b"sess:") == set(stored)
        own_server.command("REPLICAOF", "127.0.0.1", 1)  # of nobody, so that it keeps what it has
        for question in (lambda: client.look(Look(tuple(stored))), lambda: client.scan(Scan(b"sess:"))):
            with pytest.raises(StoreUnavailable, match="ReadOnly") as refused:
                question()
            assert refused.value.retry, "the next connection may be to the new primary"
        own_server.command("REPLICAOF", "NO", "ONE")
        assert shows(client.look(Look(tuple(stored))), stored)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_goes_on_at_another_server_begins_anew(own_server: Server, kind: str) -> None:
    stored = store_many(own_server.url, 1500)

    with client_of(kind, own_server.url) as client:
        first = client.scan(Scan(b"sess:"))
        assert first.cursor is not None
        own_server.command(
            "SCRIPT", "FLUSH"
        )  # as nobody has brought it to the replica that is the primary now
        second = client.scan(Scan(b"sess:", first.cursor))
        assert second.keys == ()
        found: set[bytes] = set()
        page = second
        while page.cursor is not None:
            page = client.scan(Scan(b"sess:", page.cursor))
            found |= set(page.keys)
        assert found == set(stored), "on the pages since it began anew"


def test_a_search_does_not_begin_anew_for_ever(single_store: Store) -> None:
    store_many(single_store.url, 1500)
    with (
        client_of("threads", single_store.url) as client,
        pytest.raises(StoreUnavailable, match="Try again when they stay") as failed,
    ):
        all_pages(client, b"sess:", lambda page: single_store.raw("SCRIPT", "FLUSH"))
    assert not failed.value.retry


def test_a_cursor_of_something_else_is_refused(single_store: Store) -> None:
    with client_of("threads", single_store.url) as client, pytest.raises(TypeError, match="int"):
        client.scan(Scan(b"sess:", 17))


# In cluster mode


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with topologies.cluster() as cluster:
        yield cluster


def slot_of(cluster: Cluster, key: bytes) -> int:
    slot = cluster.nodes[0].command("CLUSTER", "KEYSLOT", key)
    assert isinstance(slot, int)
    return slot


@pytest.mark.parametrize("kind", KINDS)
def test_keys_whose_slots_move_are_seen_and_found_all_the_same(cluster: Cluster, kind: str) -> None:
    for node in cluster.nodes:
        node.command("FLUSHALL")
    stored = store_many(cluster.url, 300)
    some = dict(list(stored.items())[:40])
    ours, other, *_ = cluster.nodes
    mine = {key for key in stored if ours.command("CLUSTER", "COUNTKEYSINSLOT", slot_of(cluster, key))}
    first = next(iter(mine & set(some)))
    with client_of(kind, cluster.url) as client:
        assert shows(client.look(Look(tuple(some))), some)
        for _ in move(slot_of(cluster, first), ours, other, cluster.nodes):
            assert shows(client.look(Look(tuple(some))), some)
        assert all_pages(client, b"sess:") == set(stored)
        for _ in move(slot_of(cluster, first), other, ours, cluster.nodes):
            assert shows(client.look(Look(tuple(some))), some)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_amid_which_slots_have_moved_begins_anew(cluster: Cluster, kind: str) -> None:
    for node in cluster.nodes:
        node.command("FLUSHALL")
    stored = store_many(cluster.url, 300)
    with client_of(kind, cluster.url) as client:
        first = client.scan(Scan(b"sess:"))
        seen = next(node for node in cluster.nodes if first.keys[0] in keys_of(node))
        # What is on a node that nobody has looked at moves to one that somebody has.
        later = next(node for node in cluster.nodes if node is not seen)
        moved = keys_of(later)[0]
        for _ in move(slot_of(cluster, moved), later, seen, cluster.nodes):
            pass
        try:
            found, page = set(first.keys), first
            for _ in range(50):
                if page.cursor is None:
                    break
                question = Scan(b"sess:", page.cursor)
                page = answered(lambda: client.scan(question))
                found |= set(page.keys)
            assert page.cursor is None
            assert found == set(stored)
        finally:
            for _ in move(slot_of(cluster, moved), seen, later, cluster.nodes):
                pass


def keys_of(node: Server) -> list[bytes]:
    keys = node.command("KEYS", "*")
    assert isinstance(keys, list)
    return keys


def answered(ask: Callable[[], T]) -> T:
    """As a manager does it: asked again where that may help."""
    deadline = time.monotonic() + PATIENT
    while True:
        try:
            return ask()
        except StoreUnavailable as error:
            if not (error.retry or error.silent) or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def test_a_prefix_with_a_hash_tag_is_searched_for_where_it_is(cluster: Cluster) -> None:
    stored = store_many(cluster.url, 20, b"{shop}:")
    with client_of("threads", cluster.url) as client:
        assert all_pages(client, b"{shop}:") == set(stored)


# On Memcached, with two copies


def test_a_look_at_copies_of_which_one_is_gone_shows_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(breaker, name, 10 * PATIENT)  # nobody sees whether it is back
    with topologies.nodes(2) as nodes:
        url = memcached_for(copies=2).url(nodes.ports)
        stored = store_many(url, 8)
        question = Look(tuple(stored))
        with client_of("threads", url) as client:
            assert shows(client.look(question), stored)
            nodes.nodes[0].command("delete", next(iter(stored)))
            assert shows(client.look(question), stored), "from the other, which is copied"
            nodes.nodes[1].kill()
            assert shows(answered(lambda: client.look(question)), stored)
            before = asked(nodes.nodes[0])
            assert shows(client.look(question), stored)
            assert asked(nodes.nodes[0]) - before == len(stored), "each once, and the other node not at all"


def asked(node: Server) -> int:
    return int(memcached.stats(node.port)["cmd_get"])
