"""Carries `redis_wire` to one endpoint, for asyncio: over connections that a URL names, which all tasks share, or over the pool
of a client object.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

from ..drive import drive_async
from ..limit import Timeouts, running
from .base import Command, Glance, Look, Page, Reply, Scan
from .breaker import Breaker, Breakers
from .redis_driver import Driver, Redirected, Refused
from .redis_survey import glances
from .redis_transport import THE_STORE, answered, clustered, here, search_here
from .redis_wire import Request, exchange


class Carrier(Protocol):
    """Asks one server, once; what it answered with may be a `Refusal`."""

    async def ask(self, request: Request, *, asking: bool = False) -> object:
        """Raises: StoreUnavailable, Redirected. `asking`: as a cluster's node says that it wants to be asked for a slot that
        moves.
        """

    async def ask_all(self, requests: Sequence[Request]) -> list[object]:
        """Send all of `requests` before any reply is waited for. What the server answered to each, that it is served
        elsewhere (`Redirected`) among it.

        Raises:
            StoreUnavailable
        """

    async def aclose(self) -> None:
        """Close every connection. It may be used again."""


class Pooled:
    """By the connections of a driver's pool, one for each who asks."""

    def __init__(self, pool: Any, driver: Driver) -> None:
        self._pool, self._driver = pool, driver

    async def ask(self, request: Request, *, asking: bool = False) -> object:
        try:
            async with self._lent() as connection:
                if asking:
                    await connection.send_command("ASKING")
                    await connection.read_response()
                with _heeding_cancellation():
                    await connection.send_command(*request.args)
                return answered(await connection.read_response(), self._driver, request)
        except Refused as refused:
            return refused.refusal

    async def ask_all(self, requests: Sequence[Request]) -> list[object]:
        answers: list[object] = []
        async with self._lent() as connection:
            with _heeding_cancellation():
                together = connection.pack_commands([request.args for request in requests])
                await connection.send_packed_command([b"".join(together)])
            for request in requests:
                try:
                    with self._driver.translated():
                        answers.append(answered(await connection.read_response(), self._driver, request))
                except (Refused, Redirected) as said:
                    answers.append(said.refusal if isinstance(said, Refused) else said)
        return answers

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Any]:
        """A connection for one exchange."""
        with self._driver.translated(sent=False):
            connection = await self._pool.get_connection(*self._driver.pool_args)
        try:
            with self._driver.translated():
                async with asyncio.timeout(running().need()):
                    yield connection
        except (Refused, Redirected):
            raise
        except BaseException:
            # A timeout, a cancelled task, a primary that became a replica: what comes next on this connection is not for
            # us. A cancelled task must not wait for a polite end of it.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def aclose(self) -> None:
        await self._pool.disconnect()


@contextmanager
def _heeding_cancellation() -> Iterator[None]:
    """Before Python 3.12 asyncio.wait_for, by which the driver sends, may swallow it."""
    task = asyncio.current_task()
    cancelled = 0 if task is None else task.cancelling()
    yield
    if task is not None and task.cancelling() > cancelled:
        raise asyncio.CancelledError


class AsyncRedisClient:
    """One endpoint, for the tasks of one event loop."""

    blind_touch = False

    def __init__(self, carrier: Carrier, timeouts: Timeouts, breakers: Breakers) -> None:
        self._carrier, self._timeouts, self._breakers = carrier, timeouts, breakers
        self._breaker: Breaker | None = None

    async def perform(self, command: Command) -> Reply:
        with self._timeouts.limited():
            return await drive_async(exchange(command), self._send)

    async def _send(self, request: Request) -> object:
        try:
            with self._guarded():
                return await self._carrier.ask(request)
        except Redirected as redirected:
            raise clustered(redirected) from None

    def _guarded(self) -> Breaker:
        """Found once: an event loop stays in its process."""
        if self._breaker is None:
            self._breaker = self._breakers.of(THE_STORE)
        return self._breaker

    async def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self._timeouts.limited():
            return await drive_async(glances(question), self._send_all)

    async def scan(self, question: Scan) -> Page:
        with self._timeouts.limited():
            return await drive_async(search_here(question), self._send_all)

    async def _send_all(self, requests: Sequence[Request]) -> list[object]:
        with self._guarded():
            return here(await self._carrier.ask_all(requests))

    async def aclose(self) -> None:
        await self._carrier.aclose()
