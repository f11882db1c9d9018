"""Which nodes there were before is known to processes that were not there, as the nodes tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, strategies as st

from elasticache_sessions import Settings
from elasticache_sessions.clients.memcached import source_for
from elasticache_sessions.clients.memcached_discovery import Discovery
from elasticache_sessions.clients.memcached_history import History
from elasticache_sessions.clients.memcached_known import LONGEST_HISTORY
from elasticache_sessions.clients.memcached_listing import is_name
from elasticache_sessions.limit import TimeLimit
from tests.support.demo import wait_until
from tests.support.discovery import DiscoveryEndpoint
from tests.support.load import PATIENT
from tests.support.stores import Store

NOBODY = "127.0.0.1:1"
OFTEN = 0.1
KEY = "sess:nodes"


@pytest.fixture
def three(give_store: Callable[[str], Store]) -> Store:
    return give_store("memcached-3")


@pytest.fixture
def names(three: Store) -> list[str]:
    return [f"127.0.0.1:{port}" for port in three.ports]


@contextmanager
def process(
    endpoint: DiscoveryEndpoint, number: int, prefix: str = "sess:", **options: object
) -> Iterator[Discovery]:
    """What another process would have: by other time limits, it shares nothing."""
    url = endpoint.url_with(discovery_interval=OFTEN, **options)
    discovery = source_for(
        Settings(url=url, timeout=PATIENT + number, connect_timeout=PATIENT, prefix=prefix)
    )
    assert isinstance(discovery, Discovery)
    with TimeLimit(PATIENT, PATIENT):
        assert discovery.nodes.current
    yield discovery
    discovery.close()


def become(discovery: Discovery, *nodes: str, previous: tuple[tuple[str, ...], ...] = ()) -> None:
    def told() -> object:
        return discovery.nodes.current, discovery.nodes.previous

    wait_until(lambda: told() == (nodes, previous), PATIENT, f"the nodes are {nodes}")


def told(three: Store, port: int) -> History | None:
    """What one node tells."""
    lines = three.dialect.command(port, "get", KEY)
    assert isinstance(lines, list)
    return History.unpacked(lines[-1]) if lines else None


def is_told(three: Store, version: int, *sets: tuple[str, ...], gone: tuple[str, ...] = ()) -> None:
    """Wait until each of the newest nodes tells this."""
    ports = [int(name.rpartition(":")[2]) for name in sets[0]]
    wanted = History(version, sets, frozenset(gone))
    wait_until(
        lambda: all(told(three, port) == wanted for port in ports if port in three.ports),
        PATIENT,
        "they tell",
    )


def test_a_process_that_begins_later_knows_which_nodes_there_were(three: Store, names: list[str]) -> None:
    a, b, c = names
    with DiscoveryEndpoint(a) as endpoint:
        with process(endpoint, 1) as first:
            become(first, a)
            is_told(three, 1, (a,))
            endpoint.set_nodes(a, b)
            become(first, a, b, previous=((a,),))
            is_told(three, 2, (a, b), (a,))
            endpoint.set_nodes(c)
            become(first, c, previous=((a, b), (a,)))
            is_told(three, 3, (c,), (a, b), (a,))
        with process(endpoint, 2) as later:
            become(later, c, previous=((a, b), (a,)))
        endpoint.set_nodes(c, NOBODY)  # while no process was there
        with process(endpoint, 3) as latest:
            become(latest, c, NOBODY, previous=((c,), (a, b), (a,)))
            is_told(three, 4, (c, NOBODY), (c,), (a, b), (a,))
        with process(endpoint, 4, prefix="other:") as other:
            become(other, c, NOBODY)
        with process(endpoint, 5, handover=0) as hasty:
            become(hasty, c, NOBODY)


def test_no_more_is_remembered_than_some_changes(three: Store, names: list[str]) -> None:
    a, *_ = names
    with DiscoveryEndpoint(a) as endpoint, process(endpoint, 1) as discovery:
        become(discovery, a)
        sets: list[tuple[str, ...]] = [(a,)]
        for port in range(1, LONGEST_HISTORY + 3):
            endpoint.set_nodes(a, f"127.0.0.1:{port}")
            become(discovery, a, f"127.0.0.1:{port}", previous=tuple(sets[:LONGEST_HISTORY]))
            sets.insert(0, (a, f"127.0.0.1:{port}"))
        is_told(three, LONGEST_HISTORY + 3, *sets[: LONGEST_HISTORY + 1])


def test_a_node_that_is_gone_is_gone_for_processes_that_begin_later(three: Store, names: list[str]) -> None:
    a, *_ = names
    with DiscoveryEndpoint(a, NOBODY) as endpoint:
        with process(endpoint, 1) as first:
            become(first, a, NOBODY)
            endpoint.set_nodes(a)
            become(first, a, previous=((a, NOBODY),))
            first.forget(NOBODY)
            become(first, a)
            is_told(three, 2, (a,), (a, NOBODY), gone=(NOBODY,))
        with process(endpoint, 2) as later:
            become(later, a)


@pytest.mark.parametrize("value", [b"nonsense", b"\x92\x01\x91\x91\xa1a", b"\x92\x01\x91\x90", b""])
def test_what_is_no_history_is_none_and_written_over(three: Store, names: list[str], value: bytes) -> None:
    a, *_ = names
    three.dialect.command(three.ports[0], "set", KEY, 0, 0, len(value), value)
    with DiscoveryEndpoint(a) as endpoint, process(endpoint, 1) as discovery:
        become(discovery, a)
        is_told(three, 1, (a,))


def test_who_knows_less_leaves_what_is_newer(three: Store, names: list[str]) -> None:
    a, b, _ = names
    newer = History(9, ((a, b), (a,), (NOBODY,)))
    three.dialect.command(three.ports[0], "set", KEY, 0, 0, len(newer.packed()), newer.packed())
    with DiscoveryEndpoint(a) as endpoint, process(endpoint, 1) as discovery:
        become(discovery, a, previous=((NOBODY,),))
        endpoint.is_asked(2)
        assert told(three, three.ports[0]) == newer
        endpoint.version = 9
        endpoint.set_nodes(b)
        become(discovery, b, previous=((a,), (NOBODY,)))
        is_told(three, 10, (b,), (a,), (NOBODY,))


A, B, C = ("a:1",), ("b:1",), ("c:1",)


@pytest.mark.parametrize(
    ("history", "version", "nodes", "before"),
    [
        (History(5, (A, B, C)), 5, A, (B, C)),
        (History(5, (A, B, C)), 6, C, (A, B, C)),  # it came back
        (History(5, (A, B)), 6, C, (A, B)),
        (History(5, (A, B)), 6, A, (B,)),
        (History(5, (A, B)), 4, C, (B,)),  # who asks has not heard of the newest
        (History(5, ()), 5, A, ()),
        (History(5, (("a:1", "b:1"), C)), 6, ("b:1", "a:1"), (C,)),
    ],
)
def test_the_sets_before_one_are_those_that_it_followed(
    history: History, version: int, nodes: tuple[str, ...], before: tuple[tuple[str, ...], ...]
) -> None:
    assert history.before(version, nodes) == before
    assert History.unpacked(history.packed()) == history


@given(st.binary(max_size=80), st.integers(0, 80), st.binary(max_size=3))
def test_any_bytes_are_a_history_or_none(data: bytes, place: int, other: bytes) -> None:
    whole = History(7, (("a.b:11211", "[::1]:2"), ("c:3",))).packed()
    for damaged in (data, whole[:place], whole[:place] + other + whole[place:], whole[:place] + other):
        found = History.unpacked(damaged)
        assert found is None or all(is_name(name) for names in found.sets for name in names)
