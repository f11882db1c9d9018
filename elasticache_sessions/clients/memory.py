"""Sessions in this process's memory: for development, tests and trying things out. Gone when the process
ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from ..exceptions import DecodeError
from ..record import Kind, head
from .base import (
    ABSENT,
    Command,
    Conflict,
    Entry,
    Glance,
    Look,
    Page,
    Read,
    Replace,
    Reply,
    Scan,
    Stored,
    slides_to,
)

_SWEEP_EVERY: Final = 1_000

_shared: dict[str, MemoryClient] = {}
_shared_lock: Final = threading.Lock()


class MemoryClient:
    """One store in memory, for any number of threads and event loops."""

    blind_touch = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # key -> value, number of its version, when its TTL ends
        self._entries: dict[bytes, tuple[bytes, int, float]] = {}
        self._versions = 0

    @classmethod
    def shared(cls, name: str) -> MemoryClient:
        """The one store of that name in this process, so that two apps with one URL share their sessions."""
        with _shared_lock:
            return _shared.setdefault(name, cls())

    def perform(self, command: Command) -> Reply:
        with self._lock:
            if isinstance(command, Read):
                return self._read(command)
            entry = self._entry(command.key)
            if isinstance(command, Replace):
                if entry is not None:
                    self._put(command.key, command.value, command.ttl)
                return entry is not None
            if (ABSENT if entry is None else entry.token) != command.token:
                return Conflict(entry)
            return Stored(self._put(command.key, command.value, command.ttl))

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self._lock:
            found = [self._entry(key) for key in question.keys]
        return tuple(None if entry is None else Glance(entry.value, entry.ttl_left) for entry in found)

    def scan(self, question: Scan) -> Page:
        return Page(tuple(key for key in self.keys() if key.startswith(question.prefix)), None)

    def close(self) -> None:
        """Nothing to close; the sessions stay for as long as the process."""

    # For tests and tools: what is there.

    def keys(self) -> Iterator[bytes]:
        with self._lock:
            self._sweep()
            return iter(list(self._entries))

    def ttl(self, key: bytes) -> float | None:
        """Seconds until `key` is dropped; None if there is none."""
        with self._lock:
            entry = self._entry(key)
            return None if entry is None else entry.ttl_left

    def put(self, key: bytes, value: bytes, ttl: float) -> None:
        """Store any bytes, whatever is there."""
        with self._lock:
            self._put(key, value, ttl)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def _read(self, command: Read) -> Entry | None:
        entry = self._entry(command.key)
        if entry is None or command.touch is None or entry.ttl_left is None:
            return entry
        try:
            header = head(entry.value)
        except DecodeError:
            return entry
        if header.kind is not Kind.LIVE:
            return entry
        ttl = slides_to(command.touch, header.idle_ttl, header.expires_at, command.now, entry.ttl_left)
        if ttl is None:
            return entry
        value, version, _ = self._entries[command.key]
        self._entries[command.key] = (value, version, self._clock() + ttl)
        return Entry(entry.value, entry.token, float(ttl))

    def _entry(self, key: bytes) -> Entry | None:
        found = self._entries.get(key)
        if found is None:
            return None
        value, version, ends = found
        left = ends - self._clock()
        if left <= 0:
            del self._entries[key]
            return None
        return Entry(value, version.to_bytes(8, "big"), left)

    def _put(self, key: bytes, value: bytes, ttl: float) -> bytes:
        self._versions += 1
        if self._versions % _SWEEP_EVERY == 0:
            self._sweep()
        self._entries[key] = (value, self._versions, self._clock() + ttl)
        return self._versions.to_bytes(8, "big")

    def _sweep(self) -> None:
        now = self._clock()
        for key in [key for key, (_, _, ends) in self._entries.items() if ends <= now]:
            del self._entries[key]


class AsyncMemoryClient:
    """The same store for an event loop; it never blocks for longer than a dict access."""

    blind_touch = False

    def __init__(self, client: MemoryClient) -> None:
        self._client = client

    async def perform(self, command: Command) -> Reply:
        return self._client.perform(command)

    async def look(self, question: Look) -> tuple[Glance | None, ...]:
        return self._client.look(question)

    async def scan(self, question: Scan) -> Page:
        return self._client.scan(question)

    async def aclose(self) -> None:
        self._client.close()
