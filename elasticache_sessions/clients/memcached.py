"""Memcached: one or more fixed nodes, for threads and for asyncio.

Each key belongs to one node, by the nodes' names alone. A node that fails is StoreUnavailable for its keys, and they
never move: read from another node, a session that was ended meanwhile would come back.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final

from ..exceptions import MissingExtra, StoreUnavailable
from ..limit import Timeouts, exhausted, running
from ..settings import Settings
from .base import ABSENT, Command, Conflict, Entry, Read, Reply, Stored, Write
from .breaker import Breakers
from .memcached_nodes import ranked
from .memcached_pool import Pool
from .tls import context

if TYPE_CHECKING:
    from .memcached_connection import Connection


def connect(settings: Settings, breakers: Breakers | None = None) -> MemcachedClient:
    """A client for threads, as the settings say. Connects on first use. `breakers`: those that it shares."""
    try:
        from .memcached_connection import Connection
    except ImportError as error:
        raise MissingExtra(
            "sessions in Memcached need the package 'pymemcache': pip install 'elasticache-sessions[memcached]'"
        ) from error
    tls = context(settings.endpoint)
    pools = {
        _name(node): Pool(partial(Connection, node, tls), settings.max_connections)
        for node in settings.endpoint.nodes
    }
    return MemcachedClient(pools, settings.timeouts, breakers or Breakers(settings.timeouts))


def connect_async(settings: Settings, breakers: Breakers) -> AsyncMemcachedClient:
    """A client for the running event loop. Connects on first use."""
    return AsyncMemcachedClient(connect(settings, breakers), settings.max_connections)


def node_of(nodes: Sequence[str], key: bytes) -> str:
    """The name of the node that has `key`."""
    return ranked(nodes, key)[0]


def names(settings: Settings) -> tuple[str, ...]:
    """The nodes that the settings name."""
    return tuple(_name(node) for node in settings.endpoint.nodes)


def _name(node: tuple[str, int]) -> str:
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class MemcachedClient:
    """Any number of nodes, for threads and greenlets."""

    blind_touch = True

    def __init__(self, pools: Mapping[str, Pool[Connection]], timeouts: Timeouts, breakers: Breakers) -> None:
        self._pools, self.timeouts, self._breakers = pools, timeouts, breakers
        self.nodes: Final = tuple(pools)

    def node_of(self, key: bytes) -> str:
        """The name of the node that has `key`."""
        return node_of(self.nodes, key)

    def perform(self, command: Command) -> Reply:
        with self.timeouts.limited():
            return self.ask(self.node_of(command.key), command)

    def ask(self, node: str, command: Command) -> Reply:
        """Perform `command` on that node, which must be the one that has its key, within the running operation."""
        # What is new may be put on another node if this one fails (`settle.insert`).
        elsewhere = isinstance(command, Write) and command.token == ABSENT and len(self.nodes) > 1
        with (
            self._breakers.of(f"the Memcached node {node}"),
            running().half() if elsewhere else nullcontext(),
            self._pools[node].connection() as connection,
        ):
            return _answer(connection, command)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


def _answer(connection: Connection, command: Command) -> Reply:
    said = connection.ask(command)
    if not isinstance(command, Write):
        return said  # type: ignore[no-any-return]
    if said:
        return Stored(None)
    return Conflict(None if said is None else _found(connection, command.key))


def _found(connection: Connection, key: bytes) -> Entry | None:
    """What a write met with: one more round trip, since the reply does not bring it."""
    try:
        return connection.ask(Read(key))  # type: ignore[no-any-return]
    except StoreUnavailable as error:
        error.sent = False  # the write was refused, so nothing is unknown
        raise


class AsyncMemcachedClient:
    """The same for the tasks of one event loop: each command is one hop to a thread, which carries it out.

    There are at most `most` threads for each node, as many as it has connections, so that a node that hangs holds up
    its own keys only. Who finds none free waits, as long as the operation may. A task that is cancelled leaves its command
    to the thread, which ends it and gives the connection back in order.
    """

    blind_touch = True

    def __init__(self, client: MemcachedClient, most: int) -> None:
        self._client, self._most = client, most
        self._places = {node: asyncio.Semaphore(most) for node in client.nodes}
        self._threads: ThreadPoolExecutor | None = None
        # An event loop that ended without `aclose` leaves the connections to the garbage collector.
        weakref.finalize(self, client.close)

    async def perform(self, command: Command) -> Reply:
        with self._client.timeouts.limited():
            return await self._ask(command)

    async def _ask(self, command: Command) -> Reply:
        node = self._client.node_of(command.key)
        places = self._places[node]
        try:
            async with asyncio.timeout(running().left()):
                await places.acquire()
        except TimeoutError:
            raise exhausted() from None
        loop = asyncio.get_running_loop()

        def vacate(_: Future[Reply]) -> None:
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(places.release)

        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._most * len(self._places), "elasticache-sessions")
        try:
            job = self._threads.submit(copy_context().run, self._client.ask, node, command)
        except RuntimeError as error:  # no thread to be had; what was queued is not to be done later
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
            places.release()
            raise StoreUnavailable(
                f"no thread to ask Memcached in: {error}. Try again.", sent=False
            ) from error
        job.add_done_callback(vacate)
        return await asyncio.wrap_future(job)

    async def aclose(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None
        self._client.close()
