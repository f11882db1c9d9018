"""redis-py's connections and pools, which wait no longer than the running operation may. Imports redis at once.

redis-py resolves names in the request's own thread, gives each address of a name, each wait for a byte, and each wait for
a free connection its whole time limit, and knows none for all of it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final

import redis.asyncio.cluster
import redis.asyncio.connection
import redis.cluster
import redis.connection
from redis.exceptions import (
    ConnectionError as Broken,
    InvalidResponse,
    ResponseError,
    TimeoutError as TooLate,
)

from ..limit import running
from ..opaque import OpaqueBytes
from .network import Watched, open_socket, open_stream

hiredis: ModuleType | None
try:
    import hiredis
except ImportError:  # redis-py's own parser is slower, and as good
    hiredis = None

_MOST_AT_ONCE: Final = 65_536


class Connection(redis.connection.Connection):
    """For threads and greenlets. redis-py connects and signs in. What follows (`send`, `receive`) passes it by: what it does
    around each command takes longer than the system and the server do.
    """

    _sock: Any  # as redis-py calls it; a `Watched`

    def __init__(self, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]  # untyped in redis-py
        self._tls = tls
        self._replies: Any = None

    def send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """All of them as one piece; `receive` as often."""
        pieces: Any = self.pack_commands if hiredis is None else partial(map, hiredis.pack_command)
        packed = OpaqueBytes(b"".join(pieces(commands)))
        try:
            self._sock.sendall(packed)
        except TimeoutError as error:
            raise TooLate("Timeout writing to socket") from error
        except OSError as error:
            raise Broken(f"Error while writing to socket: {error.args}") from error

    def receive(self) -> object:
        """A reply. What the server calls an error is one, too: redis-py's exception. Raises such where there is none."""
        if hiredis is None:
            try:
                return self.read_response()
            except ResponseError as error:
                return error
        replies = self._replies
        reply = replies.gets()
        while reply is False:  # not all of it is there yet
            replies.feed(self._arrived())
            reply = replies.gets()
        return reply

    def _arrived(self) -> bytes:
        # In a frame of its own, which is gone before anything is made of what it has: a traceback may show variables.
        try:
            data: bytes = self._sock.recv(_MOST_AT_ONCE)
        except TimeoutError as error:
            raise TooLate("Timeout reading from socket") from error
        except OSError as error:
            raise Broken(f"Error while reading from socket: {error.args}") from error
        if not data:
            raise Broken("Connection closed by server.")
        return data

    @property
    def is_usable(self) -> bool:
        """Whether a command may be sent: it is open, and nothing that belongs to an earlier one waits to be read."""
        if self._replies is None:
            return self._sock is not None and not self.can_read()
        return self._sock is not None and self._sock.is_quiet() and not self._replies.has_data()

    def close(self) -> None:
        self.disconnect()  # type: ignore[no-untyped-call]  # as above

    def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """Within CONNECT_TIMEOUT: name, TCP, TLS, the user's name and password."""
        if self.is_connected:
            return
        try:
            with running().connecting():
                super().connect_check_health(*arguments, **options)
        except BaseException:  # a greenlet was killed, say, before it had signed in
            self.close()
            raise
        if hiredis is not None:
            if self.can_read():
                self.close()
                raise Broken("something came that nobody asked for")
            # One of our own: redis-py's is told to wait for what it reads.
            self._replies = hiredis.Reader(protocolError=InvalidResponse, replyError=self._parser.parse_error)

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


def opened(**options: Any) -> Connection:
    """A connection that is open from the beginning, as `pool.Pool` wants it."""
    connection = Connection(**options)
    options.clear()  # the password is among them, and a traceback may show variables
    connection.connect()  # type: ignore[no-untyped-call]  # as above
    return connection


class _Patient:
    """A pool where whoever finds no connection free waits for one as long as the operation may."""

    @property
    def timeout(self) -> float:
        return running().left()

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        """What the driver thinks right; it is not asked."""


class MapPool(_Patient, redis.connection.BlockingConnectionPool):
    """For threads and greenlets that ask for a cluster's map."""

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
