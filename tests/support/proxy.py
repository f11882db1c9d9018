"""A TCP proxy before a real server: it counts what a client costs, and loses what a test wants lost.

with Proxy(server.port) as proxy:
    client = connect(proxy.url)
    with proxy.counting() as count:
        client.get("key")
    assert (count.round_trips, count.connections) == (1, 0)

    proxy.lose_reply(when="EVALSHA")  # the next script runs on the server, and the client never hears of it
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from tests.support import dialects, memcached, resp
from tests.support.dialects import Command, Dialect
from tests.support.proxy_links import SEND_TIMEOUT, Door, Link
from tests.support.traffic import Count, Exchange, Rule, When, calling, name_of

__all__ = ["Command", "Count", "Exchange", "Proxy", "Rule"]


class Proxy:
    """In front of one server, or of every node of a cluster: `Proxy(*cluster.ports)`.

    Where each key belongs to one server by the clients' choice among names, they choose among the proxy's. So that
    those who come past the proxy find the same keys, it brings a command to the server that they would choose.

    A rule's `when` is a command's name, a function of the command with its arguments, or None: every command.
    Rules are tried in the order they were made, and the first that takes a command has it.
    """

    host = dialects.HOST

    def __init__(self, *upstreams: int, dialect: Dialect = dialects.RESP) -> None:
        assert upstreams, "a proxy needs the port of a server"
        self.dialect = dialect
        self.doors = [Door(upstream) for upstream in upstreams]
        self._lock = threading.Lock()
        self._total = Count()
        self._counts: list[Count] = [self._total]
        self.request_hooks: list[Rule] = []
        self.request_rules: list[Rule] = []
        self.reply_hooks: list[Rule] = []
        self.reply_rules: list[Rule] = []
        self.links: set[Link] = set()
        self.errors: list[BaseException] = []
        self.flowing = threading.Event()
        self.flowing.set()
        self.delay = self.drip = 0.0
        self.closing = threading.Event()
        self.accept()

    # Where it is

    @property
    def port(self) -> int:
        return self.doors[0].port

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(door.port for door in self.doors)

    @property
    def url(self) -> str:
        return self.dialect.url(self.ports)

    # What it saw

    @property
    def total(self) -> Count:
        """Everything since the proxy began."""
        return self._total

    @property
    def open_connections(self) -> int:
        return len(self.links)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Counts from here to the end of the block. What a client was answered is always counted already."""
        count = Count(copies=self.dialect.copies)
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
        return self._add(self.reply_rules, Rule(when, times, lambda exchange: None, closes=True))

    def cut_reply(self, *, when: When = None, times: int = 1, at: float = 0.5, closes: bool = True) -> Rule:
        """That part of the reply arrives, then the connection closes, or nothing comes any more."""
        cut = Rule(when, times, lambda exchange: exchange.raw[: int(len(exchange.raw) * at)], closes=closes)
        return self._add(self.reply_rules, cut)

    def replace_reply(self, data: bytes, *, when: When = None, times: int = 1) -> Rule:
        """These bytes arrive in the reply's place; the server has done what it was asked."""
        return self._add(self.reply_rules, Rule(when, times, lambda exchange: data))

    def extend_reply(self, more: bytes, *, when: When = None, times: int = 1) -> Rule:
        """These bytes follow the reply at once."""
        return self._add(self.reply_rules, Rule(when, times, lambda exchange: exchange.raw + more))

    def push(self, data: bytes) -> None:
        """Send these bytes to every client that is connected, though none has asked."""
        for link in list(self.links):
            with suppress(OSError):  # a client that has gone hears nothing
                link.push(data)

    def lose_request(self, *, when: When = None, times: int = 1) -> Rule:
        """The connection closes before the server hears of the command."""
        return self._add(self.request_rules, Rule(when, times, lambda exchange: None, closes=True))

    def on_request(
        self, callback: Callable[[Exchange], object], *, when: When = None, times: int | None = 1
    ) -> Rule:
        """Call back when a command has arrived, before the server gets it, or a rule loses it.

        The client waits meanwhile; other connections through the proxy go on, so the callback may use them.
        """
        return self._add(self.request_hooks, Rule(when, times, calling(callback)))

    def on_reply(
        self, callback: Callable[[Exchange], object], *, when: When = None, times: int | None = 1
    ) -> Rule:
        """Call back when the server has answered, before that is delivered, or a rule loses it."""
        return self._add(self.reply_hooks, Rule(when, times, calling(callback)))

    def delay_replies(self, seconds: float) -> None:
        """Deliver each reply that much later, from now on."""
        self.delay = seconds

    def drip_replies(self, pause: float) -> None:
        """Deliver each reply byte by byte, and wait `pause` seconds after each, from now on."""
        self.drip = pause

    def hold_replies(self) -> None:
        """Deliver nothing, as a network that swallows packets, until `release_replies`."""
        self.flowing.clear()

    def release_replies(self) -> None:
        self.flowing.set()

    def refuse(self) -> None:
        """Refuse new connections, as a port on which nobody listens; those that are open go on."""
        for door in self.doors:
            door.close()

    def accept(self) -> None:
        """Take connections again."""
        for door in self.doors:
            door.open(self._accept_from)

    def close_connections(self) -> None:
        """Close every connection; new ones are welcome."""
        for link in list(self.links):
            link.shut()

    def go_down(self) -> None:
        """As a server that is gone: no connection stays, none can be made."""
        self.refuse()
        self.close_connections()

    def heal(self) -> None:
        """Take back every fault and every callback."""
        for rules in (self.request_hooks, self.request_rules, self.reply_hooks, self.reply_rules):
            rules.clear()
        self.delay = self.drip = 0.0
        self.release_replies()
        self.accept()

    # How it works

    def _add(self, rules: list[Rule], rule: Rule) -> Rule:
        with self._lock:
            rules.append(rule)
        return rule

    # For its links

    def count(self, command: Command, *, waits: bool) -> None:
        """A command arrived; `waits`: while its client was waiting for another."""
        with self._lock:
            for count in self._counts:
                count.round_trips += not waits
                count.commands.append(command)

    def upstream_of(self, command: Command, door: int) -> int:
        """The port of the server that a command goes to, which came in by the door to `door`."""
        upstreams = tuple(each.upstream for each in self.doors)
        if not self.dialect.routed or len(upstreams) == 1:
            return door
        key = memcached.key_of(command)
        owners = memcached.by_claim(upstreams, key)
        # The second copy comes in by the second-ranked door, and goes to the second-ranked server.
        rank = memcached.by_claim(self.ports, key).index(self.ports[upstreams.index(door)])
        return owners[rank if rank < self.dialect.copies else 0]

    def translated(self, command: Command, value: object, raw: bytes) -> bytes:
        """The nodes' own ports, where a cluster tells them, become this proxy's."""
        if self.dialect.routed:
            return raw
        if name_of(command) == "CLUSTER" or (
            isinstance(value, resp.ReplyError) and str(value).startswith(("MOVED ", "ASK "))
        ):
            for door in self.doors:
                # Both have five digits (see servers.PORTS), so every length in the reply stays right.
                raw = raw.replace(b"%d" % door.upstream, b"%d" % door.port)
        return raw

    def take(self, rules: list[Rule], command: Command) -> Rule | None:
        with self._lock:
            for rule in rules:
                if rule.takes(command):
                    rule.fired += 1
                    return rule
        return None

    def _accept_from(self, door: Door, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                for count in self._counts:
                    count.connections += 1
            try:
                link = Link(self, client, door.upstream)
            except OSError:
                client.close()  # a client of a server that is down sees a closed connection
                continue
            self.links.add(link)
            if self.closing.is_set():
                link.shut()
            link.thread.start()

    def close(self) -> None:
        self.closing.set()
        for door in self.doors:
            door.give_up()
        self.release_replies()
        for link in list(self.links):
            link.shut()
            link.thread.join(SEND_TIMEOUT)
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        try:
            self.close()
        except BaseException:
            if kind is None:  # else the test's own failure says more
                raise
