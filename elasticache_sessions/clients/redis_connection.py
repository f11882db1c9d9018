"""redis-py's connections and pools, which wait no longer than the running operation may. Imports redis at once.

redis-py resolves names in the request's own thread, gives each address of a name, each wait for a byte, and each wait for
a free connection its whole time limit, and knows none for all of it.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import redis.asyncio.cluster
import redis.asyncio.connection
import redis.cluster
import redis.connection

from ..limit import running
from .network import Watched, open_socket, open_stream


class Connection(redis.connection.Connection):
    """For threads and greenlets."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]  # untyped in redis-py
        self._tls = tls

    def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """Within CONNECT_TIMEOUT: name, TCP, TLS, the user's name and password."""
        if self.is_connected:
            return
        try:
            with running().connecting():
                super().connect_check_health(*arguments, **options)
        except BaseException:  # a greenlet was killed, say, before it had signed in
            self.disconnect()  # type: ignore[no-untyped-call]  # as above
            raise

    def can_read(self, timeout: float = 0) -> bool:
        """Whether something waits to be read. redis-py takes for that, too, what TLS sends for itself: tickets for later
        sessions, right after the handshake.
        """
        reader: Any = getattr(self._parser, "_reader", None)
        sock: Any = self._sock
        if not isinstance(sock, Watched):  # closed
            return super().can_read(timeout)
        held: Any = self._parser._buffer.unread_bytes if reader is None else reader.has_data
        return bool(held()) or not sock.is_quiet()

    def _connect(self) -> Any:
        return open_socket(self.host, int(self.port), self._tls)


class _Patient:
    """A pool where whoever finds no connection free waits for one as long as the operation may."""

    @property
    def timeout(self) -> float:
        return running().left()

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        """What the driver thinks right; it is not asked."""


class Pool(_Patient, redis.connection.BlockingConnectionPool):
    """For threads and greenlets."""

    tls: ssl.SSLContext | None = None

    def __init__(self, **options: Any) -> None:
        options.pop("connection_class", None)
        super().__init__(connection_class=Connection, tls=self.tls, **options)  # type: ignore[no-untyped-call]  # as above


class AsyncConnection(redis.asyncio.connection.Connection):
    """For the tasks of one event loop."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls

    async def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """As `Connection.connect_check_health`."""
        if not self.is_connected:
            with running().connecting():
                async with asyncio.timeout(running().need()):
                    await super().connect_check_health(*arguments, **options)

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(running().need()):
                return await super().read_response(*arguments, **options)
        except TimeoutError:
            # Also where the time was over before reading began, of which the driver does not hear: what comes late, the
            # OK of an AUTH, say, would be taken for the next reply.
            await self.disconnect(nowait=True)
            raise

    async def disconnect(self, nowait: bool = False, *arguments: Any, **options: Any) -> None:
        writer = self._writer
        await super().disconnect(nowait, *arguments, **options)
        if nowait and writer is not None:
            writer.transport.abort()  # else TLS waits for the other side's goodbye, half a minute

    async def _connect(self) -> None:
        self._reader, self._writer = await open_stream(self.host, self.port, self._tls)


class AsyncPool(_Patient, redis.asyncio.connection.BlockingConnectionPool):  # type: ignore[misc]  # there it is an attribute
    """For the tasks of one event loop."""


class _NoCommands:
    """For a cluster client that sends no command whose keys it would have to find: the list of all commands has 200 kB."""

    async def initialize(self, node: object = None) -> None:
        pass


class Cluster(redis.cluster.RedisCluster):
    """Asks for the slots alone."""

    def command(self, **options: Any) -> dict[str, dict[str, Any]]:
        return {}


class AsyncCluster(redis.asyncio.cluster.RedisCluster):
    """Asks for the slots alone."""

    async def initialize(self, *arguments: Any, **options: Any) -> Any:
        self.commands_parser: Any = _NoCommands()
        return await super().initialize(*arguments, **options)
