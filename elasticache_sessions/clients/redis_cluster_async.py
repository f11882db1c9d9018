"""Cluster mode for asyncio: as `redis_cluster`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..drive import drive_async
from ..exceptions import StoreUnavailable
from ..limit import EachWait, Timeouts, exhausted, running
from .base import Command, Glance, Look, Page, Reply, Scan
from .breaker import Breakers
from .redis_cluster import (
    NO_NODE,
    THE_ENDPOINT,
    ByMap,
    Turns,
    by_node,
    name_of,
    not_elsewhere,
    search_cluster,
)
from .redis_driver import Driver, Redirected
from .redis_survey import glances
from .redis_transport_async import Carrier, Pooled
from .redis_wire import Request, exchange


class AsyncRedisClusterClient(ByMap):
    """Cluster mode, for the tasks of one event loop."""

    def __init__(
        self,
        connect: Callable[[], Any],
        driver: Driver,
        timeouts: Timeouts,
        breakers: Breakers,
        shared_to: Callable[[str, int], Carrier] | None = None,
    ) -> None:
        """`shared_to`: makes the connection to a node; None: those of the driver's object are used."""
        self._cluster, self._driver, self._timeouts, self._breakers = connect(), driver, timeouts, breakers
        self._shared_to = shared_to
        self._endpoint = dict(self._cluster.nodes_manager.startup_nodes)
        self._carriers: dict[str, Carrier] = {}
        self._starting: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._turns = Turns()

    async def perform(self, command: Command) -> Reply:
        with self._timeouts.limited():
            return await drive_async(exchange(command), self._send)

    async def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self._timeouts.limited():
            return await drive_async(glances(question), self._send_all)

    async def _send(self, request: Request) -> object:
        await self._connected()
        with self._learning():
            try:
                with self._carrier(self._node_of(request)) as carrier:
                    return await carrier.ask(request)
            except Redirected as to:
                return await self._follow(to, request)

    async def scan(self, question: Scan) -> Page:
        with self._timeouts.limited():
            await self._connected()
            with self._learning():
                return await drive_async(search_cluster(question, self._cluster), self._send_together)

    async def _send_together(self, requests: Sequence[Request]) -> list[object]:
        """To the node of the first one, which must be that of the others, in one flight."""
        with self._carrier(self._node_of(requests[0])) as carrier:
            return not_elsewhere(await carrier.ask_all(requests))

    async def _send_all(self, requests: Sequence[Request]) -> list[object]:
        """As `RedisClusterClient._send_all`."""
        await self._connected()
        answers: dict[bytes, object] = {}
        with self._learning():
            for node, theirs in by_node(requests, self._node_of):
                with self._carrier(node) as carrier:
                    said = await carrier.ask_all(theirs)
                for request, answer in zip(theirs, said, strict=True):
                    answers[request.key] = (
                        await self._follow(answer, request) if isinstance(answer, Redirected) else answer
                    )
        return [answers[request.key] for request in requests]

    async def _connected(self) -> None:
        if self._starting is None or not self._starting.done() or _failed(self._starting):
            with self._breakers.of(THE_ENDPOINT), running().connecting():
                await self._started()

    async def _follow(self, to: Redirected, request: Request) -> object:
        if not to.asking:
            self._renew()
        node = self._cluster.get_node(host=to.host, port=to.port)
        with self._carrier(node) as carrier:
            return await carrier.ask(request, asking=to.asking)

    @contextmanager
    def _carrier(self, node: Any) -> Iterator[Carrier]:
        """What asks a node."""
        if node is None:
            raise StoreUnavailable(NO_NODE, retry=True, sent=False)
        with self._breakers.of(name_of(node)):
            carrier = self._carriers.get(node.name)
            if carrier is None or (isinstance(carrier, _Borrowed) and carrier.node is not node):
                made = self._shared_to
                carrier = _Borrowed(node, self._driver) if made is None else made(node.host, node.port)
                self._carriers[node.name] = carrier
            yield carrier

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
            await self._leave_others(manager.nodes_cache)
        except (StoreUnavailable, Redirected):
            pass  # the next failure asks again

    async def _leave_others(self, names: Container[str]) -> None:
        """Close the connections to nodes that are none any more."""
        for name in [name for name in self._carriers if name not in names]:
            await self._carriers.pop(name).aclose()

    async def aclose(self) -> None:
        for task in (self._starting, self._renewing):
            if task is not None and not task.done():
                task.cancel()
        self._starting = None
        await self._leave_others(())
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

    async def disconnect(self) -> None:
        """Nothing: the node's connections are the driver's to close."""


class _Borrowed(Pooled):
    """A node's connections that the driver's object has."""

    def __init__(self, node: Any, driver: Driver) -> None:
        super().__init__(_NodePool(node), driver)
        self.node = node
