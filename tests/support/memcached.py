"""A small client of Memcached's text protocol of our own, and what a proxy must know of it.

with Connection(port) as connection:
    connection("set", "key", 0, 100, 5, "value")  # the words of the line, then the data
    assert connection("gets", "key") == [b"VALUE key 0 5 1", b"value"]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from elasticache_sessions.clients.memcached_nodes import ranked
from tests.support import resp
from tests.support.resp import Argument, Incomplete, ReplyError

_WITH_DATA = {b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"ms"}
# The others are answered with one line.
_ANSWERED_UP_TO_END = {b"get", b"gets", b"gat", b"gats", b"stats", b"lru_crawler"}
_BUSY = b"BUSY "  # the server's own crawler is at work
_ERRORS = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")


def encode(*arguments: Argument) -> bytes:
    """A command as a client sends it."""
    words = [argument if isinstance(argument, bytes) else str(argument).encode() for argument in arguments]
    data = words.pop() + b"\r\n" if words[0] in _WITH_DATA else b""
    return b" ".join(words) + b"\r\n" + data


def parse_command(data: bytes | bytearray) -> tuple[list[bytes], int]:
    """The command at the beginning of `data` (its words, then what it stores), and where it ends."""
    line, end = _line(data, 0)
    words = line.split()
    if words and words[0] in _WITH_DATA:
        block, end = _block(data, end, int(words[2 if words[0] == b"ms" else 4]))
        words.append(block)
    return words, end


def parse_reply(data: bytes | bytearray, asked: list[bytes]) -> tuple[object, int]:
    """The reply at the beginning of `data` to the command `asked`, and where it ends.

    One line as it is; where several come, a list of them and of the values, without END; an error as a
    `ReplyError` object.
    """
    line, end = _line(data, 0)
    if line.startswith(_BUSY):
        return line, end
    if line.startswith(_ERRORS):
        return ReplyError(line.decode()), end
    if line.startswith(b"VA "):
        block, end = _block(data, end, int(line.split()[1]))
        return [line, block], end
    if not asked or asked[0] not in _ANSWERED_UP_TO_END:
        return line, end
    lines = []
    while line != b"END":
        lines.append(line)
        if line.startswith(b"VALUE "):
            block, end = _block(data, end, int(line.split()[3]))
            lines.append(block)
        line, end = _line(data, end)
    return lines, end


def _line(data: bytes | bytearray, start: int) -> tuple[bytes, int]:
    end = data.find(b"\r\n", start)
    # `lru_crawler metadump` ends its lines as Unix does.
    short = data.find(b"\n", start, end if end >= 0 else None)
    if short >= 0:
        return bytes(data[start:short]), short + 1
    if end < 0:
        raise Incomplete
    return bytes(data[start:end]), end + 2


def _block(data: bytes | bytearray, start: int, size: int) -> tuple[bytes, int]:
    end = start + size + 2
    if len(data) < end:
        raise Incomplete
    return bytes(data[start : end - 2]), end


def key_of(command: list[bytes]) -> bytes:
    """The key that a command is about."""
    place = 2 if command[0] in (b"gat", b"gats") else 1
    return command[place] if len(command) > place else b""


def by_claim(ports: tuple[int, ...], key: bytes, host: str = "127.0.0.1") -> list[int]:
    """The ports by their nodes' claim to `key`, the owner first."""
    return [int(name.rpartition(":")[2]) for name in ranked([f"{host}:{port}" for port in ports], key)]


def owner(ports: tuple[int, ...], key: bytes) -> int:
    """The port of the node that has `key`."""
    return by_claim(ports, key)[0]


class Connection(resp.Connection):
    """One connection; `connection("gets", key)` is the reply, as `parse_reply` says."""

    _asked: list[bytes]

    def __call__(self, *arguments: Argument) -> object:
        said = encode(*arguments)
        self._asked = parse_command(said)[0]
        self._socket.sendall(said)
        return self.read()

    def _parse(self) -> tuple[object, int]:
        return parse_reply(self._received, self._asked)


def command(port: int, *arguments: Argument) -> object:
    """One command on a connection of its own."""
    with Connection(port) as connection:
        return connection(*arguments)


def stats(port: int, *which: str, connect: Callable[[int], resp.Connection] = Connection) -> dict[str, str]:
    with connect(port) as connection:
        lines = connection("stats", *which)
    assert isinstance(lines, list)
    words = (line.decode().split(" ", 2) for line in lines)
    return {name: value for _, name, value in words}


def keys(connection: Callable[..., object]) -> list[bytes]:
    """Every key that has not expired. Walks the hash table, as the lists of the LRU change while one looks."""
    deadline = time.monotonic() + 10
    while not isinstance(lines := connection("lru_crawler", "metadump", "hash"), list):
        assert time.monotonic() < deadline, lines
        time.sleep(0.01)
    return [unquote_to_bytes(line.partition(b" ")[0].removeprefix(b"key=")) for line in lines]
