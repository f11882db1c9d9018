"""A cluster in use that loses a primary, moves slots, grows and shrinks: what users notice of it, and what is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from redis.crc import key_slot

from elasticache_sessions.clients.breaker import FAILURES, LONGEST_PAUSE
from elasticache_sessions.session import handle_of
from tests.support import topologies
from tests.support.demo import wait_until
from tests.support.dialects import OPEN, Access
from tests.support.failover import KINDS, PROMISED, THREADS, TIMEOUT, Load, Pages, core, under_load
from tests.support.instances import FRAMEWORKS, instances
from tests.support.load import PATIENT
from tests.support.resharding import is_dead, join, leave, migrate, move, served_by
from tests.support.servers import REDIS_7_0, VALKEY_9_1, Server
from tests.support.topologies import CLUSTER_RIGHTS, SLOTS, Cluster

pytestmark = pytest.mark.slow

NODE_TIMEOUT = 2


SECURE = Access(tls=True, user="sessions", rights=CLUSTER_RIGHTS)


@pytest.fixture
def access() -> Access:
    """How the nodes of `cluster` let anybody in."""
    return OPEN


@pytest.fixture
def cluster(access: Access) -> Iterator[Cluster]:
    """Three primaries, three replicas."""
    flavour = REDIS_7_0 if access.tls else VALKEY_9_1
    with topologies.cluster(
        replicas=True, flavour=flavour, access=access, node_timeout=NODE_TIMEOUT
    ) as cluster:
        yield cluster


def fail_over(cluster: Cluster, load: Load) -> float:
    """Kill a primary. Seconds until a node that is left says that the replica serves in its place."""
    primary = cluster.primaries[0]
    replica = cluster.replica_of(primary)
    left = [node for node in cluster.nodes if node is not primary]
    load.fault()
    primary.kill()
    return wait_until(
        lambda: any(served_by(node, 0) == replica.port for node in left), PATIENT, "the replica serves"
    )


@pytest.mark.parametrize(
    ("kind", "access"),
    [*((kind, OPEN) for kind in KINDS), ("threads", SECURE)],
    ids=[*KINDS, "threads-tls"],
)
def test_a_primary_that_is_killed_costs_no_session(cluster: Cluster, kind: str, access: Access) -> None:
    scenario = f"kill -9, {kind}{', TLS' * access.tls}"
    with core(kind, cluster.url, timeout=TIMEOUT) as site, under_load(scenario, site) as load:
        took_over = fail_over(cluster, load)
    print(f"the cluster failed over after {took_over:.2f} s")
    assert load.failures
    assert load.last_failure < took_over + PROMISED


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_primary_that_is_killed_signs_no_visitor_out(cluster: Cluster, framework: str) -> None:
    with instances(framework, *[cluster.url] * 2, timeout=TIMEOUT) as shops:
        site = Pages(shops)
        with under_load(f"kill -9, {framework}", site) as load:
            took_over = fail_over(cluster, load)
    print(f"the cluster failed over after {took_over:.2f} s; responses: {dict(site.codes)}")
    assert site.codes.keys() == {200, 503}
    assert load.last_failure < took_over + PROMISED


# What a cluster does in its normal life: nobody notices.


@contextmanager
def undisturbed(name: str, kind: str, url: str, timeout: float = PATIENT) -> Iterator[Load]:
    """A load during which nobody is told of any failure, and everything is stored exactly once."""
    with core(kind, url, timeout=timeout) as site, under_load(f"{name}, {kind}", site) as load:
        yield load
    assert not load.failures, load.reasons


@pytest.mark.parametrize("kind", KINDS)
def test_slots_that_move_cost_nothing(kind: str) -> None:
    """As every Valkey and Redis moves them: key by key, with ASK and MOVED meanwhile."""
    with topologies.cluster() as cluster, undisturbed("slots move", kind, cluster.url) as load:
        source, target, _ = cluster.nodes
        slots = sorted({slot for session in load.kept if (slot := slot_of(session.id)) < SLOTS // 3})
        assert len(slots) >= 64
        del slots[64:]
        for slots_at_once in batched(slots, 16):
            # Each step of them all at once, so that the load meets with each.
            for _ in zip(*(move(slot, source, target, cluster.nodes) for slot in slots_at_once), strict=True):
                load.goes_on(30)
        assert times_asked(target, "asking") > 10
        assert all(served_by(source, slot) == target.port for slot in slots)


def batched(slots: list[int], size: int) -> list[list[int]]:
    return [slots[first : first + size] for first in range(0, len(slots), size)]


def slot_of(session_id: str) -> int:
    return key_slot(f"sess:{handle_of(session_id)}".encode())


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_that_come_and_go_cost_nothing(kind: str) -> None:
    """All that Valkey 9 moves at once; the cluster grows by a node, and that which the URL names leaves."""
    with ExitStack() as stack:
        cluster = stack.enter_context(topologies.cluster())
        new = stack.enter_context(Server(VALKEY_9_1, cluster_node=True))
        with undisturbed("nodes come and go", kind, cluster.url) as load:
            join(cluster.nodes, new)
            load.goes_on(10)
            old = cluster.nodes[0]
            assert old.port == cluster.port
            last = SLOTS // 3 - 1
            migrate(0, last // 2, old, new)
            load.goes_on(10)
            migrate(last // 2 + 1, last, old, cluster.nodes[1])
            wait_until(lambda: not asked_meanwhile(old, load), PATIENT, "nobody asks the old node any more")
            leave((*cluster.nodes, new), old)
            load.goes_on()
            assert new.command("DBSIZE")


def asked_meanwhile(node: Server, load: Load) -> int:
    """How many scripts the node is sent while the load goes on for a while."""
    before = times_asked(node, "evalsha")
    load.goes_on(30)
    return times_asked(node, "evalsha") - before


def times_asked(node: Server, command: str) -> int:
    stats = node.command("INFO", "commandstats")
    assert isinstance(stats, bytes)
    _, _, found = stats.decode().partition(f"cmdstat_{command}:calls=")
    return int(found.partition(",")[0] or 0)


@pytest.mark.parametrize(("how", "kind"), [("dead", "threads"), ("hung", "threads"), ("hung", "asyncio")])
def test_a_shard_that_fails_leaves_the_sessions_of_the_others_alone(how: str, kind: str) -> None:
    options = ("--cluster-require-full-coverage", "no")  # as ElastiCache has it
    with topologies.cluster(*options, node_timeout=NODE_TIMEOUT) as cluster:
        failing, other, _ = cluster.nodes
        # Who asks a node that hangs waits for as long as TIMEOUT; a few do, and the others no more.
        timeout = TIMEOUT if how == "hung" else PATIENT
        with undisturbed(f"a {how} shard", kind, cluster.url, timeout) as load:
            before = load.pace(100)
            load.is_given_up = lambda session_id: session_id is None or slot_of(session_id) < SLOTS // 3
            began = time.monotonic()
            if how == "hung":
                failing.pause()
            else:
                failing.kill()
            wait_until(lambda: is_dead(failing, other), PATIENT, "the cluster knows")
            # Two of three shards are left, and they are as fast as ever, more or less.
            assert load.pace(100) > before * 2 / 3 / 3
            slow = sum(seconds > timeout / 2 for seconds in load.given_up)
            assert slow <= FAILURES + THREADS + (time.monotonic() - began) / LONGEST_PAUSE
            if how == "hung":
                failing.resume()
                wait_until(lambda: nobody_fails(load), PATIENT, "the node serves again")
                load.is_given_up = lambda session_id: False
    assert load.given_up


def nobody_fails(load: Load) -> bool:
    """Whether all is well for a while, with those as well of whom it is not expected."""
    before = len(load.given_up)
    load.goes_on(30)
    return len(load.given_up) == before
