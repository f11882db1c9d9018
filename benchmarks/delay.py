"""A wire that takes its time: a TCP proxy in a process of its own, which hands on what it gets a set time later, either way."""

from __future__ import annotations

import multiprocessing
import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Final

SPIN: Final = 0.000_15
"""Seconds that the proxy spends looking instead of sleeping before something is due: a sleep ends when it likes."""
CHUNK: Final = 1 << 20
ANSWER_TIME: Final = 10.0


@contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """The port of such a proxy before `port`, `seconds` long in each direction."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(port, seconds, theirs), daemon=True)
    process.start()
    try:
        assert ours.poll(ANSWER_TIME), "the delaying proxy did not start"
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _serve(port: int, seconds: float, pipe: Connection) -> None:
    with suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        Wire(listener, port, seconds).run()


class Wire:
    def __init__(self, listener: socket.socket, port: int, seconds: float) -> None:
        self._listener = listener
        self._port = port
        self._seconds = seconds
        self._ends: dict[socket.socket, socket.socket] = {}
        """Each socket, and the one at the other end."""
        self._under_way: deque[tuple[float, socket.socket, bytes]] = deque()
        """When it is due, where, and what; nothing says that the other end is gone. The delay is one for all, so these are in
        order.
        """

    def run(self) -> None:
        while True:
            for ready in self._wait():
                if ready is self._listener:
                    self._connect()
                elif ready in self._ends:
                    self._take(ready)
            while self._under_way and self._under_way[0][0] <= perf_counter():
                self._hand_over(*self._under_way.popleft()[1:])

    def _wait(self) -> list[socket.socket]:
        limit = None
        if self._under_way:
            limit = max(0.0, self._under_way[0][0] - perf_counter() - SPIN)
        return select.select([self._listener, *self._ends], [], [], limit)[0]

    def _connect(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._port))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ends[client], self._ends[server] = server, client

    def _take(self, end: socket.socket) -> None:
        data = b""
        with suppress(ConnectionError):
            data = end.recv(CHUNK)
        if other := self._ends.get(end):
            self._under_way.append((perf_counter() + self._seconds, other, data))
        if not data:
            del self._ends[end]
            end.close()

    def _hand_over(self, end: socket.socket, data: bytes) -> None:
        if end not in self._ends:
            return
        if not data:
            del self._ends[end]
            end.close()
            return
        with suppress(ConnectionError):
            end.sendall(data)
