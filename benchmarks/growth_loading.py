"""Many records into a server, fast, past every driver; and what the server says of its memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from hiredis import pack_command

from tests.support.servers import Server

from .growth_records import LIFETIME, Kept

Stored = tuple[bytes, bytes, int]
"""Key, value and flags of a record."""
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Memory:
    """What a server has in use, in bytes."""

    used: int
    """By what is stored, as the server counts it: `used_memory`; of Memcached, the items."""
    held: int
    """With what the allocator holds: the resident memory; of Memcached, the chunks that items sit in."""


def load(server: Server, records: Iterable[Stored], memcached: bool) -> None:
    with socket.create_connection((server.host, server.port)) as connection:
        for batch in batches(records, _BATCH):
            connection.sendall(b"".join(_stored(batch, memcached)))
            _answers(connection, (b"STORED\r\n" if memcached else b"+OK\r\n") * len(batch))


def packed(*words: Any) -> bytes:
    """A command as Valkey and Redis are sent it."""
    command: bytes = pack_command(words)
    return command


def batches(records: Iterable[Stored], size: int) -> Iterator[list[Stored]]:
    rest = iter(records)
    while batch := list(islice(rest, size)):
        yield batch


def _stored(batch: Iterable[Stored], memcached: bool) -> Iterable[bytes]:
    for key, value, flags in batch:
        if memcached:
            yield b"set %b %d %d %d\r\n%b\r\n" % (key, flags, LIFETIME, len(value), value)
        else:
            yield packed("SET", key, value, "EX", LIFETIME)


def _answers(connection: socket.socket, expected: bytes) -> None:
    heard = b""
    while len(heard) < len(expected):
        more = connection.recv(65_536)
        if not more:
            raise ConnectionError("the server closed the connection")
        heard += more
    if heard != expected:
        raise ConnectionError(f"the server said {heard[:200]!r}")


def flat(kept: Kept) -> Stored:
    return kept.key, kept.value, kept.flags


def memory(server: Server, memcached: bool) -> Memory:
    return _of_memcached(server) if memcached else _of_redis(server)


def _of_redis(server: Server) -> Memory:
    """Once it stands still: a table that grows moves over a little at a time."""
    before = -1
    while True:
        info = server.command("INFO", "memory")
        assert isinstance(info, bytes)
        found = dict(line.split(":", 1) for line in info.decode().split() if ":" in line)
        used = int(found["used_memory"])
        if abs(used - before) < 100_000:
            return Memory(used, int(found["used_memory_rss"]))
        before = used
        time.sleep(1)


def _of_memcached(server: Server) -> Memory:
    stats, slabs = _stats(server), _stats(server, "slabs")
    assert stats["evictions"] == 0, "it needs more memory: -m"
    chunks = sum(
        slabs[f"{number}:chunk_size"] * value
        for name, value in slabs.items()
        if name.endswith(":used_chunks")
        for number in [name.partition(":")[0]]
    )
    return Memory(stats["bytes"], chunks)


def _stats(server: Server, *which: str) -> dict[str, int]:
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(" ".join(("stats", *which)).encode() + b"\r\n")
        said = b""
        while not said.endswith(b"END\r\n"):
            said += connection.recv(65_536)
    words: list[Any] = [line.split() for line in said.decode().splitlines()[:-1]]
    return {name: int(value) for _, name, value in words if value.isdigit()}
