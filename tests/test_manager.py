"""The managers over every store: the verbs on ids, for threads and for event loops, with the time limit kept."""

from __future__ import annotations

import asyncio
import logging

import pytest

from elasticache_sessions import (
    AsyncSessionManager,
    ConfigurationError,
    Session,
    SessionEnded,
    SessionManager,
    Settings,
    StoreUnavailable,
)
from elasticache_sessions.clients.base import ABSENT, Command, Conflict, Glance, Look, Reply, Write
from elasticache_sessions.clients.memory import MemoryClient
from elasticache_sessions.limit import Timeouts
from elasticache_sessions.record import Header, Kind, Record, pack
from elasticache_sessions.session import Rules, handle_of
from elasticache_sessions.settle import Flow
from tests.support.load import PATIENT, manager_of, manager_session
from tests.support.stores import Store


def test_the_verbs_for_threads(store: Store) -> None:
    manager = SessionManager.connect(Settings(url=store.url))
    session = Session()
    session.fields["cart"] = ["tea"]
    manager.save(session)
    first = session.id
    other = manager.load(first)
    assert other is not None
    other.fields["cart"].append("milk")
    manager.save(other)
    manager.cycle(other, "alice")
    assert manager.load(first) is None
    assert manager.apply(other, lambda fields: fields["cart"].count("milk")) == 1
    session.fields["late"] = True
    with pytest.raises(SessionEnded):
        manager.save(session)
    assert other.id is not None
    assert manager.end(other.id) is True
    assert manager.end(other.id) is False
    assert manager.load(other.id) is None
    assert manager.end(other) is False
    manager.close()


def test_the_verbs_for_event_loops(store: Store) -> None:
    manager = AsyncSessionManager.connect(Settings(url=store.url))

    async def use() -> None:
        session = Session()
        session.fields["cart"] = ["tea"]
        await manager.save(session)
        first = session.id
        other = await manager.load(first)
        assert other is not None
        other.fields["cart"].append("milk")
        await manager.save(other)
        await manager.cycle(other, "alice")
        assert await manager.load(first) is None
        assert await manager.apply(other, lambda fields: fields["cart"].count("milk")) == 1
        session.fields["late"] = True
        with pytest.raises(SessionEnded):
            await manager.save(session)
        assert other.id is not None
        assert await manager.end(other.id) is True
        assert await manager.end(other.id) is False
        assert await manager.end(other) is False
        await manager.aclose()
        await manager.aclose()

    # Each loop gets connections of its own, and leaves none.
    asyncio.run(use())
    asyncio.run(use())


def test_threads_and_event_loops_share_one_store(store: Store) -> None:
    settings = Settings(url=store.url)
    manager, amanager = SessionManager.connect(settings), AsyncSessionManager.connect(settings)
    session = Session()
    session.fields["n"] = 1
    manager.save(session)
    found = asyncio.run(amanager.load(session.id))
    assert found is not None
    assert found.fields == {"n": 1}
    manager.close()


class Failing:
    """A client that fails so often, and counts."""

    blind_touch = False

    def __init__(self, *failures: StoreUnavailable) -> None:
        self.failures = list(failures)
        self.client = MemoryClient()
        self.asked = 0

    def perform(self, command: Command) -> Reply:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.client.perform(command)

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        return self.client.look(question)

    def close(self) -> None: ...


class AsyncFailing(Failing):
    async def perform(self, command: Command) -> Reply:  # type: ignore[override]  # the same, awaited
        return super().perform(command)

    async def look(self, question: Look) -> tuple[Glance | None, ...]:  # type: ignore[override]
        return super().look(question)

    async def aclose(self) -> None: ...


def saved_through(client: Failing) -> Session:
    session = Session()
    session.fields["a"] = 1
    rules = Rules("s:", 60)
    if isinstance(client, AsyncFailing):
        asyncio.run(AsyncSessionManager(lambda: client, rules, Timeouts(5, 5)).save(session))
    else:
        SessionManager(client, rules, Timeouts(5, 5)).save(session)
    return session


@pytest.mark.parametrize("kind", [Failing, AsyncFailing])
def test_a_command_that_failed_at_once_is_sent_again(kind: type[Failing]) -> None:
    client = kind(StoreUnavailable("reset", retry=True), StoreUnavailable("refused", retry=True))
    assert saved_through(client).id is not None
    assert client.asked == 3


@pytest.mark.parametrize("kind", [Failing, AsyncFailing])
def test_a_command_is_not_sent_for_ever(kind: type[Failing]) -> None:
    client = kind(*[StoreUnavailable("refused", retry=True) for _ in range(99)])
    with pytest.raises(StoreUnavailable):
        saved_through(client)
    assert 2 <= client.asked <= 5


@pytest.mark.parametrize("kind", [Failing, AsyncFailing])
def test_what_repeating_cannot_mend_is_tried_once(kind: type[Failing]) -> None:
    client = kind(StoreUnavailable("wrong password"))
    with pytest.raises(StoreUnavailable, match="wrong password"):
        saved_through(client)
    assert client.asked == 1


@pytest.mark.parametrize("sent", [True, False])
def test_a_conflict_says_whether_its_command_had_been_sent_before(sent: bool) -> None:
    client = Failing(StoreUnavailable("reset", retry=True, sent=sent))
    value = pack(Record(Header(Kind.LIVE, 1, (b"first!",), 1)))
    client.client.put(b"key", value, 60)
    manager = SessionManager(client, Rules("s:", 60), Timeouts(5, 5))
    replies: list[Reply] = []

    def flow() -> Flow[None]:
        replies.append((yield Write(b"key", value, 60, ABSENT)))
        replies.append((yield Write(b"key", value, 60, ABSENT)))

    manager.run(flow())
    assert [reply.resent for reply in replies if isinstance(reply, Conflict)] == [sent, False]


def test_an_unreadable_record_is_one_log_line_with_its_handle(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    manager = SessionManager.connect(Settings(url=store.url))
    session = Session()
    session.fields["a"] = 1
    manager.save(session)
    assert session.id is not None
    key = manager.rules.key(session.id)
    store.set(key, b"garbage")
    with caplog.at_level(logging.INFO):
        assert manager.load(session.id) is None
    assert len(caplog.records) == 1
    assert session.handle is not None
    assert session.handle in caplog.text
    assert session.id not in caplog.text
    assert store.get(key) == b"garbage"
    manager.close()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_what_happens_is_counted_for_each_manager(store: Store, kind: str) -> None:
    with (
        manager_of(kind, store.url, timeout=PATIENT, connect_timeout=PATIENT) as manager,
        manager_of(kind, store.url) as other,
    ):
        stored = manager_session(manager, a=1)
        mine, theirs = manager.load(stored.id), other.load(stored.id)
        assert mine is not None and theirs is not None
        theirs.fields["b"] = 2
        other.save(theirs)
        mine.fields["c"] = 3
        manager.save(mine)
        manager.cycle(mine)
        assert manager.load(stored.id) is None  # its tombstone is there
        manager.end(mine.id or "")
        assert manager.load("x" * 40) is None
        store.set(b"sess:" + handle_of("y" * 40).encode(), b"garbage", 60)
        assert manager.load("y" * 40) is None
        expected = {"created": 1, "conflict": 1, "cycled": 1, "ended": 1, "missing": 1, "unreadable": 1}
        assert (manager.counts, other.counts) == (expected, {})


def test_without_a_url_connecting_says_what_to_set() -> None:
    for connect in (SessionManager.connect, AsyncSessionManager.connect):
        with pytest.raises(ConfigurationError, match="ELASTICACHE_SESSIONS_URL is not set"):
            connect(Settings())
