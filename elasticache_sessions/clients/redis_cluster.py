"""Cluster mode: finds the node that serves a session, and asks it as one endpoint is asked.

redis-py's (or valkey-py's) cluster client keeps the map of slots and the nodes' connections. Its way of sending is
not used: after a failure it would have every caller ask for the slots anew, one after the other, before it answers. Here
the map is renewed in the background, by one at a time, while everybody else goes on with the old one.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ..drive import drive, drive_async
from ..exceptions import StoreUnavailable
from ..limit import EachWait, Timeouts, exhausted, running
from .base import Command, Reply
from .breaker import Breakers
from .redis_driver import Driver, Redirected
from .redis_transport import ask, ask_async
from .redis_wire import Request, exchange

_NO_NODE: Final = "no node of the cluster serves the session's slot just now"
_THE_ENDPOINT: Final = "the cluster's endpoint"
# Seconds between two times that the map is asked for, at least: while a node is down, every request wants it.
_RENEWALS: Final = (0.1, 0.3)


def _may_be_elsewhere(error: StoreUnavailable) -> bool:
    # A connection that broke in the middle says nothing yet: the next one does. And renewing the map closes connections.
    return not (error.retry and error.sent)


def _name(node: Any) -> str:
    return f"the node {node.host}:{node.port}"


class _Turns:
    """How often the map of slots is asked for."""

    def __init__(self) -> None:
        self._next = 0.0

    def is_due(self) -> bool:
        if (now := time.monotonic()) < self._next:
            return False
        self._next = now + random.uniform(*_RENEWALS)
        return True


class RedisClusterClient:
    """Cluster mode, for threads and greenlets."""

    blind_touch = False

    def __init__(
        self, connect: Callable[[], Any], driver: Driver, timeouts: Timeouts, breakers: Breakers
    ) -> None:
        self._connect, self._driver, self._timeouts, self._breakers = connect, driver, timeouts, breakers
        self._cluster: Any = None
        self._begin()

    def _begin(self) -> None:
        """At first, and in a forked child."""
        self._pid = os.getpid()
        self._renewing = threading.Lock()
        self._turns = _Turns()

    def perform(self, command: Command) -> Reply:
        with self._timeouts.limited():
            return drive(exchange(command), self._send)

    def _send(self, request: Request) -> object:
        if self._pid != os.getpid():
            # By a thread that stayed with the parent; so may the driver's own lock be.
            if self._renewing.locked():
                self._cluster = None
            self._begin()
        if self._cluster is None:
            # On being made, the driver asks for the slots. Two threads may do so at once; one answer is kept.
            with (
                self._breakers.of(_THE_ENDPOINT),
                self._driver.translated(sent=False),
                running().connecting(),
            ):
                self._cluster = self._connect()
        with self._driver.translated(sent=False):
            node = self._cluster.get_node_from_key(request.key)
        try:
            try:
                return self._ask(node, request)
            except Redirected as to:
                if not to.asking:
                    self._renew()
                node = self._cluster.get_node(host=to.host, port=to.port)
                return self._ask(node, request, asking=to.asking)
        except Redirected:
            raise StoreUnavailable(_NO_NODE, retry=True, sent=False) from None
        except StoreUnavailable as error:
            if _may_be_elsewhere(error):
                self._renew()
            raise

    def _ask(self, node: Any, request: Request, *, asking: bool = False) -> object:
        if node is None:
            raise StoreUnavailable(_NO_NODE, retry=True, sent=False)
        connection_of = getattr(self._cluster, f"get_{self._driver.root}_connection")
        with self._breakers.of(_name(node)):
            with self._driver.translated(sent=False):
                pool = connection_of(node).connection_pool
            return ask(pool, self._driver, request, asking=asking)

    def _renew(self) -> None:
        """Have the map of slots asked for anew, beside the requests."""
        if self._renewing.acquire(blocking=False):
            try:
                if self._turns.is_due():
                    threading.Thread(target=self._ask_for_slots, name="renews-slots", daemon=True).start()
                    return
            except (
                RuntimeError
            ):  # no thread to be had, or the interpreter is ending: the next failure tries again
                pass
            self._renewing.release()

    def _ask_for_slots(self) -> None:
        try:
            with EachWait(*self._timeouts), self._driver.translated():
                manager, others = self._cluster.nodes_manager, {}
                # valkey-py asks those alone that it was given, or knows by itself.
                if self._driver.root == "redis":
                    others["additional_startup_nodes_info"] = [
                        (node.host, node.port) for node in list(manager.nodes_cache.values())
                    ]
                manager.initialize(**others)
        except (StoreUnavailable, Redirected):
            pass  # the next failure asks again
        finally:
            self._renewing.release()

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.disconnect_connection_pools()


class AsyncRedisClusterClient:
    """Cluster mode, for the tasks of one event loop."""

    blind_touch = False

    def __init__(
        self, connect: Callable[[], Any], driver: Driver, timeouts: Timeouts, breakers: Breakers
    ) -> None:
        self._cluster, self._driver, self._timeouts, self._breakers = connect(), driver, timeouts, breakers
        self._endpoint = dict(self._cluster.nodes_manager.startup_nodes)
        self._pools: dict[str, _NodePool] = {}
        self._starting: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._turns = _Turns()

    async def perform(self, command: Command) -> Reply:
        with self._timeouts.limited():
            return await drive_async(exchange(command), self._send)

    async def _send(self, request: Request) -> object:
        if self._starting is None or not self._starting.done() or _failed(self._starting):
            with self._breakers.of(_THE_ENDPOINT), running().connecting():
                await self._started()
        with self._driver.translated(sent=False):
            node = self._cluster.get_node_from_key(request.key)
        try:
            try:
                return await self._ask(node, request)
            except Redirected as to:
                if not to.asking:
                    self._renew()
                node = self._cluster.get_node(host=to.host, port=to.port)
                return await self._ask(node, request, asking=to.asking)
        except Redirected:
            raise StoreUnavailable(_NO_NODE, retry=True, sent=False) from None
        except StoreUnavailable as error:
            if _may_be_elsewhere(error):
                self._renew()
            raise

    async def _ask(self, node: Any, request: Request, *, asking: bool = False) -> object:
        if node is None:
            raise StoreUnavailable(_NO_NODE, retry=True, sent=False)
        with self._breakers.of(_name(node)):
            return await ask_async(self._pool(node), self._driver, request, asking=asking)

    async def _started(self) -> None:
        """Tasks that come first wait for one and the same first map of slots."""
        if self._starting is None or (self._starting.done() and _failed(self._starting)):
            self._starting = asyncio.create_task(self._ask_for_first_slots())
            self._starting.add_done_callback(_failed)
        with self._driver.translated(sent=False):
            async with asyncio.timeout(running().need()):
                await asyncio.shield(self._starting)

    async def _ask_for_first_slots(self) -> None:
        with EachWait(*self._timeouts), self._driver.translated(sent=False):
            await self._cluster.initialize()

    def _pool(self, node: Any) -> _NodePool:
        pool = self._pools.get(node.name)
        if pool is None or pool.node is not node:
            pool = self._pools[node.name] = _NodePool(node)
        return pool

    def _renew(self) -> None:
        """Have the map of slots asked for anew, beside the requests."""
        if (self._renewing is None or self._renewing.done()) and self._turns.is_due():
            self._renewing = asyncio.create_task(self._ask_for_slots())

    async def _ask_for_slots(self) -> None:
        try:
            with EachWait(*self._timeouts), self._driver.translated():
                manager = self._cluster.nodes_manager
                # Whom the driver asks, in any order: the endpoint may be the node that is down.
                manager.startup_nodes = manager.nodes_cache | self._endpoint
                await manager.initialize()
        except (StoreUnavailable, Redirected):
            pass  # the next failure asks again

    async def aclose(self) -> None:
        for task in (self._starting, self._renewing):
            if task is not None and not task.done():
                task.cancel()
        self._starting = None
        await self._cluster.aclose()
        # After a failure, the driver takes itself for closed already.
        for nodes in ("nodes_cache", "startup_nodes"):
            await self._cluster.nodes_manager.aclose(nodes)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


async def _has_something_to_say(connection: Any) -> bool:
    """Whether a connection that nobody uses has a reply for somebody, or was closed."""
    # valkey-py has its own name for it.
    ask = connection.can_read if hasattr(connection, "can_read") else connection.can_read_destructive
    return bool(await ask())


class _NodePool:
    """A node's connections as a pool that waits for a free one; the driver's own refuses."""

    def __init__(self, node: Any) -> None:
        self.node = node
        # One is left to the driver, to learn the slots.
        self._turns = asyncio.Semaphore(max(1, node.max_connections - 1))

    async def get_connection(self, *_: str) -> Any:
        try:
            async with asyncio.timeout(running().left()):
                await self._turns.acquire()
        except TimeoutError:
            raise exhausted() from None
        try:
            connection = self.node.acquire_connection()
        except BaseException:
            self._turns.release()
            raise
        try:
            await connection.connect()
            if await _has_something_to_say(connection):
                await connection.disconnect(nowait=True)
                await connection.connect()
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        self._turns.release()
        if hasattr(self.node, "release"):
            self.node.release(connection)
        else:  # valkey-py has no word for it
            self.node._free.append(connection)
