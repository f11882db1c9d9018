"""A TCP proxy before a real server: it counts what a client costs, and loses what a test wants lost.

with Proxy(server.port) as proxy:
    client = connect(proxy.url)
    with proxy.counting() as count:
        client.get("key")
    assert (count.round_trips, count.connections) == (1, 0)

    proxy.lose_reply(when="EVALSHA")  # the next script runs on the server, and the client never hears of it
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from tests.support import resp
from tests.support.servers import free_port

Command = list[bytes]
When = str | Callable[[Command], bool] | None

# Nothing here should take long; a server that a test paused must not keep the proxy's threads for ever.
SEND_TIMEOUT = 10.0


@dataclass(slots=True)
class Count:
    """What went through a proxy during a `counting()` block."""

    round_trips: int = 0
    """How often a client sent something and then waited: a pipeline is one."""
    connections: int = 0
    """How many connections were made. One that sends nothing may be counted late."""
    commands: list[Command] = field(default_factory=list)
    """Every command with its arguments, in the order of arrival."""

    @property
    def names(self) -> list[str]:
        """The commands without their arguments: `["EVALSHA", "GET"]`."""
        return [_name(command) for command in self.commands]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One command and, once there is one, the server's reply: the bytes, and what they say."""

    command: Command
    raw: bytes = b""
    reply: object = None


@dataclass(slots=True)
class Rule:
    """Something to do to the commands that match, `times` times (None: until cancelled)."""

    when: When
    times: int | None
    act: Callable[[Exchange], bytes | None]
    """Returns what is passed on, if anything."""
    closes: bool = False
    """Whether the connection is closed after that."""
    fired: int = 0
    """How often it was done: what a test asserts, so that it cannot pass with the fault never injected."""

    def cancel(self) -> None:
        self.times = 0

    def takes(self, command: Command) -> bool:
        if self.times is not None and self.fired >= self.times:
            return False
        if isinstance(self.when, str):
            return _name(command) == self.when.upper()
        return self.when is None or self.when(command)


def _calling(callback: Callable[[Exchange], object]) -> Callable[[Exchange], bytes]:
    def act(exchange: Exchange) -> bytes:
        callback(exchange)
        return exchange.raw

    return act


def _name(command: Command) -> str:
    return command[0].decode(errors="replace").upper() if command else ""


class Proxy:
    """In front of one server, or of every node of a cluster: `Proxy(*cluster.ports)`.

    A rule's `when` is a command's name, a function of the command with its arguments, or None: every command.
    Rules are tried in the order they were made, and the first that takes a command has it.
    """

    host = "127.0.0.1"

    def __init__(self, *upstreams: int) -> None:
        assert upstreams, "a proxy needs the port of a server"
        self._doors = [_Door(upstream) for upstream in upstreams]
        self._lock = threading.Lock()
        self._total = Count()
        self._counts: list[Count] = [self._total]
        self._request_hooks: list[Rule] = []
        self._request_rules: list[Rule] = []
        self._reply_hooks: list[Rule] = []
        self._reply_rules: list[Rule] = []
        self._links: set[_Link] = set()
        self._errors: list[BaseException] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._delay = 0.0
        self._closing = threading.Event()
        self.accept()

    # Where it is

    @property
    def port(self) -> int:
        return self._doors[0].port

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(door.port for door in self._doors)

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}" + ("?cluster=true" if len(self._doors) > 1 else "")

    # What it saw

    @property
    def total(self) -> Count:
        """Everything since the proxy began."""
        return self._total

    @property
    def open_connections(self) -> int:
        return len(self._links)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Counts from here to the end of the block. What a client was answered is always counted already."""
        count = Count()
        with self._lock:
            self._counts.append(count)
        try:
            yield count
        finally:
            with self._lock:
                self._counts = [other for other in self._counts if other is not count]

    # What it breaks

    def lose_reply(self, *, when: When = None, times: int = 1) -> Rule:
        """The server does it; its reply is waited for and thrown away, and the connection closed."""
        return self._add(self._reply_rules, Rule(when, times, lambda exchange: None, closes=True))

    def cut_reply(self, *, when: When = None, times: int = 1) -> Rule:
        """Half of the reply arrives, then the connection closes."""
        cut = Rule(when, times, lambda exchange: exchange.raw[: len(exchange.raw) // 2], closes=True)
        return self._add(self._reply_rules, cut)

    def replace_reply(self, data: bytes, *, when: When = None, times: int = 1) -> Rule:
        """These bytes arrive in the reply's place; the server has done what it was asked."""
        return self._add(self._reply_rules, Rule(when, times, lambda exchange: data))

    def lose_request(self, *, when: When = None, times: int = 1) -> Rule:
        """The connection closes before the server hears of the command."""
        return self._add(self._request_rules, Rule(when, times, lambda exchange: None, closes=True))

    def on_request(
        self, callback: Callable[[Exchange], object], *, when: When = None, times: int | None = 1
    ) -> Rule:
        """Call back when a command has arrived, before the server gets it, or a rule loses it.

        The client waits meanwhile; other connections through the proxy go on, so the callback may use them.
        """
        return self._add(self._request_hooks, Rule(when, times, _calling(callback)))

    def on_reply(
        self, callback: Callable[[Exchange], object], *, when: When = None, times: int | None = 1
    ) -> Rule:
        """Call back when the server has answered, before that is delivered, or a rule loses it."""
        return self._add(self._reply_hooks, Rule(when, times, _calling(callback)))

    def delay_replies(self, seconds: float) -> None:
        """Deliver each reply that much later, from now on."""
        self._delay = seconds

    def hold_replies(self) -> None:
        """Deliver nothing, as a network that swallows packets, until `release_replies`."""
        self._flowing.clear()

    def release_replies(self) -> None:
        self._flowing.set()

    def refuse(self) -> None:
        """Refuse new connections, as a port on which nobody listens; those that are open go on."""
        for door in self._doors:
            door.close()

    def accept(self) -> None:
        """Take connections again."""
        for door in self._doors:
            door.open(self._accept_from)

    def close_connections(self) -> None:
        """Close every connection; new ones are welcome."""
        for link in list(self._links):
            link.shut()

    def go_down(self) -> None:
        """As a server that is gone: no connection stays, none can be made."""
        self.refuse()
        self.close_connections()

    def heal(self) -> None:
        """Take back every fault and every callback."""
        for rules in (self._request_hooks, self._request_rules, self._reply_hooks, self._reply_rules):
            rules.clear()
        self._delay = 0.0
        self.release_replies()
        self.accept()

    # How it works

    def _add(self, rules: list[Rule], rule: Rule) -> Rule:
        with self._lock:
            rules.append(rule)
        return rule

    def _take(self, rules: list[Rule], command: Command) -> Rule | None:
        with self._lock:
            for rule in rules:
                if rule.takes(command):
                    rule.fired += 1
                    return rule
        return None

    def _accept_from(self, door: _Door, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with self._lock:
                    for count in self._counts:
                        count.connections += 1
                try:
                    server = socket.create_connection((self.host, door.upstream), SEND_TIMEOUT)
                except OSError:
                    client.close()  # a client of a server that is down sees a closed connection
                    continue
                link = _Link(self, client, server)
                self._links.add(link)
                if self._closing.is_set():
                    link.shut()
                link.thread.start()

    def close(self) -> None:
        self._closing.set()
        self.refuse()
        self.release_replies()
        for link in list(self._links):
            link.shut()
            link.thread.join(SEND_TIMEOUT)
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        try:
            self.close()
        except BaseException:
            if kind is None:  # else the test's own failure says more
                raise


class _Door:
    """A port that leads to one server."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        while True:
            self.port = free_port()
            with suppress(OSError):  # another worker may have been faster
                self._listen()
                return

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((Proxy.host, self.port))
            listener.listen(512)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        return listener

    def open(self, serve: Callable[[_Door, socket.socket], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=serve, args=(self, self._listener or self._listen()), daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        if self._thread is not None and self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts, which closes it
            self._thread.join(SEND_TIMEOUT)
            self._listener = self._thread = None


class _Link:
    """One client's connection and the one to the server, both served by one thread."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._requests = bytearray()
        self._replies = bytearray()
        self._asked: deque[Command] = deque()
        self._client_waits = False
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            side.settimeout(SEND_TIMEOUT)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def shut(self) -> None:
        for side in (self._client, self._server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            with self._client, self._server, selectors.DefaultSelector() as selector:
                selector.register(self._client, selectors.EVENT_READ)
                selector.register(self._server, selectors.EVENT_READ)
                open_ = True
                while open_:
                    ready = {key.fileobj for key, _ in selector.select()}
                    # The client first: a pipeline that arrives in pieces is one round trip, though the server may have
                    # answered its first commands by now.
                    if self._client in ready:
                        open_ = self._from_client()
                    elif self._server in ready:
                        open_ = self._from_server()
        except OSError:
            pass
        except BaseException as error:  # a callback's; the test hears of it when it closes the proxy
            self._proxy._errors.append(error)
        finally:
            self._proxy._links.discard(self)

    def _from_client(self) -> bool:
        data = self._client.recv(262_144)
        self._requests += data
        passed = bytearray()
        open_ = bool(data)
        while self._requests:
            try:
                value, end = resp.parse(self._requests)
            except resp.Incomplete:
                break
            raw = bytes(self._requests[:end])
            del self._requests[:end]
            command = [part for part in value if isinstance(part, bytes)] if isinstance(value, list) else []
            self._count(command)
            exchange = Exchange(command, raw)
            if hook := self._proxy._take(self._proxy._request_hooks, command):
                hook.act(exchange)
            if self._proxy._take(self._proxy._request_rules, command):
                open_ = False
                break
            self._asked.append(command)
            passed += raw
        if passed:
            self._server.sendall(passed)
        return open_

    def _count(self, command: Command) -> None:
        with self._proxy._lock:
            for count in self._proxy._counts:
                count.round_trips += not self._client_waits
                count.commands.append(command)
        self._client_waits = True

    def _from_server(self) -> bool:
        data = self._server.recv(262_144)
        self._replies += data
        delivered = bytearray()
        open_ = bool(data)
        while self._replies:
            try:
                value, end = resp.parse(self._replies)
            except resp.Incomplete:
                break
            raw = bytes(self._replies[:end])
            del self._replies[:end]
            if raw.startswith(b">") or not self._asked:  # nobody asked for it
                delivered += raw
                continue
            command = self._asked.popleft()
            raw = self._translated(command, value, raw)
            exchange = Exchange(command, raw, value)
            if hook := self._proxy._take(self._proxy._reply_hooks, command):
                hook.act(exchange)
            if rule := self._proxy._take(self._proxy._reply_rules, command):
                raw = rule.act(exchange) or b""
                open_ = not rule.closes
            delivered += raw
            if not open_:
                break
        if delivered:
            if self._proxy._delay:
                self._proxy._closing.wait(self._proxy._delay)
            self._proxy._flowing.wait()
            self._client_waits = bool(self._asked or self._requests)
            self._client.sendall(delivered)
        return open_

    def _translated(self, command: Command, value: object, raw: bytes) -> bytes:
        """The nodes' own ports, where a cluster tells them, become this proxy's."""
        if len(self._proxy._doors) == 1:
            return raw
        if _name(command) == "CLUSTER" or (
            isinstance(value, resp.ReplyError) and str(value).startswith(("MOVED ", "ASK "))
        ):
            for door in self._proxy._doors:
                # Both have five digits (see servers.PORTS), so every length in the reply stays right.
                raw = raw.replace(b"%d" % door.upstream, b"%d" % door.port)
        return raw
