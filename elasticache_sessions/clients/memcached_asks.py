"""What a single Memcached node is asked, and what comes back: the words between the protocol (`memcached_copies`,
`memcached_handover`), which decides and does no I/O, and `memcached_flight`, which asks and decides nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from .base import Command, Reply


@dataclass(frozen=True, slots=True)
class Left:
    """How long a key still lives. Reply: seconds, as an int; -1: for ever; None: nothing is there."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to one node. A `Write` that conflicts is answered with `Conflict(None)`, unread."""

    node: str
    command: Command | Left


class Down(Enum):
    """Instead of a reply: the node is known to be down (its breaker is open), and somebody else answered."""

    DOWN = "down"


class Renew(Enum):
    """Ask discovery now, and wait for what it says, as the view of the nodes seems to be old. Reply: `Nodes`."""

    RENEW = "renew"


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something to count: "repaired", "moved". No reply."""

    name: str


DOWN: Final = Down.DOWN
RENEW: Final = Renew.RENEW
Answer = Reply | int | Down

T = TypeVar("T")
Flight = Generator[Sequence[Ask] | Renew | Noticed, Any, T]
"""A protocol: yields what is to be asked in one flight, all of it under way at once, and receives the answers in the same
order. Where nobody answered, or a node failed and is not yet known to be down, StoreUnavailable is thrown in.
"""
