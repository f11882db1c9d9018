"""Sessions with two copies while their nodes come, go, die and return: what users notice of it, and what it costs."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import BrokenBarrierError

import pytest

from elasticache_sessions import SessionEnded
from tests.support import servers, topologies
from tests.support.dialects import MEMCACHED, Access
from tests.support.discovery import DiscoveryEndpoint
from tests.support.failover import KINDS, TIMEOUT, increment, under_load
from tests.support.fleet import REMEMBERED, fleet, key_of, owners, phase
from tests.support.load import (
    PATIENT,
    Manager,
    contents,
    manager_of,
    manager_session,
    managers,
    once_back,
    stored_id,
)
from tests.support.memcached import key_of as key_in
from tests.support.proxy import Command, Exchange, Proxy
from tests.support.servers import Server
from tests.support.topologies import Nodes


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with topologies.nodes(4) as nodes:
        yield nodes


@pytest.mark.slow
@pytest.mark.timeout(300)  # many phases, each of which waits until all is well
def test_whatever_happens_to_one_node_costs_nothing(nodes: Nodes) -> None:
    """One thing after another, in one run: what is ended in each phase is asked for in all that follow."""
    one, two, three, four = nodes.nodes
    with (
        Proxy(four.port, dialect=MEMCACHED) as wire,
        fleet(one.port, two.port, three.port, copies=2) as site,
        under_load("two copies", site, REMEMBERED) as load,
    ):
        with phase("a node joins", load, site) as people_leave:
            site.tell(one.port, two.port, three.port, wire.port)
            load.goes_on(8, well=False)
            people_leave()
            site.knows()
        with phase("a node leaves, and can be reached", load, site) as people_leave:
            site.tell(one.port, two.port, wire.port)
            load.goes_on(8, well=False)
            people_leave()
            site.knows()
        three.stop()
        with phase("a node dies, and stays listed", load, site) as people_leave:
            two.kill()
            load.goes_on(8)
            people_leave()
            assert site.happened("alone")
        with phase("it returns empty", load, site) as people_leave:
            two.start()
            load.goes_on(8, well=False)
            people_leave()
            site.is_whole(load)
        with phase("a node hangs, and returns with what it had", load, site) as people_leave:
            one.pause()
            load.goes_on(8)
            people_leave()
            one.resume()
            site.is_whole(load)
        with phase("a node is cut off, and returns with what it had", load, site) as people_leave:
            wire.go_down()
            load.goes_on(8)
            people_leave()
            wire.heal()
            site.is_whole(load)
        with phase("a node answers when it likes, and hears when it likes", load, site) as people_leave:
            lost = [
                lose(when=lambda command: random.random() < 0.3, times=1_000_000)
                for lose in (wire.lose_reply, wire.lose_request)
            ]
            load.goes_on(8, well=False)
            people_leave()
            wire.heal()
            assert all(rule.fired > 10 for rule in lost)
            site.is_whole(load)
        with phase("a node comes and goes", load, site) as people_leave:
            for _ in range(6):  # each instance takes it for dead at other moments
                wire.go_down()
                load.goes_on(3, well=False)
                wire.heal()
                load.goes_on(3, well=False)
            people_leave()
            site.is_whole(load)
        with phase(
            "a node is cut off, is listed no more, and then again, with what it had", load, site
        ) as people_leave:
            wire.go_down()
            site.tell(one.port, two.port)
            site.knows()
            people_leave()
            wire.heal()
            site.tell(one.port, two.port, wire.port)
            load.goes_on(8, well=False)
            site.knows()
        with phase("a node dies, and another takes its place", load, site) as people_leave:
            one.kill()
            three.start()
            load.goes_on(8, well=False)
            site.tell(two.port, three.port, wire.port)
            load.goes_on(8, well=False)
            people_leave()
            site.knows()


# The double fault


def is_back(manager: Manager, session_id: str) -> bool:
    return once_back(lambda: contents(manager, session_id)) is not None


@pytest.mark.parametrize("read_meanwhile", [False, True])
def test_the_only_tombstone_is_lost_while_the_other_copy_is_stale(nodes: Nodes, read_meanwhile: bool) -> None:
    """Two faults, and nobody in between who asks for the session: what two copies cannot outlive.

    The first node is cut off, the session ends on the second alone, the first comes back with the session still in it,
    and the second loses everything. One request with the old cookie in between, and the first learns of the end.
    """
    first, second, *_ = nodes.nodes
    with Proxy(first.port, dialect=MEMCACHED) as wire:
        url = MEMCACHED.url((wire.port, second.port)) + "?copies=2"
        with managers(url, url) as [manager, other]:
            ids = [stored_id(manager, mine=1) for _ in range(20)]
            assert {owners((wire.port, second.port), each)[0] for each in ids} == {wire.port, second.port}
            wire.go_down()
            for session_id in ids:
                assert once_back(partial(manager.end, session_id))
                assert manager.load(session_id) is None
            wire.heal()
            if read_meanwhile:
                for session_id in ids:
                    assert not is_back(other, session_id)
                assert other.counts["repaired"] == len(ids)
            second.kill()
            second.start()
            back = sum(is_back(other, session_id) for session_id in ids)
    print(f"{back} of {len(ids)} ended sessions were back after two faults, {read_meanwhile=}")
    assert back == (0 if read_meanwhile else len(ids))


def test_a_session_that_nobody_wrote_meanwhile_outlives_two_faults(nodes: Nodes) -> None:
    first, second, *_ = nodes.nodes
    with managers(MEMCACHED.url((first.port, second.port)) + "?copies=2") as [manager]:
        ids = [stored_id(manager, mine=1) for _ in range(20)]
        for node in (first, second):
            node.kill()
            node.start()
            for session_id in ids:
                assert once_back(lambda: contents(manager, session_id)) == {"mine": 1}
        assert manager.counts["repaired"] >= len(ids)


# A request that was under way all the time


@pytest.mark.parametrize("ended", [False, True], ids=["changed", "ended"])
def test_a_request_that_read_before_a_node_hung_and_writes_after_it_returned(
    nodes: Nodes, ended: bool
) -> None:
    """The node that was away takes its compare-and-set, as nothing has changed there. That alone is no write."""
    first, second, *_ = nodes.nodes
    url = MEMCACHED.url((first.port, second.port)) + "?copies=2"
    with managers(url, url, timeout=TIMEOUT) as [early, other]:
        ids = [stored_id(early, a=0, b=0) for _ in range(10)]
        assert {owners((first.port, second.port), each)[0] for each in ids} == {first.port, second.port}
        sessions = [early.load(each) for each in ids]
        first.pause()
        for session_id in ids:
            if ended:
                assert once_back(partial(other.end, session_id))
            else:
                found = once_back(partial(other.load, session_id))
                assert found is not None
                found.fields["a"] = 1
                once_back(partial(other.save, found))
        assert other.counts["alone"]
        first.resume()
        for session, session_id in zip(sessions, ids, strict=True):
            assert session is not None
            session.fields["b"] = 2
            if ended:
                with pytest.raises(SessionEnded):
                    once_back(partial(early.save, session))
            else:
                once_back(partial(early.save, session))
            now = None if ended else {"a": 1, "b": 2}
            assert once_back(partial(contents, early, session_id)) == now
            assert once_back(partial(contents, other, session_id)) == now


# What it costs


class Flights:
    """Counts how often nodes are asked, all in one flight: what comes to one waits until the other was asked, too."""

    def __init__(self, *proxies: Proxy) -> None:
        self.count = 0
        self.single: list[Command] = []
        self._both = threading.Barrier(2, self._one_more)
        for proxy in proxies:
            # Its own talk with the nodes of which there were before is in the background.
            proxy.on_request(self._arrived, when=lambda command: key_in(command) != b"sess:nodes", times=None)

    def _one_more(self) -> None:
        self.count += 1

    def _arrived(self, exchange: Exchange) -> None:
        try:
            self._both.wait(2)
        except BrokenBarrierError:
            self.single.append(exchange.command)
            self._both.reset()


@contextmanager
def flying(kind: str, nodes: Nodes, discovered: bool) -> Iterator[tuple[Manager, Callable[..., int]]]:
    """A manager that has its connections; and the flights that something costs, which makes no connection."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(port, dialect=MEMCACHED)) for port in nodes.ports[:3]]
        ports = [proxy.port for proxy in proxies]
        endpoint = stack.enter_context(DiscoveryEndpoint(*ports))
        fixed = MEMCACHED.url(tuple(ports)) + "?copies=2"
        url = endpoint.url_with(copies=2) if discovered else fixed
        manager = stack.enter_context(manager_of(kind, url, timeout=PATIENT))
        for _ in range(24):
            manager.end(manager_session(manager, warm="up"))
        flights = Flights(*proxies)

        def cost(act: Callable[[], object]) -> int:
            before = flights.count
            with ExitStack() as counted:
                counts = [counted.enter_context(proxy.counting()) for proxy in proxies]
                act()
            assert not flights.single, flights.single
            assert sum(count.connections for count in counts) == 0
            assert sum(len(count.commands) for count in counts) == 2 * (flights.count - before)
            return flights.count - before

        yield manager, cost


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("discovered", [False, True], ids=["fixed", "discovered"])
def test_the_second_copy_costs_no_round_trip_but_where_one_decides_first(
    nodes: Nodes, kind: str, discovered: bool
) -> None:
    with flying(kind, nodes, discovered) as (manager, cost):
        for _ in range(10):
            found: list[str] = []
            assert cost(lambda: found.append(stored_id(manager, count=0))) == 1
            (session_id,) = found
            assert cost(lambda: manager.load(session_id)) == 1

            def change() -> None:
                session = manager.load(session_id)
                assert session is not None
                session.fields["count"] = 1
                manager.save(session)

            assert cost(change) == 2

            def apply() -> None:
                session = manager.load(session_id)
                assert session is not None
                manager.apply(session, increment)

            assert cost(apply) == 3
            assert cost(lambda: manager.end(session_id)) == 2
            assert cost(lambda: manager.load(session_id)) == 1


def test_both_nodes_hold_the_same_after_each_write(nodes: Nodes) -> None:
    with managers(MEMCACHED.url(nodes.ports) + "?copies=2") as [manager]:
        for number in range(20):
            session_id = stored_id(manager, mine=number)
            session = manager.load(session_id)
            assert session is not None
            session.fields["mine"] = -number
            for act in (
                lambda: None,
                lambda: manager.save(session),
                lambda: manager.apply(session, lambda fields: fields.update(mine=1)),
                lambda: manager.end(session_id),
            ):
                act()
                key, ports = key_of(session_id), owners(nodes.ports, session_id, 4)
                held = [MEMCACHED.command(port, "get", key) for port in ports]
                values = [lines[1] if lines else None for lines in held if isinstance(lines, list)]
                assert values[0] == values[1] is not None
                assert values[2:] == [None, None]


# Over TLS


def test_two_copies_and_their_discovery_over_tls() -> None:
    secure = Access(tls=True)
    with ExitStack() as stack:
        nodes = [stack.enter_context(Server(servers.MEMCACHED, access=secure)) for _ in range(3)]
        endpoint = stack.enter_context(DiscoveryEndpoint(*[node.port for node in nodes], tls=True))
        (manager,) = stack.enter_context(managers(endpoint.url_with(copies=2, discovery_interval=0.2)))
        ids = [stored_id(manager, mine=1) for _ in range(10)]
        nodes[0].kill()
        for session_id in ids:
            assert once_back(lambda: contents(manager, session_id)) == {"mine": 1}
            assert once_back(partial(manager.end, session_id))
        endpoint.set_nodes(*[node.port for node in nodes[1:]])
        endpoint.is_asked(2)
        for session_id in ids:
            assert once_back(lambda: contents(manager, session_id)) is None
        assert manager.counts["alone"]


@pytest.mark.parametrize("what", ["lose_request", "lose_reply"])
def test_a_node_that_takes_connections_and_closes_each_is_known_to_be_down(what: str) -> None:
    with (
        topologies.nodes(2) as nodes,
        Proxy(nodes.ports[1], dialect=MEMCACHED) as wire,
        managers(MEMCACHED.url((nodes.port, wire.port)) + "?copies=2") as [manager],
    ):
        ids = [stored_id(manager, number=number) for number in range(5)]
        getattr(wire, what)(times=10**6)
        for number, session_id in enumerate(ids):
            assert contents(manager, session_id) == {"number": number}
        assert manager.counts["alone"] == 5
