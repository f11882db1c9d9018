"""Carries `redis_wire` over a pool of connections to one endpoint, for threads or for asyncio.

The connections are redis-py's or valkey-py's, but not their retries: a command is sent once, so that whoever
repeats it knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, Protocol

from ..drive import drive, drive_async
from ..exceptions import StoreUnavailable
from ..limit import Timeouts, running
from .base import Command, Glance, Look, Page, Reply, Scan
from .breaker import Breakers
from .redis_driver import Driver, Redirected, Refused
from .redis_search import Mark, mark_of, search
from .redis_survey import Flights, glances
from .redis_wire import Refusal, Request, exchange

_MISFIT: Final = "the store's reply does not fit the question. Check what answers at its address."


class Line(Protocol):
    """A connection that sends each command once."""

    def send(self, commands: Sequence[tuple[Any, ...]], /) -> None:
        """All of them as one piece."""

    def receive(self) -> object:
        """The next reply. Raises what the server calls an error."""


class Lines(Protocol):
    """Where connections are lent: a `pool.Pool`, or that of a client object (`Theirs`)."""

    def connection(self) -> AbstractContextManager[Line]:
        """One for this thread alone. It is closed where an exception ends the block: after a timeout, a greenlet killed in
        between, a primary that became a replica, what comes next on it is not for us.
        """

    def close(self) -> None: ...


def ask(lines: Lines, driver: Driver, request: Request, *, asking: bool = False) -> object:
    """Send `request` on one of `lines`, once, and return what the server answered.

    Raises:
        StoreUnavailable, Redirected
    """
    with driver.translated(sent=False), lines.connection() as line:
        with driver.translated():
            if asking:
                line.send([("ASKING",)])
                line.receive()
            line.send([request.args])
        answer = _answer(line, driver, request)
    if isinstance(answer, Redirected):
        raise answer
    return answer


def ask_all(lines: Lines, driver: Driver, requests: Sequence[Request]) -> list[object]:
    """Send all of `requests` on one connection, before any reply is waited for. What the server answered to each, that it
    is served elsewhere (`Redirected`) among it.

    Raises:
        StoreUnavailable
    """
    with driver.translated(sent=False), lines.connection() as line:
        with driver.translated():
            line.send([request.args for request in requests])
        return [_answer(line, driver, request) for request in requests]


def _answer(line: Line, driver: Driver, request: Request) -> object:
    try:
        with driver.translated():
            return _fitting(line.receive(), request)
    except Refused as refused:
        return refused.refusal
    except Redirected as redirected:
        return redirected


class Theirs:
    """The connections of a client object that the app gave."""

    def __init__(self, pool: Any, driver: Driver) -> None:
        self._pool, self._arguments = pool, driver.pool_args

    @contextmanager
    def connection(self) -> Iterator[Line]:
        connection = self._pool.get_connection(*self._arguments)
        try:
            yield _TheirLine(connection)
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def close(self) -> None:
        self._pool.disconnect()


class _TheirLine:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        self._connection.send_packed_command([b"".join(self._connection.pack_commands(commands))])

    def receive(self) -> object:
        return self._connection.read_response()


async def ask_async(pool: Any, driver: Driver, request: Request, *, asking: bool = False) -> object:
    """`ask`, for asyncio."""
    try:
        async with _lent_async(pool, driver) as connection:
            if asking:
                await connection.send_command("ASKING")
                await connection.read_response()
            with _heeding_cancellation():
                await connection.send_command(*request.args)
            return _fitting(await connection.read_response(), request)
    except Refused as refused:
        return refused.refusal


async def ask_all_async(pool: Any, driver: Driver, requests: Sequence[Request]) -> list[object]:
    """`ask_all`, for asyncio."""
    answers: list[object] = []
    async with _lent_async(pool, driver) as connection:
        with _heeding_cancellation():
            await connection.send_packed_command(_packed(connection, requests))
        for request in requests:
            try:
                with driver.translated():
                    answers.append(_fitting(await connection.read_response(), request))
            except (Refused, Redirected) as said:
                answers.append(_answer_in(said))
    return answers


@asynccontextmanager
async def _lent_async(pool: Any, driver: Driver) -> AsyncIterator[Any]:
    """A connection for one exchange."""
    with driver.translated(sent=False):
        connection = await pool.get_connection(*driver.pool_args)
    try:
        with driver.translated():
            async with asyncio.timeout(running().need()):
                yield connection
    except (Refused, Redirected):
        raise
    except BaseException:
        # As `Lines.connection` says; a cancelled task must not wait for a polite end of the connection.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)


@contextmanager
def _heeding_cancellation() -> Iterator[None]:
    """Before Python 3.12 asyncio.wait_for, by which the driver sends, may swallow it."""
    task = asyncio.current_task()
    cancelled = 0 if task is None else task.cancelling()
    yield
    if task is not None and task.cancelling() > cancelled:
        raise asyncio.CancelledError


def _packed(connection: Any, requests: Sequence[Request]) -> list[bytes]:
    """As one piece, so that it is sent as one."""
    return [b"".join(connection.pack_commands([request.args for request in requests]))]


def _answer_in(said: Refused | Redirected) -> Refusal | Redirected:
    return said.refusal if isinstance(said, Refused) else said


def _fitting(reply: object, request: Request) -> object:
    if not request.fits(reply):
        reply = None  # it may be somebody else's session, and a traceback may show variables
        raise StoreUnavailable(_MISFIT, retry=True)
    return reply


class _OneEndpoint:
    """What a client for it has, for threads and for event loops."""

    blind_touch = False

    def __init__(self, pool: Any, driver: Driver, timeouts: Timeouts, breakers: Breakers) -> None:
        """`pool`: `Lines`, for threads; a driver's pool, for event loops."""
        self._pool, self._driver = pool, driver
        self._timeouts, self._breakers = timeouts, breakers

    def _search(self, question: Scan) -> Flights[Page]:
        def probes() -> tuple[bytes, ...]:
            return (question.prefix,)

        return search(question.prefix, mark_of(question) or Mark.first(probes()), probes)


class RedisClient(_OneEndpoint):
    """One endpoint, for threads and greenlets."""

    def perform(self, command: Command) -> Reply:
        with self._timeouts.limited():
            return drive(exchange(command), self._send)

    def _send(self, request: Request) -> object:
        try:
            with self._breakers.of(_THE_STORE):
                return ask(self._pool, self._driver, request)
        except Redirected as redirected:
            raise _clustered(redirected) from None

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self._timeouts.limited():
            return drive(glances(question), self._send_all)

    def scan(self, question: Scan) -> Page:
        with self._timeouts.limited():
            return drive(self._search(question), self._send_all)

    def _send_all(self, requests: Sequence[Request]) -> list[object]:
        with self._breakers.of(_THE_STORE):
            return _here(ask_all(self._pool, self._driver, requests))

    def close(self) -> None:
        self._pool.close()


class AsyncRedisClient(_OneEndpoint):
    """One endpoint, for the tasks of one event loop."""

    async def perform(self, command: Command) -> Reply:
        with self._timeouts.limited():
            return await drive_async(exchange(command), self._send)

    async def _send(self, request: Request) -> object:
        try:
            with self._breakers.of(_THE_STORE):
                return await ask_async(self._pool, self._driver, request)
        except Redirected as redirected:
            raise _clustered(redirected) from None

    async def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self._timeouts.limited():
            return await drive_async(glances(question), self._send_all)

    async def scan(self, question: Scan) -> Page:
        with self._timeouts.limited():
            return await drive_async(self._search(question), self._send_all)

    async def _send_all(self, requests: Sequence[Request]) -> list[object]:
        with self._breakers.of(_THE_STORE):
            return _here(await ask_all_async(self._pool, self._driver, requests))

    async def aclose(self) -> None:
        await self._pool.disconnect()


_THE_STORE: Final = "the store"


def _here(answers: list[object]) -> list[object]:
    """`answers`, none of which may be that another node has the key."""
    for answer in answers:
        if isinstance(answer, Redirected):
            raise _clustered(answer)
    return answers


def _clustered(redirected: Redirected) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store is a cluster (a session is {redirected}). Add ?cluster=true to ELASTICACHE_SESSIONS_URL.",
        sent=False,
    )
