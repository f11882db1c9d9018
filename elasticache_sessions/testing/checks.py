"""What a check is, and what checks are made of."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator
from typing import Any

from ..clients.base import Command, Look, Read, Scan
from ..record import Header, Kind, Record, pack
from ..settle import Sleep

Question = Command | Look | Scan | Sleep
Check = Callable[[], Generator[Question, Any, None]]


def new_key() -> bytes:
    return b"sess:contract:" + secrets.token_hex(8).encode()


def new_value(
    kind: Kind = Kind.LIVE, *, idle_ttl: int = 0, expires_at: int = 0, content: bytes = b"\xc0"
) -> bytes:
    header = Header(kind, 1, (secrets.token_bytes(6),), int(time.time()), 0, expires_at, idle_ttl)
    return pack(Record(header, {"field": content}))


def until_gone(*keys: bytes) -> Generator[Question, Any, None]:
    """Wait for a TTL of a second to end. Some stores count in whole seconds, by a clock that may tick late."""
    for key in keys:
        for _ in range(50):
            if (yield Read(key)) is None:
                break
            yield Sleep(0.1)
        assert (yield Read(key)) is None
