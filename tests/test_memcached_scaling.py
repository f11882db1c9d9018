"""Memcached's nodes come and go while sessions with one copy are in use: what users notice of it, and what is left."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given, settings, strategies as st

from elasticache_sessions import SessionManager, StoreUnavailable
from elasticache_sessions.clients import memcached_discovery
from elasticache_sessions.clients.memcached_nodes import Nodes, ranked
from tests.support import memcached, topologies
from tests.support.demo import wait_until
from tests.support.discovery import DiscoveryEndpoint
from tests.support.failover import Load, increment, patiently, under_load
from tests.support.fleet import REMEMBERED, fleet, key_of, owners, phase
from tests.support.load import PATIENT, at_once, contents, managers, once_back, stored_id
from tests.support.servers import Server
from tests.support.topologies import Nodes as Servers

SLOW = 60.0
"""Seconds from one look at an endpoint to the next: within a test nobody looks but who has reason to."""


@pytest.fixture
def nodes() -> Iterator[Servers]:
    with topologies.nodes(4) as nodes:
        yield nodes


@pytest.fixture
def endpoint(nodes: Servers) -> Iterator[DiscoveryEndpoint]:
    """Tells three of the four."""
    with DiscoveryEndpoint(*nodes.ports[:3]) as endpoint:
        yield endpoint


@pytest.fixture
def elsewhere(nodes: Servers) -> Iterator[DiscoveryEndpoint]:
    """As if it were the same: it tells what the other will tell, or has told."""
    with DiscoveryEndpoint(*nodes.ports[:3]) as endpoint:
        yield endpoint


def moving(manager: SessionManager, before: tuple[int, ...], after: tuple[int, ...], **values: object) -> str:
    """A new session whose owner changes with the nodes."""
    while True:
        session_id = stored_id(manager, **(values or {"count": 0}))
        if owners(before, session_id) != owners(after, session_id):
            return session_id


@pytest.fixture
def soon_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is listed no more, and does not answer, is soon taken for one that has left."""
    monkeypatch.setattr(memcached_discovery, "_GONE_AFTER", 1.0)


# Under load


@pytest.mark.slow
def test_nodes_that_join_and_leave_cost_nothing(nodes: Servers) -> None:
    first, *_, new = nodes.nodes
    with (
        fleet(*nodes.ports[:3], copies=1) as site,
        under_load("nodes come and go, one copy", site, REMEMBERED) as load,
    ):
        with phase("a node joins", load, site) as people_leave:
            site.tell(*nodes.ports)
            load.goes_on(15, well=False)
            people_leave()
            site.knows()
        assert sessions_on(new)
        with phase("a node leaves, and can be reached", load, site) as people_leave:
            site.tell(*nodes.ports[1:])
            load.goes_on(15, well=False)
            people_leave()
            site.knows()
        first.stop()  # all that it had has moved
        load.goes_on(15)


@pytest.mark.slow
@pytest.mark.usefixtures("soon_gone")
def test_a_node_that_dies_costs_its_own_sessions_and_no_other(
    nodes: Servers, endpoint: DiscoveryEndpoint
) -> None:
    """While it is listed they are known to be there: asking for one is an error, and none is missed."""
    dead, listed = nodes.nodes[0], nodes.ports[:3]

    def is_on_it(session_id: str | None) -> bool:
        return session_id is None or owners(listed, session_id) == (dead.port,)

    with fleet(*nodes.ports[:3], copies=1) as site, under_load("a node dies, one copy", site) as load:
        its_own = [session for session in load.kept if is_on_it(session.id)]
        assert 50 < len(its_own) < 150
        load.is_given_up = is_on_it
        dead.kill()
        wait_for_failures(load)
        assert not any(session.missed for session in its_own), "one was missed while its node was listed"
        with load.at_rest():
            for session in random.sample(its_own, 10):
                with pytest.raises(StoreUnavailable):
                    site.read(session.id)
        assert not load.failures, load.reasons  # of those that are on the other nodes
        load.kept = [session for session in load.kept if session not in its_own]
        site.tell(*listed[1:])
        load.goes_on(15, well=False)
        site.knows()
        load.is_given_up = lambda session_id: False
        load.goes_on(15)
        found = [patiently(lambda: site.read(session.id)) for session in its_own]
    print(f"{found.count(None)} of the node's {len(its_own)} sessions were lost")
    assert set(map(str, found)) == {"None"}


def wait_for_failures(load: Load) -> None:
    while len(load.given_up) < 50:
        load.goes_on(10, well=False)


def sessions_on(node: Server) -> list[bytes]:
    with node.dialect.connection(node.port) as connection:
        return [key for key in memcached.keys(connection) if key != b"sess:nodes"]


# Which keys move

names = st.lists(st.from_regex(r"[a-z]{1,9}:[0-9]{1,5}", fullmatch=True), min_size=3, max_size=9, unique=True)


@settings(max_examples=15)
@given(names)
def test_a_node_that_joins_takes_its_share_and_no_more(nodes: list[str]) -> None:
    *before, new = nodes
    owners = [(ranked(before, key)[0], ranked(nodes, key)[0]) for key in (b"sess:%d" % n for n in range(200))]
    moved = [to for owner, to in owners if owner != to]
    assert set(moved) <= {new}
    share = 1 / len(nodes)
    assert abs(len(moved) - share * 200) < 6 * math.sqrt(200 * share * (1 - share))


@given(names, st.binary(min_size=1, max_size=60), st.sampled_from(["join", "leave", "replace"]))
def test_one_of_a_key_s_two_nodes_stays_and_decides(nodes: list[str], key: bytes, change: str) -> None:
    """So that processes which have not heard of a change meet with those which have."""
    *before, new = nodes
    after = {"join": nodes, "leave": before[1:], "replace": [*before[1:], new]}[change]
    had = Nodes(tuple(before)).owners(key, 2)
    has = Nodes(tuple(after), (tuple(before),), last=tuple(before)).owners(key, 2)
    assert len(has) == min(2, len(after))
    assert has[0] in had
    if change == "join":
        assert set(has) <= {*had, new}


# Those who know the nodes, and those who know what the nodes were


@pytest.mark.usefixtures("soon_gone")
def test_a_session_moves_to_the_node_that_joined(nodes: Servers, endpoint: DiscoveryEndpoint) -> None:
    new = nodes.nodes[3]
    with managers(endpoint.url_with(discovery_interval=0.2)) as [manager]:
        ids = {moving(manager, nodes.ports[:3], nodes.ports, mine=number): number for number in range(5)}
        ended = moving(manager, nodes.ports[:3], nodes.ports)
        endpoint.set_nodes(*nodes.ports)
        endpoint.is_asked(2)
        assert manager.end(ended)
        assert manager.load(ended) is None
        for session_id, number in ids.items():
            assert contents(manager, session_id) == {"mine": number}
        assert {*map(key_of, ids), key_of(ended)} <= set(sessions_on(new))
        assert manager.counts["moved"] == 6
        # And back, as the node leaves again: what is left of them where they were is no session any more.
        for session_id in ids:
            manager.end(session_id)
        new.kill()
        endpoint.set_nodes(*nodes.ports[:3])
        endpoint.is_asked(2)
        for session_id in (*ids, ended):
            assert once_back(lambda: contents(manager, session_id)) is None


@pytest.fixture
def newer(endpoint: DiscoveryEndpoint) -> Iterator[SessionManager]:
    """Learns what `endpoint` tells."""
    with managers(endpoint.url_with(discovery_interval=0.2), timeout=2.0) as [manager]:
        yield manager


@pytest.fixture
def older(elsewhere: DiscoveryEndpoint) -> Iterator[SessionManager]:
    """Learns what `elsewhere` tells, which is the same or older."""
    with managers(elsewhere.url_with(discovery_interval=SLOW), timeout=2.0) as [manager]:
        yield manager


def learns(endpoint: DiscoveryEndpoint, nodes: Servers) -> None:
    """The fourth node joins, for those who ask `endpoint`."""
    endpoint.set_nodes(*nodes.ports)
    endpoint.is_asked(2)


def test_two_views_of_the_nodes_lose_no_update(
    nodes: Servers,
    endpoint: DiscoveryEndpoint,
    elsewhere: DiscoveryEndpoint,
    newer: SessionManager,
    older: SessionManager,
) -> None:
    session_ids = [moving(newer, nodes.ports[:3], nodes.ports, count=0) for _ in range(4)]
    counted: Counter[SessionManager] = Counter()
    doubtful: Counter[SessionManager] = Counter()

    def count(manager: SessionManager, most: int = 100) -> None:
        for session_id in (session_ids * 25)[:most]:
            if doubtful[manager] > 3:
                return  # by now it knows too little of any of them
            try:
                session = manager.load(session_id)
                assert session is not None
                manager.apply(session, increment)
                counted[manager] += 1
            except StoreUnavailable:  # the older view met with what has moved
                doubtful[manager] += 1

    count(older, 20)
    learns(endpoint, nodes)
    at_once(*[lambda: count(newer), lambda: count(older)] * 2)
    elsewhere.set_nodes(*nodes.ports)
    found = [once_back(lambda: contents(older, session_id)) for session_id in session_ids]
    assert found == [contents(newer, session_id) for session_id in session_ids]
    total = sum(each["count"] for each in found if each is not None)
    print(f"{counted.total()} counted, {doubtful.total()} told of a failure, {total} found")
    assert counted.total() <= total <= counted.total() + doubtful.total()
    assert counted[newer] == 200
    assert not doubtful[newer]


@pytest.mark.parametrize("who", ["newer", "older"])
@pytest.mark.parametrize("moved", [True, False])
def test_two_views_of_the_nodes_revive_nothing(
    nodes: Servers,
    endpoint: DiscoveryEndpoint,
    elsewhere: DiscoveryEndpoint,
    newer: SessionManager,
    older: SessionManager,
    who: str,
    moved: bool,
) -> None:
    session_id = moving(newer, nodes.ports[:3], nodes.ports)
    assert older.load(session_id) is not None
    learns(endpoint, nodes)
    if moved:
        assert newer.load(session_id) is not None
    try:
        assert (newer if who == "newer" else older).end(session_id)
    except StoreUnavailable:
        assert (who, moved) == ("older", True)
        assert newer.load(session_id) is not None
        assert newer.end(session_id)
    for manager in (newer, older, newer):
        assert is_gone(manager, session_id)
    elsewhere.set_nodes(*nodes.ports)
    for manager in (newer, older):
        assert once_back(lambda: manager.load(session_id)) is None


def is_gone(manager: SessionManager, session_id: str) -> bool:
    """An older view may have to say that it does not know."""
    try:
        return manager.load(session_id) is None
    except StoreUnavailable:
        return True


def test_what_has_moved_is_not_missed_by_an_older_view(
    nodes: Servers,
    endpoint: DiscoveryEndpoint,
    elsewhere: DiscoveryEndpoint,
    newer: SessionManager,
    older: SessionManager,
) -> None:
    session_id = moving(newer, nodes.ports[:3], nodes.ports, mine=1)
    session = older.load(session_id)
    assert session is not None
    learns(endpoint, nodes)
    assert contents(newer, session_id) == {"mine": 1}
    asked = elsewhere.asked
    with pytest.raises(StoreUnavailable):
        older.load(session_id)
    assert elsewhere.asked > asked, "it has reason to think that the nodes are others"
    session.fields["mine"] = 2
    with pytest.raises(StoreUnavailable):  # not SessionEnded, which would sign the user out
        older.save(session)
    elsewhere.set_nodes(*nodes.ports)
    once_back(lambda: older.save(session))
    assert contents(newer, session_id) == {"mine": 2}


def test_what_is_new_on_a_node_that_joined_is_not_missed_by_an_older_view(
    nodes: Servers,
    endpoint: DiscoveryEndpoint,
    elsewhere: DiscoveryEndpoint,
    newer: SessionManager,
    older: SessionManager,
) -> None:
    """Who signed in at an instance that knows the node, and whose next request comes to one that does not."""
    assert older.load(stored_id(newer, warm="up")) is not None
    learns(endpoint, nodes)
    elsewhere.set_nodes(*nodes.ports)  # one that has not looked yet
    session_id = moving(newer, nodes.ports[:3], nodes.ports, mine=1)
    assert once_back(lambda: contents(older, session_id)) == {"mine": 1}


def test_a_process_that_begins_after_a_change_finds_what_has_not_moved(
    nodes: Servers, endpoint: DiscoveryEndpoint, newer: SessionManager
) -> None:
    session_ids = {moving(newer, nodes.ports[:3], nodes.ports, mine=number): number for number in range(5)}
    learns(endpoint, nodes)
    endpoint.is_asked(2)  # and it has told the nodes
    with managers(endpoint.url_with(discovery_interval=SLOW)) as [begun]:
        for session_id, number in session_ids.items():
            assert contents(begun, session_id) == {"mine": number}
        assert begun.counts["moved"] == 5


def test_processes_that_all_begin_after_a_change_find_what_has_not_moved(
    nodes: Servers, endpoint: DiscoveryEndpoint
) -> None:
    """Nobody saw the change: they were all down, or deployed anew, while the nodes were changed."""
    with managers(endpoint.url_with(discovery_interval=0.2)) as [before]:
        session_ids = {
            moving(before, nodes.ports[:3], nodes.ports, mine=number): number for number in range(5)
        }
        endpoint.is_asked(2)
    endpoint.set_nodes(*nodes.ports)
    with managers(endpoint.url_with(discovery_interval=SLOW)) as [begun]:
        for session_id, number in session_ids.items():
            assert contents(begun, session_id) == {"mine": number}


@pytest.mark.usefixtures("soon_gone")
def test_what_a_dead_node_took_along_is_missed_once_it_is_listed_no_more(
    nodes: Servers, endpoint: DiscoveryEndpoint, newer: SessionManager
) -> None:
    ids = {stored_id(newer, mine=number): number for number in range(20)}
    dead = nodes.nodes[0]
    lost = {each for each in ids if owners(nodes.ports[:3], each) == (dead.port,)}
    assert lost
    dead.kill()
    for session_id, number in ids.items():
        if session_id in lost:
            with pytest.raises(StoreUnavailable):
                newer.load(session_id)
        else:
            assert contents(newer, session_id) == {"mine": number}
    endpoint.set_nodes(*nodes.ports[1:3])
    endpoint.is_asked(2)
    found = {session_id for session_id in ids if once_back(lambda: newer.load(session_id)) is not None}
    assert found == ids.keys() - lost


@pytest.mark.parametrize("copies", [1, 2])
def test_the_endpoint_is_asked_at_once_when_a_node_fails(copies: int) -> None:
    with (
        topologies.nodes(2) as servers,
        DiscoveryEndpoint(*servers.ports) as endpoint,
        managers(endpoint.url_with(discovery_interval=300, copies=copies)) as [manager],
    ):
        ids = [stored_id(manager, number=number) for number in range(20)]
        asked = endpoint.asked
        servers.nodes[0].kill()
        with suppress(StoreUnavailable):
            for session_id in ids:
                manager.load(session_id)
        wait_until(lambda: endpoint.asked > asked, PATIENT, "it is asked again, long before it is time")


def test_a_process_that_begins_while_no_node_answers_finds_what_has_not_moved_when_they_do() -> None:
    with topologies.nodes(3) as servers, DiscoveryEndpoint(*servers.ports[:2]) as endpoint:
        url = endpoint.url_with(discovery_interval=0.2)
        with managers(url) as [manager]:
            ids = [stored_id(manager, number=number) for number in range(30)]
            endpoint.set_nodes(*servers.ports)
            wait_until(
                lambda: b"nodes" in b" ".join(_keys(servers.nodes[2])),
                PATIENT,
                "the new node is told what was before",
            )
        for server in servers.nodes:
            server.pause()
        # By other time limits than any other: it shares nothing.
        with managers(url, timeout=0.3, connect_timeout=0.3) as [late]:
            with pytest.raises(StoreUnavailable):
                late.load(ids[0])
            endpoint.is_asked(2)  # so one look is over, with the nodes that were asked for what was before
            for server in servers.nodes:
                server.resume()
            for number, session_id in enumerate(ids):
                assert once_back(partial(contents, late, session_id)) == {"number": number}


def _keys(server: Server) -> list[bytes]:
    return memcached.keys(server.command)


def test_from_fixed_nodes_to_discovery_and_from_one_copy_to_two_and_back_nobody_signs_in_again() -> None:
    with topologies.nodes(3) as servers, DiscoveryEndpoint(*servers.ports) as endpoint:
        with managers(servers.url) as [fixed]:
            ids = [stored_id(fixed, number=number) for number in range(30)]
        for options in ({"copies": 1}, {"copies": 2}, {"copies": 1}):
            with managers(endpoint.url_with(**options)) as [manager]:
                for number, session_id in enumerate(ids):
                    assert contents(manager, session_id) == {"number": number}
        with managers(servers.url) as [fixed]:
            for number, session_id in enumerate(ids):
                assert contents(fixed, session_id) == {"number": number}
