"""A small RESP client of our own, so that a test looks into a store without the driver it is testing."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.certificates import authority

Argument = bytes | str | int | float


class ReplyError(Exception):
    """The server answered with an error, such as `MOVED 42 127.0.0.1:20001`."""


class Incomplete(Exception):
    """The bytes end before the message does."""


def encode(*arguments: Argument) -> bytes:
    """A command as a client sends it: an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def parse(data: bytes | bytearray, start: int = 0) -> tuple[object, int]:
    """The message that begins at `start` and where it ends; an error comes as a `ReplyError` object.

    Reads RESP2 and RESP3, which share one grammar, and so a client's commands as well as a server's replies.
    Maps come as flat lists: no test here needs more.
    """
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        raise Incomplete
    marker, line, end = data[start : start + 1], bytes(data[start + 1 : line_end]), line_end + 2
    if marker in (b"$", b"=", b"!"):
        if (length := int(line)) < 0:
            return None, end
        if len(data) < end + length + 2:
            raise Incomplete
        value: object = bytes(data[end : end + length])
        end += length + 2
        return (ReplyError(value.decode()) if marker == b"!" and isinstance(value, bytes) else value), end
    if marker in (b"*", b"~", b">", b"%"):
        if (length := int(line)) < 0:
            return None, end
        items = []
        for _ in range(length * 2 if marker == b"%" else length):
            item, end = parse(data, end)
            items.append(item)
        return items, end
    if marker == b"-":
        return ReplyError(line.decode()), end
    if marker == b":":
        return int(line), end
    if marker == b"_":
        return None, end
    if marker == b"#":
        return line == b"t", end
    if marker == b",":
        return float(line), end
    if marker in (b"+", b"("):
        return line, end
    # Commands may also come as one plain line, as a person types them.
    return bytes(data[start:line_end]).split(), end


def parse_command(data: bytes | bytearray) -> tuple[list[bytes], int]:
    """The command at the beginning of `data`, and where it ends."""
    value, end = parse(data)
    return [part for part in value if isinstance(part, bytes)] if isinstance(value, list) else [], end


class Connection:
    """One connection; `connection("GET", key)` is the reply as bytes, int, list or None.

    `tls`: speak TLS. `login`: a user and a password.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        timeout: float = 10,
        *,
        tls: bool = False,
        login: tuple[str, str] | None = None,
    ) -> None:
        self._socket: socket.socket = socket.create_connection((host, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        try:
            if tls:
                self._socket = authority().client.wrap_socket(self._socket, server_hostname=host)
            if login is not None:
                self("AUTH", *login)
        except BaseException:
            self.close()
            raise

    def __call__(self, *arguments: Argument) -> object:
        self._socket.sendall(encode(*arguments))
        return self.read()

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[object]:
        """Send several commands at once, then read as many replies."""
        self._socket.sendall(b"".join(encode(*command) for command in commands))
        return [self.read() for _ in commands]

    def read(self) -> object:
        while True:
            with suppress(Incomplete):
                value, end = self._parse()
                del self._received[:end]
                break
            if not (data := self._socket.recv(65_536)):
                raise ConnectionError("the server closed the connection")
            self._received += data
        if isinstance(value, ReplyError):
            raise value
        return value

    def _parse(self) -> tuple[object, int]:
        return parse(self._received)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def command(port: int, *arguments: Argument) -> object:
    """One command on a connection of its own."""
    with Connection(port) as connection:
        return connection(*arguments)
