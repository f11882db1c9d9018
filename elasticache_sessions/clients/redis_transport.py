"""Four small classes that carry `redis_wire`: over one endpoint or a cluster, for threads or for asyncio.

They use redis-py's (or valkey-py's) connections and routing, but not its retries: a command is sent once, so
that whoever repeats it knows.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any, Final

from ..drive import drive, drive_async
from ..exceptions import MissingExtra, StoreUnavailable
from .base import Command, Reply
from .redis_wire import Refusal, Request, exchange

_MISFIT: Final = "the store's reply does not fit the question. Check what answers at its address."
_NO_NODE: Final = "no node of the cluster serves the session's slot just now"


class _Refused(Exception):
    """The server answered with an error that says something."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class Driver:
    """The driver that a client object is made of (redis-py or valkey-py), and its exceptions in our words."""

    def __init__(self, root: str) -> None:
        try:
            self.errors: ModuleType = importlib.import_module(f"{root}.exceptions")
        except ImportError as error:
            raise MissingExtra(
                f"sessions in Valkey or Redis need the package {root!r}: "
                f"pip install 'elasticache-sessions[{root}]'"
            ) from error
        redis = root == "redis"
        self.base: type[Exception] = self.errors.RedisError if redis else self.errors.ValkeyError
        # No child of the base. It may hide the failure for which the cluster's slots were asked for anew.
        self.lost: type[Exception] = (
            self.errors.RedisClusterException if redis else self.errors.ValkeyClusterException
        )
        # valkey-py wants a command's name there, redis-py warns of one.
        self.pool_args: tuple[str, ...] = () if root == "redis" else ("",)

    @contextmanager
    def translated(self, *, sent: bool = True) -> Iterator[None]:
        """Driver exceptions never leave a client."""
        try:
            yield
        except (self.base, self.lost, OSError) as error:
            raise self._in_our_words(error, sent) from error

    def _in_our_words(self, error: Exception, sent: bool) -> Exception:
        if isinstance(error, self.lost):
            reason = error.__context__ or error.__cause__
            error = reason if isinstance(reason, self.base) else error
        errors, kind = self.errors, type(error).__name__
        # Cluster mode connects within its sending; so both drivers say that it got no further.
        sent = sent and "connecting to" not in str(error)
        if isinstance(error, errors.NoScriptError):
            return _Refused(Refusal.NO_SCRIPT)
        if str(error).startswith("WRONGTYPE"):
            return _Refused(Refusal.WRONG_TYPE)
        refused = errors.AuthenticationError | errors.AuthorizationError | errors.NoPermissionError
        if isinstance(error, refused):
            return StoreUnavailable(
                f"the store refused the user or the command ({kind}: {error}). Check the URL's user and ACL.",
                sent=sent,
            )
        # Asking again after a timeout would take longer than the operation may.
        retry = isinstance(
            error,
            errors.ConnectionError
            | errors.ReadOnlyError
            | errors.ClusterDownError
            | errors.TryAgainError
            | errors.MasterDownError,
        ) and not isinstance(error, errors.TimeoutError)
        return StoreUnavailable(f"the store did not answer ({kind}: {error})", retry=retry, sent=sent)


class RedisClient:
    """One endpoint, for threads and greenlets."""

    def __init__(self, client: Any, driver: Driver) -> None:
        self._pool, self._driver = client.connection_pool, driver

    def perform(self, command: Command) -> Reply:
        return drive(exchange(command), self._send)

    def _send(self, request: Request) -> object:
        with self._driver.translated(sent=False):
            connection = self._pool.get_connection(*self._driver.pool_args)
        try:
            with self._driver.translated():
                connection.send_command(*request.args)
                reply = connection.read_response()
            if not request.fits(reply):
                raise StoreUnavailable(_MISFIT, retry=True)
            return reply
        except _Refused as refused:
            return refused.refusal
        except BaseException:
            # A timeout, a greenlet killed in between, a primary that became a replica: what comes next on
            # this connection is not for us.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def close(self) -> None:
        self._pool.disconnect()


class AsyncRedisClient:
    """One endpoint, for the tasks of one event loop."""

    def __init__(self, client: Any, driver: Driver) -> None:
        self._pool, self._driver = client.connection_pool, driver

    async def perform(self, command: Command) -> Reply:
        return await drive_async(exchange(command), self._send)

    async def _send(self, request: Request) -> object:
        with self._driver.translated(sent=False):
            connection = await self._pool.get_connection(*self._driver.pool_args)
        try:
            with self._driver.translated():
                await connection.send_command(*request.args)
                reply = await connection.read_response()
            if not request.fits(reply):
                raise StoreUnavailable(_MISFIT, retry=True)
            return reply
        except _Refused as refused:
            return refused.refusal
        except BaseException:
            # As above; a cancelled task must not wait for a polite end of the connection.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def aclose(self) -> None:
        await self._pool.disconnect()


class RedisClusterClient:
    """Cluster mode, for threads and greenlets."""

    def __init__(self, connect: Callable[[], Any], driver: Driver) -> None:
        self._connect, self._driver = connect, driver
        self._cluster: Any = None

    def perform(self, command: Command) -> Reply:
        return drive(exchange(command), self._send)

    def _send(self, request: Request) -> object:
        with self._driver.translated(sent=False):
            if self._cluster is None:
                # On being made, the driver asks for the slots. Two threads may do so at once; one answer is
                # kept.
                self._cluster = self._connect()
            cluster = self._cluster
            node = cluster.get_node_from_key(request.key)
        if node is None:
            raise StoreUnavailable(_NO_NODE, retry=True, sent=False)
        try:
            with self._driver.translated():
                # Naming the node keeps the driver from sending the command again by itself.
                reply = cluster.execute_command(*request.args, target_nodes=node)
        except _Refused as refused:
            return refused.refusal
        if not request.fits(reply):
            # It is free again by now; those that other threads are reading from are left alone.
            cluster.get_redis_connection(node).connection_pool.disconnect(inuse_connections=False)
            raise StoreUnavailable(_MISFIT, retry=True)
        return reply

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.disconnect_connection_pools()


class AsyncRedisClusterClient:
    """Cluster mode, for the tasks of one event loop."""

    def __init__(self, connect: Callable[[], Any], driver: Driver, patience: float | None = None) -> None:
        self._cluster, self._driver, self._patience = connect(), driver, patience
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def perform(self, command: Command) -> Reply:
        return await drive_async(exchange(command), self._send)

    async def _send(self, request: Request) -> object:
        with self._driver.translated(sent=False):
            await self._cluster.initialize()
            node = self._cluster.get_node_from_key(request.key)
        if node is None:
            raise StoreUnavailable(_NO_NODE, retry=True, sent=False)
        try:
            async with self._turn(node):
                with self._driver.translated():
                    reply = await self._cluster.execute_command(*request.args, target_nodes=node)
        except _Refused as refused:
            return refused.refusal
        if not request.fits(reply):
            await self._cluster.aclose()
            raise StoreUnavailable(_MISFIT, retry=True)
        return reply

    @asynccontextmanager
    async def _turn(self, node: Any) -> AsyncIterator[None]:
        """The driver refuses more commands than connections. This waits, and leaves one to learn the slots."""
        turns = self._turns.setdefault(node.name, asyncio.Semaphore(max(1, node.max_connections - 1)))
        try:
            async with asyncio.timeout(self._patience):
                await turns.acquire()
        except TimeoutError:
            raise StoreUnavailable("no connection became free in time", sent=False) from None
        try:
            yield
        finally:
            turns.release()

    async def aclose(self) -> None:
        await self._cluster.aclose()
        # After a failure, the driver takes itself for closed already.
        for nodes in ("nodes_cache", "startup_nodes"):
            await self._cluster.nodes_manager.aclose(nodes)
