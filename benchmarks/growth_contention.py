"""Many requests at once on one session, each changing another key: what that costs each of them, and the last of them.

The requests are threads, or tasks of an event loop, in several processes, as a site's workers are. All begin at the same
moment: they read the session, change a key of their own, and save. A store that is farther away is one that answers that much
later: each command waits on its way there and on its way back, as a proxy would take the processors that are measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from elasticache_sessions import AsyncSessionManager, Session, SessionManager, Settings
from elasticache_sessions.clients.base import Command, Conflict, Reply

CROWDS: Final = (1, 2, 4, 8, 16, 32, 64)
PROCESSES: Final = 4
KINDS: Final = ("threads", "asyncio")
_HEAD_START: Final = 0.03
"""Seconds for all to hear when to begin."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one request took."""

    trips: int
    conflicts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do."""

    session_id: str
    first: int
    count: int
    begin: float
    """By the clock that all processes share (`time.monotonic`)."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many requests at once, over all rounds."""

    store: str
    kind: str
    distance_ms: float
    requests: int
    trips: float
    """Round trips a request, the mean."""
    most_trips: int
    conflicts: float
    """A request, the mean."""
    middle_ms: float
    """What half the requests took at most."""
    worst_ms: float
    """The slowest request of a round; of all rounds, the median."""
    worst_of_all_ms: float


class Counted:
    """A client for threads that counts what each of them waits for."""

    def __init__(self, client: Any, distance: float) -> None:
        self.blind_touch = client.blind_touch
        self._client, self._half = client, distance / 2
        self.seen = threading.local()

    def perform(self, command: Command) -> Reply:
        if self._half:
            time.sleep(self._half)
        reply: Reply = self._client.perform(command)
        if self._half:
            time.sleep(self._half)
        _count(self.seen.__dict__, self.blind_touch, reply)
        return reply


class AsyncCounted:
    """The same for tasks."""

    def __init__(self, client: Any, distance: float, seen: dict[Any, dict[str, int]]) -> None:
        self.blind_touch = client.blind_touch
        self._client, self._half, self._seen = client, distance / 2, seen

    async def perform(self, command: Command) -> Reply:
        if self._half:
            await asyncio.sleep(self._half)
        reply: Reply = await self._client.perform(command)
        if self._half:
            await asyncio.sleep(self._half)
        _count(self._seen.setdefault(asyncio.current_task(), {}), self.blind_touch, reply)
        return reply

    async def aclose(self) -> None:
        await self._client.aclose()


def _count(seen: dict[str, int], blind: bool, reply: Reply) -> None:
    conflict = isinstance(reply, Conflict)
    # Memcached does not say what a write met with, so that takes another trip.
    seen["trips"] = seen.get("trips", 0) + 1 + (blind and conflict)
    seen["conflicts"] = seen.get("conflicts", 0) + conflict


def _with_threads(url: str, distance: float, orders: Iterator[Order], answer: Callable[[Any], None]) -> None:
    manager = SessionManager.connect(Settings(url=url, max_connections=100, timeout=5))
    client = manager._client = Counted(manager._client, distance)  # type: ignore[assignment]

    def request(order: Order, number: int, done: list[Request]) -> None:
        client.seen.__dict__.clear()
        time.sleep(max(0.0, order.begin - time.monotonic()))
        begun = time.monotonic()
        session = manager.load(order.session_id)
        assert session is not None
        session.fields[f"key{number}"] = number
        manager.save(session)
        seen = client.seen.__dict__
        done.append(Request(seen["trips"], seen["conflicts"], time.monotonic() - begun))

    for order in orders:
        done: list[Request] = []
        threads = [
            threading.Thread(target=request, args=(order, order.first + number, done))
            for number in range(order.count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answer(done)


def _with_tasks(url: str, distance: float, orders: Iterator[Order], answer: Callable[[Any], None]) -> None:
    manager = AsyncSessionManager.connect(Settings(url=url, max_connections=100, timeout=5))
    seen: dict[Any, dict[str, int]] = {}
    made = manager._connect
    manager._connect = lambda: AsyncCounted(made(), distance, seen)  # type: ignore[assignment,return-value]

    async def request(order: Order, number: int) -> Request:
        await asyncio.sleep(max(0.0, order.begin - time.monotonic()))
        begun = time.monotonic()
        session = await manager.load(order.session_id)
        assert session is not None
        session.fields[f"key{number}"] = number
        await manager.save(session)
        mine = seen.pop(asyncio.current_task())
        return Request(mine["trips"], mine["conflicts"], time.monotonic() - begun)

    async def all_of(order: Order) -> list[Request]:
        return await asyncio.gather(*(request(order, order.first + number) for number in range(order.count)))

    with asyncio.Runner() as runner:
        for order in orders:
            answer(runner.run(all_of(order)))


def _work(kind: str, url: str, distance: float, pipe: Connection) -> None:
    def orders() -> Iterator[Order]:
        while (order := pipe.recv()) is not None:
            yield order

    (_with_threads if kind == "threads" else _with_tasks)(url, distance, orders(), pipe.send)


class Workers:
    """Processes that do requests at once."""

    def __init__(self, kind: str, url: str, distance: float, processes: int = PROCESSES) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(kind, url, distance, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, session_id: str, requests: int) -> list[Request]:
        share, more = divmod(requests, len(self._pipes))
        begin, first, asked = time.monotonic() + _HEAD_START, 0, []
        for number, pipe in enumerate(self._pipes):
            count = share + (number < more)
            if count:
                pipe.send(Order(session_id, first, count, begin))
                asked.append(pipe)
            first += count
        return [request for pipe in asked for request in pipe.recv()]

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()


@contextmanager
def workers(kind: str, url: str, distance: float) -> Iterator[Workers]:
    made = Workers(kind, url, distance)
    try:
        yield made
    finally:
        made.close()


def measure(
    store: str, url: str, kind: str, distance: float, rounds: int, advance: Callable[[], None] = lambda: None
) -> list[Crowd]:
    """`rounds` of each crowd, in turn, so that they share what else the machine does."""
    manager = SessionManager.connect(Settings(url=url, timeout=5))
    seen: dict[int, list[list[Request]]] = {crowd: [] for crowd in CROWDS}
    try:
        with workers(kind, url, distance) as crew:
            crew.run(_new(manager), CROWDS[-1])  # connections and scripts are there then
            for _ in range(rounds):
                for crowd in CROWDS:
                    session_id = _new(manager)
                    seen[crowd].append(crew.run(session_id, crowd))
                    after = manager.load(session_id)
                    assert after is not None
                    lost = {f"key{number}" for number in range(crowd)} - set(after.fields)
                    assert not lost, f"{len(lost)} of {crowd} changes were lost"
                    advance()
    finally:
        manager.close()
    return [_summed(store, kind, distance, crowd, rounds) for crowd, rounds in seen.items()]


def _new(manager: SessionManager) -> str:
    session = Session()
    session.fields.update(name="Ada Lovelace", cart=[{"id": 4711, "quantity": 1}], theme="dark")
    manager.save(session)
    assert session.id is not None
    return session.id


def _summed(store: str, kind: str, distance: float, crowd: int, rounds: list[list[Request]]) -> Crowd:
    each = [request for one in rounds for request in one]
    worst = [max(request.seconds for request in one) * 1000 for one in rounds]
    return Crowd(
        store,
        kind,
        distance * 1000,
        crowd,
        round(statistics.fmean(request.trips for request in each), 2),
        max(request.trips for request in each),
        round(statistics.fmean(request.conflicts for request in each), 2),
        round(statistics.median(request.seconds for request in each) * 1000, 2),
        round(statistics.median(worst), 2),
        round(max(worst), 2),
    )


def rows(crowds: list[Crowd]) -> list[dict[str, Any]]:
    return [asdict(crowd) for crowd in crowds]
