"""A node that does not answer is left alone for a while: nobody waits for it in vain, and one at a time sees whether it is
back.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from redis.crc import key_slot

from elasticache_sessions import AsyncSessionManager, Session, Settings, StoreUnavailable
from elasticache_sessions.clients import breaker
from elasticache_sessions.clients.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Breaker, Breakers
from elasticache_sessions.limit import TimeLimit, Timeouts
from elasticache_sessions.session import handle_of
from tests.support import memcached
from tests.support.load import PATIENT, Manager, at_once, contents, manager_of, manager_session, once_back
from tests.support.proxy import Proxy
from tests.support.scripts import run
from tests.support.servers import Server
from tests.support.stores import Store
from tests.support.topologies import SLOTS

LONGEST = 1.5

each_kind = pytest.mark.parametrize("kind", ["threads", "asyncio"])


class Node:
    """A breaker before a node that answers, or does not, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0
        self.breaker = Breaker("the node", LONGEST, lambda: self.now)

    def ask(self, error: BaseException | None = None) -> bool:
        """Whether it was asked."""
        before = self.asked
        with suppress(StoreUnavailable, ValueError, asyncio.CancelledError), self.breaker:
            self.asked += 1
            if error is not None:
                raise error
        return self.asked > before

    def hang(self, times: int = 1) -> list[bool]:
        return [self.ask(StoreUnavailable("did not answer", silent=True)) for _ in range(times)]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    return Node()


def test_after_a_few_failures_in_a_row_a_node_is_left_alone_then_asked_once(node: Node) -> None:
    assert node.hang(FAILURES + 3) == [True] * FAILURES + [False] * 3
    node.now += FIRST_PAUSE
    assert node.hang(3) == [True, False, False]
    node.now += FIRST_PAUSE
    assert node.hang(2) == [False, False], "the second pause is longer"
    node.now += FIRST_PAUSE
    assert node.ask() is True
    assert node.hang(FAILURES + 1) == [True] * FAILURES + [False], "it answered: all as in the beginning"


def test_pauses_grow_to_the_longest_and_a_day_later_one_question_is_enough(node: Node) -> None:
    node.hang(FAILURES)
    for pause in (FIRST_PAUSE, 1.0, LONGEST_PAUSE, LONGEST_PAUSE):
        node.now += pause - 0.01
        assert node.ask() is False
        node.now += 0.01
        assert node.hang(2) == [True, False]
    node.now += 86_400
    assert [node.ask() for _ in range(5)] == [True] * 5


def test_five_minutes_later_the_first_question_after_the_pause_works(node: Node) -> None:
    node.hang(FAILURES)
    end = node.now + 300
    tried = 0
    while node.now < end:
        tried += node.hang()[0]
        node.now += 0.1
    assert 100 < tried < 200
    node.now += LONGEST_PAUSE
    assert [node.ask() for _ in range(3)] == [True] * 3


def test_an_answer_in_between_begins_the_count_anew(node: Node) -> None:
    for _ in range(10):
        assert node.hang(FAILURES - 1) == [True] * (FAILURES - 1)
        assert node.ask() is True


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("the connection broke", retry=True, silent=None),
        asyncio.CancelledError(),
    ],
    ids=["a connection that broke", "somebody who gave up"],
)
def test_what_says_nothing_of_the_node_is_not_counted(node: Node, error: BaseException) -> None:
    assert [node.ask(error) for _ in range(2 * FAILURES)] == [True] * (2 * FAILURES)
    node.hang(FAILURES - 1)
    node.ask(error)
    assert node.hang(2) == [True, False]


@pytest.mark.parametrize("said", [ValueError("MOVED"), StoreUnavailable("READONLY", retry=True, sent=False)])
def test_an_error_that_the_node_says_is_an_answer(node: Node, said: Exception) -> None:
    node.hang(FAILURES - 1)
    node.ask(said)
    assert node.hang(FAILURES + 1) == [True] * FAILURES + [False]
    node.now += FIRST_PAUSE
    assert [node.ask(said), node.ask(said)] == [True, True]


def test_who_tries_and_learns_nothing_leaves_it_to_the_next(node: Node) -> None:
    node.hang(FAILURES)
    node.now += FIRST_PAUSE
    assert node.ask(StoreUnavailable("the connection broke", retry=True, silent=None))
    assert node.hang(2) == [True, False]


def test_one_asks_at_a_time_and_another_if_that_one_never_comes_back(node: Node) -> None:
    node.hang(FAILURES)
    node.now += FIRST_PAUSE
    node.breaker.__enter__()  # and is never heard of again
    assert node.ask() is False
    node.now += LONGEST
    assert node.ask() is True


def test_of_many_threads_one_asks() -> None:
    node = Node()
    node.hang(FAILURES)
    node.now += 10
    let_go, asked = threading.Event(), []

    def ask() -> None:
        with suppress(StoreUnavailable), node.breaker:
            asked.append(1)
            let_go.wait(PATIENT)
            raise StoreUnavailable("did not answer", silent=True)
        if len(asked) == 1:
            let_go.set()

    at_once(*[ask] * 8)
    assert len(asked) == 1


def test_fleets_do_not_come_back_all_at_once() -> None:
    pauses = set()
    for _ in range(50):
        node = Node()
        node.hang(FAILURES)
        while node.ask() is False:
            node.now += 0.01
        pauses.add(round(node.now - 100, 2))
    assert len(pauses) > 5
    assert min(pauses) > 0.7 * FIRST_PAUSE and max(pauses) < 1.3 * FIRST_PAUSE


def test_the_error_says_when_to_come_back(node: Node) -> None:
    node.hang(FAILURES)
    with (
        pytest.raises(StoreUnavailable, match="the node did not answer 5 times in a row") as caught,
        node.breaker,
    ):
        pass
    assert (caught.value.retry_after, caught.value.retry, caught.value.sent) == (1, False, False)


def test_each_node_has_its_own_and_a_child_begins_anew() -> None:
    breakers = Breakers(Timeouts(0.5, 1.0))
    assert breakers.of("a") is breakers.of("a") is not breakers.of("b")
    breakers._pid = 0  # as it is in a child
    one = breakers.of("a")
    assert one is breakers.of("a")
    assert run("""
        import os
        from elasticache_sessions import StoreUnavailable
        from elasticache_sessions.clients.breaker import Breakers
        from elasticache_sessions.limit import Timeouts
        breakers = Breakers(Timeouts(0.5, 1))
        for _ in range(5):
            try:
                with breakers.of("a"):
                    raise StoreUnavailable("no", silent=True)
            except StoreUnavailable:
                pass
        breakers.of("a")._lock.acquire()  # as another thread may hold it at that moment
        if os.fork() == 0:
            with breakers.of("a"):
                print("asked", flush=True)
            os._exit(0)
        os.wait()
    """).split() == ["asked"]


# Before real servers


@each_kind
def test_a_hung_store_is_asked_a_few_times_and_not_by_every_request(proxy: Proxy, kind: str) -> None:
    with manager_of(kind, proxy.url, timeout=0.2, connect_timeout=0.2) as manager:
        stored = once_back(lambda: manager_session(manager, user="Ada"))
        proxy.hold_replies()
        errors: list[StoreUnavailable] = []
        with proxy.counting() as count:
            for _ in range(FAILURES):
                with suppress(StoreUnavailable):
                    manager.load(stored.id)
            while len(errors) < 1_000:
                with pytest.raises(StoreUnavailable) as caught:
                    manager.load(stored.id)
                errors.append(caught.value)
        alone = [error for error in errors if "is left alone" in str(error)]
        assert len(alone) > 900
        assert len(count.commands) + count.connections < 60
        proxy.heal()
        assert once_back(lambda: contents(manager, stored.id)) == {"user": "Ada"}


@each_kind
def test_a_dead_node_costs_the_sessions_of_the_others_nothing(
    give_store: Callable[[str], Store], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cluster", "memcached-3"):
        store = give_store(name)
        with Proxy(*store.ports, dialect=store.dialect) as proxy:
            _one_node_hangs(store, proxy, kind)
    assert sum("does not answer" in record.getMessage() for record in caplog.records) >= 2
    assert all(record.name.startswith("elasticache_sessions") for record in caplog.records)


def _one_node_hangs(store: Store, proxy: Proxy, kind: str) -> None:
    with manager_of(kind, proxy.url, timeout=0.3, connect_timeout=0.3) as manager:
        sessions = [once_back(lambda: manager_session(manager, number=number)) for number in range(40)]
        for session in sessions:
            once_back(lambda: manager.load(session.id))
        dead = proxy.doors[0].upstream
        for link in list(proxy.links):
            if dead in link._servers:
                link.shut()
        proxy.doors[0].close()
        lost = [session for session in sessions if _is_of_the_first(proxy, session)]
        assert 0 < len(lost) < len(sessions)
        for _ in range(3):
            assert {_outcome(manager, session) for session in lost} == {"unavailable"}
            for session in sessions:
                if session not in lost:
                    assert once_back(lambda: contents(manager, session.id)) == dict(session.fields)
        proxy.accept()
        for session in sessions:
            assert once_back(lambda: contents(manager, session.id)) == dict(session.fields)


def _is_of_the_first(proxy: Proxy, session: Session) -> bool:
    """Whether a session belongs to the node behind the first door."""
    assert session.id is not None
    key = f"sess:{handle_of(session.id)}".encode()
    if proxy.dialect.routed:
        return memcached.owner(proxy.ports, key) == proxy.port
    return key_slot(key) < SLOTS // len(proxy.doors)


def _outcome(manager: object, session: Session) -> str:
    try:
        assert manager.load(session.id) is not None  # type: ignore[attr-defined]
    except StoreUnavailable:
        return "unavailable"
    return "found"


def test_a_store_that_closes_every_connection_at_once_is_not_left_alone(networked_store: Store) -> None:
    """As ElastiCache does after 12 hours: each of many threads meets a connection that has gone."""
    with (
        Proxy(*networked_store.ports, dialect=networked_store.dialect) as proxy,
        manager_of("threads", proxy.url, timeout=PATIENT, connect_timeout=PATIENT) as manager,
    ):
        stored = manager_session(manager, user="Ada")

        def work() -> None:
            for _ in range(20):
                assert contents(manager, stored.id) == {"user": "Ada"}

        for _ in range(5):
            at_once(work, work, work, work, work, work, work, work, proxy.close_connections)


def _said(manager: Manager) -> str:
    """What it says where it fails: a busy machine may be too slow."""
    try:
        manager.load("x" * 40)
    except StoreUnavailable as error:
        return "is left alone" if "is left alone" in str(error) else "too slow"
    return ""


def test_waiting_for_a_free_connection_is_not_the_nodes_fault(single_store: Store) -> None:
    with manager_of(
        "threads", single_store.url, timeout=0.1, connect_timeout=PATIENT, max_connections=1
    ) as manager:
        pool = getattr(manager, "_client")._pool  # noqa: B009 - which SessionManager has
        with ExitStack() as held:
            with TimeLimit(PATIENT, PATIENT):
                held.enter_context(pool.connection())
            for _ in range(FAILURES + 1):
                with pytest.raises(StoreUnavailable, match="is busy"):
                    manager.load("x" * 40)
        assert _said(manager) != "is left alone"


@each_kind
def test_once_one_question_is_answered_all_are(own_server: Server, kind: str) -> None:
    """A store that was away for a while: the first request that is let through ends the outage for everybody."""
    with manager_of(kind, own_server.url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
        once_back(lambda: manager_session(manager, user="Ada"))
        own_server.kill()
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                manager.load("x" * 40)
        own_server.start()
        assert once_back(lambda: manager.load("x" * 40)) is None
        for _ in range(100):
            stored = manager_session(manager, user="Ada")
            assert contents(manager, stored.id) == {"user": "Ada"}


def test_managers_for_event_loops_share_what_they_know_of_a_node(
    single_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 60.0)
    manager = AsyncSessionManager.connect(Settings(url=single_proxy.url, timeout=0.2, connect_timeout=0.2))
    single_proxy.hold_replies()

    async def ask(times: int) -> list[str]:
        said = []
        for _ in range(times):
            try:
                await manager.load("x" * 40)
            except StoreUnavailable as error:
                said.append(str(error))
        return said

    asyncio.run(ask(FAILURES))
    assert "is left alone" in asyncio.run(ask(1))[0]
