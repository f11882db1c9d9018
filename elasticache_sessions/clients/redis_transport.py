"""Carries `redis_wire` over a pool of connections to one endpoint, for threads or for asyncio.

The connections are redis-py's or valkey-py's, but not their retries: a command is sent once, so that whoever
repeats it knows.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ..drive import drive, drive_async
from ..exceptions import StoreUnavailable
from ..limit import Timeouts, running
from .base import Command, Reply
from .breaker import Breakers
from .redis_driver import Driver, Redirected, Refused
from .redis_wire import Request, exchange

_MISFIT: Final = "the store's reply does not fit the question. Check what answers at its address."


def ask(pool: Any, driver: Driver, request: Request, *, asking: bool = False) -> object:
    """Send `request` on a connection of `pool`, once, and return what the server answered.

    Raises:
        StoreUnavailable, Redirected
    """
    with driver.translated(sent=False):
        connection = pool.get_connection(*driver.pool_args)
    try:
        with driver.translated():
            if asking:
                connection.send_command("ASKING")
                connection.read_response()
            connection.send_command(*request.args)
            reply = connection.read_response()
        if not request.fits(reply):
            raise StoreUnavailable(_MISFIT, retry=True)
        return reply
    except Refused as refused:
        return refused.refusal
    except Redirected:
        raise
    except BaseException:
        # A timeout, a greenlet killed in between, a primary that became a replica: what comes next on this
        # connection is not for us.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


async def ask_async(pool: Any, driver: Driver, request: Request, *, asking: bool = False) -> object:
    """`ask`, for asyncio."""
    task = asyncio.current_task()
    with driver.translated(sent=False):
        connection = await pool.get_connection(*driver.pool_args)
    try:
        with driver.translated():
            async with asyncio.timeout(running().need()):
                cancelled = 0 if task is None else task.cancelling()
                if asking:
                    await connection.send_command("ASKING")
                    await connection.read_response()
                await connection.send_command(*request.args)
                if task is not None and task.cancelling() > cancelled:
                    # Before Python 3.12 asyncio.wait_for, by which the driver sends, may swallow it.
                    raise asyncio.CancelledError
                reply = await connection.read_response()
        if not request.fits(reply):
            raise StoreUnavailable(_MISFIT, retry=True)
        return reply
    except Refused as refused:
        return refused.refusal
    except Redirected:
        raise
    except BaseException:
        # As above; a cancelled task must not wait for a polite end of the connection.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)


class _OneEndpoint:
    """What a client for it has, for threads and for event loops."""

    blind_touch = False

    def __init__(self, client: Any, driver: Driver, timeouts: Timeouts, breakers: Breakers) -> None:
        self._pool, self._driver = client.connection_pool, driver
        self._timeouts, self._breakers = timeouts, breakers


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

    def close(self) -> None:
        self._pool.disconnect()


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

    async def aclose(self) -> None:
        await self._pool.disconnect()


_THE_STORE: Final = "the store"


def _clustered(redirected: Redirected) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store is a cluster (a session is {redirected}). Add ?cluster=true to ELASTICACHE_SESSIONS_URL.",
        sent=False,
    )
