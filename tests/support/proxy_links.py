"""How a proxy carries what passes through it: the doors that clients knock at, and the links behind them."""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.support import resp
from tests.support.dialects import HOST, Command
from tests.support.proxy_tls import Secured
from tests.support.servers import free_port
from tests.support.traffic import Exchange

if TYPE_CHECKING:
    from tests.support.proxy import Proxy

# Nothing here should take long; a server that a test paused must not keep the proxy's threads for ever.
SEND_TIMEOUT = 10.0


class Door:
    """A port that leads to one server. Closed, it refuses connections, and nobody else can have it."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self._thread: threading.Thread | None = None
        while True:
            self.port = free_port()
            self._listener = socket.socket()
            try:
                self._listener.bind((HOST, self.port))
                return
            except OSError:  # another worker was faster
                self._listener.close()

    def open(self, serve: Callable[[Door, socket.socket], None]) -> None:
        if self._thread is None:
            self._listener.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # its own connections do not bar it
            self._listener.listen(512)
            self._thread = threading.Thread(target=serve, args=(self, self._listener), daemon=True)
            self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            # It stays bound: Linux only ends the listening. That wakes the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(SEND_TIMEOUT)
            self._thread = None
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    def give_up(self) -> None:
        """Leave the port to others."""
        self.close()
        self._listener.close()


class Link:
    """One client's connection, and those to the servers that it asks, all served by one thread."""

    def __init__(self, proxy: Proxy, client: socket.socket, door: int) -> None:
        self._proxy = proxy
        self._client = Secured(client, server_side=True) if proxy.dialect.tls else client
        self._door = door
        self._requests = bytearray()
        self._client_waits = False
        self._selector = selectors.DefaultSelector()
        self._servers: dict[int, _Server] = {}
        self._held: deque[tuple[_Server, Command, bytes]] = deque()
        try:
            self._server(door)
        except OSError:
            self._selector.close()
            raise
        _prepare(self._client)
        self._selector.register(self._client, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _server(self, port: int) -> _Server:
        if port not in self._servers:
            self._servers[port] = server = _Server(port, self._proxy.dialect.tls)
            self._selector.register(server.socket, selectors.EVENT_READ, server)
        return self._servers[port]

    def push(self, data: bytes) -> None:
        self._client.sendall(data)

    def shut(self) -> None:
        for side in (self._client, *[server.socket for server in list(self._servers.values())]):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            while self._serve({key.data for key, _ in self._selector.select()}):
                pass
        except OSError:
            pass
        except BaseException as error:  # a callback's; the test hears of it when it closes the proxy
            self._proxy.errors.append(error)
        finally:
            self._selector.close()
            for side in (self._client, *[server.socket for server in self._servers.values()]):
                side.close()
            self._proxy.links.discard(self)

    def _serve(self, ready: set[_Server | None]) -> bool:
        # The client first: a pipeline that arrives in pieces is one round trip, though the server may have
        # answered its first commands by now.
        if None in ready:
            return self._from_client()
        return all(self._from_server(server) for server in ready if server is not None)

    def _from_client(self) -> bool:
        try:
            data = self._client.recv(262_144)
        except BlockingIOError:
            return True
        self._requests += data
        open_ = bool(data)
        while self._requests:
            try:
                command, end = self._proxy.dialect.parse_command(self._requests)
            except resp.Incomplete:
                break
            raw = bytes(self._requests[:end])
            del self._requests[:end]
            self._proxy.count(command, waits=self._client_waits)
            self._client_waits = True
            exchange = Exchange(command, raw)
            if hook := self._proxy.take(self._proxy.request_hooks, command):
                hook.act(exchange)
            if self._proxy.take(self._proxy.request_rules, command):
                open_ = False
                break
            server = self._server(self._proxy.upstream_of(command, self._door))
            self._held.append((server, command, raw))
        self._pass_on()
        return open_

    def _pass_on(self) -> None:
        """What one server is asked at a time: the client is to have the replies in the order of its commands."""
        said = bytearray()
        while self._held:
            server, command, raw = self._held[0]
            if any(other.asked for other in self._servers.values() if other is not server):
                break
            self._held.popleft()
            server.asked.append(command)
            said += raw
            if not self._held or self._held[0][0] is not server:
                server.socket.sendall(said)
                said.clear()

    def _from_server(self, server: _Server) -> bool:
        try:
            data = server.socket.recv(262_144)
        except BlockingIOError:
            return True
        server.replies += data
        delivered = bytearray()
        open_ = bool(data)
        while server.replies:
            try:
                value, end = self._proxy.dialect.parse_reply(
                    server.replies, server.asked[0] if server.asked else []
                )
            except resp.Incomplete:
                break
            raw = bytes(server.replies[:end])
            del server.replies[:end]
            if raw.startswith(b">") or not server.asked:  # nobody asked for it
                delivered += raw
                continue
            command = server.asked.popleft()
            raw = self._proxy.translated(command, value, raw)
            exchange = Exchange(command, raw, value)
            if hook := self._proxy.take(self._proxy.reply_hooks, command):
                hook.act(exchange)
            if rule := self._proxy.take(self._proxy.reply_rules, command):
                raw = rule.act(exchange) or b""
                open_ = not rule.closes
            delivered += raw
            if not open_:
                break
        if delivered:
            if self._proxy.delay:
                self._proxy.closing.wait(self._proxy.delay)
            self._proxy.flowing.wait()
            self._client_waits = bool(self._requests or self._held) or any(
                each.asked for each in self._servers.values()
            )
            self._deliver(delivered)
            self._pass_on()
        return open_

    def _deliver(self, data: bytearray) -> None:
        if not self._proxy.drip:
            self._client.sendall(data)
            return
        for number in range(len(data)):
            self._client.sendall(data[number : number + 1])
            self._proxy.closing.wait(self._proxy.drip)


class _Server:
    """A link's connection to one server, with what was asked and not answered yet."""

    def __init__(self, port: int, tls: bool) -> None:
        connected = socket.create_connection((HOST, port), SEND_TIMEOUT)
        self.socket = Secured(connected, server_side=False) if tls else connected
        self.replies = bytearray()
        self.asked: deque[Command] = deque()
        _prepare(self.socket)


def _prepare(side: socket.socket | Secured) -> None:
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    side.settimeout(SEND_TIMEOUT)
