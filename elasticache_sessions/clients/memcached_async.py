"""Memcached for event loops: its driver knows threads alone."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Protocol, TypeVar

from ..exceptions import StoreUnavailable
from ..limit import Timeouts, exhausted, running
from .base import Command, Glance, Look, Reply
from .memcached_survey import grouped

Q = TypeVar("Q")
R = TypeVar("R")


class Threaded(Protocol):
    """A client for threads."""

    @property
    def timeouts(self) -> Timeouts: ...

    notice: Callable[[str], None]

    def place_of(self, key: bytes) -> str:
        """The name of the node that has `key`, or the first of those; "" where it is not known yet. Never waits."""

    def has(self, node: str) -> bool:
        """Whether that is one of its nodes."""

    def ask(self, command: Command) -> Reply:
        """As `CacheClient.perform`, within the running operation."""

    def ask_for(self, question: Look) -> tuple[Glance | None, ...]:
        """As `CacheClient.look`, within the running operation."""

    def close(self) -> None: ...


class AsyncMemcachedClient:
    """A client for the tasks of one event loop: each command is one hop to a thread, which carries it out.

    There are at most `most` threads for each node, as many as it has connections, so that a node that hangs holds up
    the keys that it has, and no others. Who finds none free waits, as long as the operation may. A task that is cancelled
    leaves its command to the thread, which ends it and gives the connection back in order.
    """

    blind_touch = True

    def __init__(self, client: Threaded, most: int) -> None:
        self.client, self._most = client, most
        self._places: dict[str, asyncio.Semaphore] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        # An event loop that ended without `aclose` leaves the connections to the garbage collector.
        weakref.finalize(self, client.close)

    @property
    def notice(self) -> Callable[[str], None]:
        return self.client.notice

    @notice.setter
    def notice(self, notice: Callable[[str], None]) -> None:
        self.client.notice = notice

    async def perform(self, command: Command) -> Reply:
        with self.client.timeouts.limited():
            return await self._done(self.client.place_of(command.key), self.client.ask, command)

    async def look(self, question: Look) -> tuple[Glance | None, ...]:
        found: dict[bytes, Glance | None] = {}
        with self.client.timeouts.limited():
            for place, keys in grouped(question.keys, lambda key: [self.client.place_of(key)]):
                some = Look(tuple(keys))
                found.update(zip(keys, await self._done(place, self.client.ask_for, some), strict=True))
        return tuple(found[key] for key in question.keys)

    async def _done(self, place: str, ask: Callable[[Q], R], question: Q) -> R:
        """What `ask` says, in one of the threads of that place."""
        places = self._places.get(place)
        if places is None:
            places = self._places[place] = asyncio.Semaphore(self._most)
        if places.locked():
            try:
                async with asyncio.timeout(running().left()):
                    await places.acquire()
            except TimeoutError:
                raise exhausted() from None
        else:
            await places.acquire()  # which does not wait
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[R] = loop.create_future()

        def arrive(job: Future[R]) -> None:
            places.release()
            if reply.done():
                return  # who asked has given up
            if job.cancelled():
                reply.cancel()
            elif (error := job.exception()) is not None:
                reply.set_exception(error)
            else:
                reply.set_result(job.result())

        close = self.client.close

        def tell(job: Future[R]) -> None:
            try:
                loop.call_soon_threadsafe(arrive, job)
            except RuntimeError:  # the event loop has ended meanwhile, and closed what was open by then
                close()

        threads = self._threads.get(place)
        if threads is None:
            self._leave_others()
            threads = self._threads[place] = ThreadPoolExecutor(self._most, "elasticache-sessions")
        try:
            job = threads.submit(copy_context().run, ask, question)
        except RuntimeError as error:  # no thread to be had; what was queued is not to be done later
            threads.shutdown(wait=False, cancel_futures=True)
            self._threads.pop(place, None)
            places.release()
            raise StoreUnavailable(
                f"no thread to ask Memcached in: {error}. Try again.", sent=False
            ) from error
        job.add_done_callback(tell)
        try:
            return await reply
        except asyncio.CancelledError:
            job.cancel()  # if it has not begun
            raise

    def _leave_others(self) -> None:
        """End the threads for nodes that are none any more."""
        for place in [place for place in self._threads if not self.client.has(place)]:
            self._threads.pop(place).shutdown(wait=False)
            self._places.pop(place, None)

    async def aclose(self) -> None:
        while self._threads:
            self._threads.popitem()[1].shutdown(wait=False)
        self.client.close()
