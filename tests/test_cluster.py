"""Cluster mode under a hung node, moved slots and slots on their way: nobody waits in a queue, nothing fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from elasticache_sessions import AsyncSessionManager, Session, SessionManager, Settings, StoreUnavailable
from tests.support import resp, topologies
from tests.support.load import PATIENT, contents, manager_session
from tests.support.proxy import Proxy
from tests.support.resharding import move
from tests.support.servers import Server
from tests.support.stores import Store
from tests.support.topologies import Cluster

TIMEOUT = 2.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with topologies.cluster() as cluster:
        yield cluster


@pytest.fixture
def manager(cluster: Cluster) -> Iterator[SessionManager]:
    manager = SessionManager.connect(Settings(url=cluster.url, timeout=TIMEOUT))
    yield manager
    manager.close()


def stored(manager: SessionManager, count: int = 12) -> list[Session]:
    sessions = [Session() for _ in range(count)]
    for session in sessions:
        session.fields["n"] = 0
        manager.save(session)
    return sessions


def slot_of(cluster: Cluster, manager: SessionManager, session: Session) -> int:
    assert session.id is not None
    slot = cluster.nodes[0].command("CLUSTER", "KEYSLOT", manager.rules.key(session.id))
    assert isinstance(slot, int)
    return slot


def node_of(cluster: Cluster, manager: SessionManager, session: Session) -> Server:
    for node in cluster.nodes:
        try:
            assert session.id is not None
            node.command("GET", manager.rules.key(session.id))
            return node
        except resp.ReplyError:
            continue
    raise AssertionError("no node has it")


def timed(manager: SessionManager, session: Session) -> tuple[bool, float]:
    started = time.monotonic()
    try:
        return manager.load(session.id) is not None, time.monotonic() - started
    except StoreUnavailable:
        return False, time.monotonic() - started


def test_a_hung_node_makes_nobody_queue_and_leaves_the_others_alone(
    cluster: Cluster, manager: SessionManager
) -> None:
    sessions = stored(manager, 30)
    hung = cluster.nodes[0]
    theirs = [session for session in sessions if node_of(cluster, manager, session) is hung]
    others = [session for session in sessions if session not in theirs]
    assert theirs and others
    hung.pause()
    try:
        with ThreadPoolExecutor(32) as pool:
            failing = [pool.submit(timed, manager, theirs[number % len(theirs)]) for number in range(24)]
            serving = [pool.submit(timed, manager, others[number % len(others)]) for number in range(8)]
            assert all(found for found, _ in (job.result() for job in serving))
            results = [job.result() for job in failing]
    finally:
        hung.resume()
    assert not any(found for found, _ in results)
    assert max(took for _, took in results) < 3 * TIMEOUT, "24 that wait at once take as long as one"


def test_hung_nodes_make_no_task_queue(cluster: Cluster) -> None:
    manager = AsyncSessionManager.connect(Settings(url=cluster.url, timeout=TIMEOUT))

    async def load(session: Session) -> tuple[bool, float]:
        started = time.monotonic()
        try:
            return await manager.load(session.id) is not None, time.monotonic() - started
        except StoreUnavailable:
            return False, time.monotonic() - started

    async def run() -> list[tuple[bool, float]]:
        session = Session()
        session.fields["n"] = 0
        await manager.save(session)
        for node in cluster.nodes:
            node.pause()
        try:
            return await asyncio.gather(*(load(session) for _ in range(40)))
        finally:
            for node in cluster.nodes:
                node.resume()

    results = asyncio.run(run())
    assert not any(found for found, _ in results)
    assert max(took for _, took in results) < 3 * TIMEOUT


def test_tasks_that_come_first_wait_for_one_map_of_slots_and_fail_together(own_server: Server) -> None:
    own_server.pause()
    url = f"redis://127.0.0.1:{own_server.port}?cluster=true"
    manager = AsyncSessionManager.connect(Settings(url=url, timeout=TIMEOUT))

    async def run() -> list[object]:
        return await asyncio.gather(*(manager.load("x" * 40) for _ in range(20)), return_exceptions=True)

    started = time.monotonic()
    assert all(isinstance(result, StoreUnavailable) for result in asyncio.run(run()))
    assert time.monotonic() - started < 3 * (TIMEOUT + 1)


def increment_all(manager: SessionManager, sessions: list[Session]) -> None:
    for session in sessions:
        loaded = manager.load(session.id)
        assert loaded is not None
        loaded.fields["n"] += 1
        manager.save(loaded)


def test_a_slot_that_moves_costs_no_error(cluster: Cluster, manager: SessionManager) -> None:
    sessions = stored(manager, 6)
    moved = sessions[0]
    source = node_of(cluster, manager, moved)
    target = next(node for node in cluster.nodes if node is not source)
    steps = 0
    for _ in move(slot_of(cluster, manager, moved), source, target, cluster.nodes):
        increment_all(manager, sessions)
        steps += 1
    assert steps == 3
    assert node_of(cluster, manager, moved) is target
    assert [session.fields["n"] for found in sessions if (session := manager.load(found.id))] == [3] * 6


def test_a_slot_that_moves_costs_a_task_no_error(cluster: Cluster, manager: SessionManager) -> None:
    tasks = AsyncSessionManager.connect(Settings(url=cluster.url, timeout=TIMEOUT))
    [moved] = stored(manager, 1)
    source = node_of(cluster, manager, moved)
    target = next(node for node in cluster.nodes if node is not source)

    async def run() -> None:
        for _ in move(slot_of(cluster, manager, moved), source, target, cluster.nodes):
            loaded = await tasks.load(moved.id)
            assert loaded is not None
            loaded.fields["n"] += 1
            await tasks.save(loaded)

    asyncio.run(run())
    found = manager.load(moved.id)
    assert found is not None
    assert found.fields["n"] == 3


def test_a_cluster_taken_for_one_endpoint_says_what_to_write(cluster: Cluster) -> None:
    manager = SessionManager.connect(Settings(url=cluster.url.partition("?")[0]))
    tasks = AsyncSessionManager.connect(Settings(url=cluster.url.partition("?")[0]))
    with pytest.raises(StoreUnavailable, match="cluster=true"):
        stored(manager, 12)

    async def run() -> None:
        for _ in range(12):
            session = Session()
            session.fields["n"] = 0
            await tasks.save(session)

    with pytest.raises(StoreUnavailable, match="cluster=true"):
        asyncio.run(run())
    manager.close()


def test_a_reply_that_nobody_asked_for_closes_its_connection_on_event_loops(
    give_store: Callable[[str], Store],
) -> None:
    store = give_store("cluster")
    with Proxy(*store.ports) as proxy:
        manager = AsyncSessionManager.connect(
            Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT)
        )

        async def main() -> None:
            sessions = [Session() for _ in range(6)]
            for number, session in enumerate(sessions):
                session.fields["number"] = number
                await manager.save(session)
            for number, session in enumerate(sessions):
                proxy.push(b"*2\r\n$3\r\nold\r\n:5\r\n")
                await asyncio.sleep(0.05)
                found = await manager.load(session.id)
                assert found is not None and found.fields == {"number": number}

        asyncio.run(main())


def test_a_child_that_was_forked_during_a_renewal_renews_by_itself(
    give_store: Callable[[str], Store],
) -> None:
    manager = SessionManager.connect(
        Settings(url=give_store("cluster").url, timeout=PATIENT, connect_timeout=PATIENT)
    )
    stored = manager_session(manager, user="Ada")
    client: Any = manager._client
    client._renewing.acquire()  # the thread that holds it stays with the parent
    client._pid = 0
    assert contents(manager, stored.id) == {"user": "Ada"}
    assert not client._renewing.locked()
    manager.close()
