"""A configuration endpoint as ElastiCache has one: it tells which Memcached nodes there are.

with DiscoveryEndpoint(*nodes.ports) as endpoint:
    connect(endpoint.url)
    endpoint.set_nodes(*nodes.ports[1:])  # whoever asks from now on is told of these
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlencode

from tests.support.certificates import authority
from tests.support.demo import wait_until
from tests.support.dialects import HOST
from tests.support.proxy_links import SEND_TIMEOUT, Door

Node = int | str
"""A port of this machine; a name, "host:port"; or as the endpoint tells it, "host|ip|port"."""


class DiscoveryEndpoint:
    """Speaks `config get cluster` and nothing else, in front of memcached processes that somebody else runs.

    Like theirs, its version rises with each change. It takes any number of connections, and counts how often it was `asked`.
    """

    host = HOST

    def __init__(self, *nodes: Node, tls: bool = False, version: int = 1) -> None:
        self.asked = 0
        self.version = version
        self._tls = authority() if tls else None
        self._nodes = [_told(node) for node in nodes]
        self._reply: bytes | None = None
        """In the place of the answer: these bytes."""
        self._silent = self._closes = False
        self._drip = 0.0
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._door = Door(0)
        self._door.open(self._accept_from)

    # Where it is

    @property
    def port(self) -> int:
        return self._door.port

    @property
    def url(self) -> str:
        return self.url_with()

    def url_with(self, **options: object) -> str:
        """`url_with(copies=2)`."""
        tls = {"tls": "true", "ca_file": self._tls.ca_file} if self._tls else {}
        query = urlencode(tls | options, safe="/")
        return f"memcached+discovery://{HOST}:{self.port}{'?' * bool(query)}{query}"

    # What it tells

    def set_nodes(self, *nodes: Node) -> None:
        """From now on, in a new version."""
        with self._lock:
            self._nodes = [_told(node) for node in nodes]
            self.version += 1

    @property
    def answer(self) -> bytes:
        """What it tells, when all is well."""
        with self._lock:
            told = f"{self.version}\n{' '.join(self._nodes)}\n".encode()
        return b"CONFIG cluster 0 %d\r\n%s\r\nEND\r\n" % (len(told), told)

    def is_asked(self, times: int = 1, seconds: float = 20) -> None:
        """Wait until it was asked so often, from now on. Of two that came from one client, the second began after the
        client had the first one's answer.
        """
        before = self.asked
        wait_until(lambda: self.asked - before >= times, seconds, f"the endpoint was asked {times} times")

    # What it breaks

    def reply_with(self, data: bytes | None) -> None:
        """These bytes, whatever it is asked; None: it takes the question, and never answers."""
        self._reply, self._silent = data, data is None

    def close_when_asked(self) -> None:
        """Close the connection behind the answer; without one, after `reply_with(b"")`."""
        self._closes = True

    def drip(self, pause: float) -> None:
        """Answer byte by byte, and wait `pause` seconds after each."""
        self._drip = pause

    def go_down(self) -> None:
        """No connection stays, none can be made."""
        self._door.close()
        self.close_connections()

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def heal(self) -> None:
        """Take back every fault."""
        self._reply, self._silent, self._closes, self._drip = None, False, False, 0.0
        self._door.open(self._accept_from)

    # How it works

    def _accept_from(self, door: Door, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls:
            connection = self._tls.server.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self._lock:
            self._connections.add(connection)
        try:
            with suppress(OSError), connection, connection.makefile("rb") as lines:
                while not self._closing.is_set() and (line := lines.readline()):
                    words = line.split()
                    if words == [b"quit"] or not self._tell(connection, words):
                        return
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _tell(self, connection: socket.socket, words: list[bytes]) -> bool:
        """Whether the connection stays open."""
        known = words == [b"config", b"get", b"cluster"]
        with self._lock:
            self.asked += known
        if self._silent:
            return True
        answer = self._reply if self._reply is not None else self.answer if known else b"ERROR\r\n"
        if not self._drip:
            connection.sendall(answer)
        for number in range(len(answer) if self._drip else 0):
            connection.sendall(answer[number : number + 1])
            self._closing.wait(self._drip)
        return not self._closes

    def close(self) -> None:
        self._closing.set()
        self._door.give_up()
        self.close_connections()
        wait_until(lambda: not self._connections, SEND_TIMEOUT, "the endpoint's connections are closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _told(node: Node) -> str:
    """As the endpoint tells of it: `host|ip|port`."""
    if isinstance(node, int):
        return f"{HOST}|{HOST}|{node}"
    if "|" in node:
        return node
    host, _, port = node.rpartition(":")
    return f"{host}||{port}"
