"""Connections: made once for each process and event loop, shared by threads and tasks, closed at the end."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from elasticache_sessions import AsyncSessionManager, Session, SessionManager, Settings
from tests.support.demo import wait_until
from tests.support.load import PATIENT, at_once, contents, manager_session, managers
from tests.support.proxy import Proxy
from tests.support.scripts import run
from tests.support.servers import Server
from tests.support.stores import Store


def clients_of(store: Store) -> int:
    """How many clients its servers have, those that ask left out."""
    return sum(store.dialect.clients(port) for port in store.ports)


@contextmanager
def leaves_no_connection(store: Store) -> Iterator[None]:
    before = clients_of(store)
    yield
    wait_until(lambda: clients_of(store) <= before, 5, "the connections are closed")


# Closing


def test_a_closed_manager_has_no_connection_and_can_be_used_again(networked_store: Store) -> None:
    with leaves_no_connection(networked_store):
        manager = SessionManager.connect(
            Settings(url=networked_store.url, timeout=PATIENT, connect_timeout=PATIENT)
        )
        stored = manager_session(manager, user="Ada")
        assert clients_of(networked_store) >= 1
        manager.close()
    with leaves_no_connection(networked_store):
        assert contents(manager, stored.id) == {"user": "Ada"}
        manager.close()
    manager.close()


def test_a_manager_that_nobody_holds_any_more_closes_its_connections(networked_store: Store) -> None:
    with leaves_no_connection(networked_store):
        manager = SessionManager.connect(
            Settings(url=networked_store.url, timeout=PATIENT, connect_timeout=PATIENT)
        )
        manager_session(manager, user="Ada")
        del manager
        gc.collect()


def test_a_process_that_ends_says_goodbye(networked_store: Store) -> None:
    script = """
        import atexit, sys
        def at_the_end():
            wait_until(lambda: clients() <= before, 5, "closed")
            print("said goodbye")
        atexit.register(at_the_end)  # runs after what was registered later, while the process still lives
        from tests.support import dialects
        from tests.support.demo import wait_until
        dialect, ports = dialects.of(sys.argv[1]), [int(port) for port in sys.argv[2:]]
        clients = lambda: sum(dialect.clients(port) for port in ports)
        before = clients()
        from elasticache_sessions import *
        manager = SessionManager.connect(Settings(url=sys.argv[1], timeout=10))
        session = Session()
        session.fields["user"] = "Ada"
        manager.save(session)
        print("connected" if clients() > before else "?")
    """
    said = run(script, networked_store.url, *[str(port) for port in networked_store.ports])
    assert said.splitlines() == ["connected", "said goodbye"]


# Event loops


def test_each_event_loop_has_connections_of_its_own_that_end_with_it(networked_store: Store) -> None:
    manager = AsyncSessionManager.connect(
        Settings(url=networked_store.url, timeout=PATIENT, connect_timeout=PATIENT)
    )
    ids: list[str] = []

    async def main() -> None:
        stored = Session()
        stored.fields["number"] = len(ids)
        await manager.save(stored)
        ids.append(stored.id or "")
        for number, session_id in enumerate(ids):
            loaded = await manager.load(session_id)
            assert loaded is not None and loaded.fields == {"number": number}

    with leaves_no_connection(networked_store):
        for _ in range(20):
            asyncio.run(main())
            wait_until(lambda: clients_of(networked_store) <= 2 * len(networked_store.ports), 5, "closed")
    gc.collect()
    assert len(manager._clients) == 0, "it still holds loops that have ended"


def test_two_event_loops_at_once_share_one_manager(networked_store: Store) -> None:
    manager = AsyncSessionManager.connect(
        Settings(url=networked_store.url, timeout=PATIENT, connect_timeout=PATIENT)
    )

    async def main() -> None:
        stored = Session()
        stored.fields["count"] = 0
        await manager.save(stored)
        for _ in range(20):
            await manager.apply(stored, lambda fields: fields.update(count=fields["count"] + 1))
        loaded = await manager.load(stored.id)
        assert loaded is not None and loaded.fields == {"count": 20}

    with leaves_no_connection(networked_store):
        at_once(*[lambda: asyncio.run(main())] * 4)


def test_closing_on_a_loop_closes_that_loops_connections_alone(networked_store: Store) -> None:
    manager = AsyncSessionManager.connect(
        Settings(url=networked_store.url, timeout=PATIENT, connect_timeout=PATIENT)
    )

    async def main() -> None:
        stored = Session()
        stored.fields["user"] = "Ada"
        await manager.save(stored)
        await manager.aclose()
        assert await manager.load(stored.id) is not None
        await manager.aclose()

    with leaves_no_connection(networked_store):
        asyncio.run(main())


# Threads, tasks, greenlets


def test_threads_wait_for_a_free_connection(proxy: Proxy) -> None:
    with managers(proxy.url, max_connections=2) as (manager,):
        first = manager_session(manager, count=0)
        proxy.delay_replies(0.002)

        def work(thread: int) -> None:
            for number in range(10):
                stored = manager_session(manager, thread=thread, number=number)
                assert contents(manager, stored.id) == {"thread": thread, "number": number}
                assert contents(manager, first.id) == {"count": 0}

        at_once(*[lambda thread=thread: work(thread) for thread in range(8)])
        assert proxy.open_connections <= 2 * len(proxy.ports)
        assert proxy.total.connections <= 3 * len(proxy.ports)


def test_tasks_wait_for_a_free_connection(proxy: Proxy) -> None:
    manager = AsyncSessionManager.connect(
        Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT, max_connections=2)
    )
    proxy.delay_replies(0.002)

    async def work(task: int) -> None:
        for number in range(10):
            stored = Session()
            stored.fields.update(task=task, number=number)
            await manager.save(stored)
            loaded = await manager.load(stored.id)
            assert loaded is not None and loaded.fields == {"task": task, "number": number}

    async def main() -> None:
        await asyncio.gather(*[work(task) for task in range(8)])
        assert proxy.open_connections <= 3 * len(proxy.ports)

    asyncio.run(main())


def test_a_connection_that_the_server_closes_when_idle_is_made_again(own_server: Server) -> None:
    make: Callable[[], object] = lambda: manager_session(manager, count=0)  # noqa: E731
    with managers(own_server.url) as (manager,):
        make()
        for _ in range(5):
            own_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            make()


def test_tasks_that_are_cancelled_stop_and_leave_nothing_behind(proxy: Proxy) -> None:
    """Neither a reply for the next nor a connection that nobody gives back, wherever the cancellation meets them."""
    manager = AsyncSessionManager.connect(
        Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT, max_connections=2)
    )

    async def use(session_id: str, number: int) -> None:
        while True:
            loaded = await manager.load(session_id)
            assert loaded is not None and loaded.fields["number"] == number
            await manager.save(loaded)
            await manager.apply(loaded, lambda fields: fields.update(count=fields.get("count", 0) + 1))

    async def main() -> None:
        sessions = []
        for number in range(6):
            session = Session()
            session.fields["number"] = number
            await manager.save(session)
            sessions.append(session.id or "")
        proxy.delay_replies(0.001)
        for _ in range(40):
            tasks = [asyncio.create_task(use(each, number)) for number, each in enumerate(sessions)]
            await asyncio.sleep(random.uniform(0.001, 0.01))
            for task in tasks:
                task.cancel()
            _, going_on = await asyncio.wait(tasks, timeout=PATIENT)
            assert not going_on, "a task goes on although it was cancelled"
            assert all(task.cancelled() for task in tasks)

    asyncio.run(main())


# How many


@pytest.mark.parametrize("name", ["valkey-9.1", "memcached"])
def test_a_process_has_no_more_connections_than_it_may(give_store: Callable[[str], Store], name: str) -> None:
    """For its threads, and again for each event loop."""
    store = give_store(name)
    with Proxy(*store.ports, dialect=store.dialect) as proxy:
        settings = Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT, max_connections=3)
        for_threads, for_loops = SessionManager.connect(settings), AsyncSessionManager.connect(settings)
        proxy.delay_replies(0.01)

        def in_threads() -> None:
            at_once(*[lambda: for_threads.load("x" * 40)] * 12)

        async def in_tasks() -> None:
            await asyncio.gather(*[for_loops.load("x" * 40) for _ in range(12)])

        at_once(in_threads, lambda: asyncio.run(in_tasks()), lambda: asyncio.run(in_tasks()))
        for_threads.close()
        assert 3 <= proxy.total.connections <= 3 * 3
        assert len(proxy.total.commands) >= 3 * 12
