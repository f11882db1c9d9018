"""Which nodes there were before. The nodes themselves tell it to processes that begin later: a session that nobody has asked
for since the last change is still where it was.

Whoever can write to the nodes can name others here. He can forge sessions as well, and those others learn keys, which are no
ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import ormsgpack

from ..exceptions import StoreUnavailable, ValueTooLarge
from ..session import logger
from .base import ABSENT, Entry, Read, Write
from .memcached_listing import is_name

_TTL: Final = 400 * 86_400
"""As long as browsers keep a cookie."""
LONGEST_HISTORY: Final = 4
"""So many changes are remembered."""
Ask = Callable[[str, Read | Write], object]
"""Asks one node; raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class History:
    """The sets of nodes of a cluster, the newest first, and the version of the newest in its configuration."""

    version: int
    sets: tuple[tuple[str, ...], ...]

    def packed(self) -> bytes:
        return ormsgpack.packb([self.version, self.sets])

    @classmethod
    def unpacked(cls, data: bytes) -> History | None:
        """None: it is none."""
        try:
            version, sets = ormsgpack.unpackb(data)
        except (ValueError, TypeError):
            return None
        if type(version) is not int or type(sets) is not list:
            return None
        if not all(type(names) is list and names and all(map(is_name, names)) for names in sets):
            return None
        return cls(version, tuple(map(tuple, sets))[: LONGEST_HISTORY + 1])

    def before(self, version: int, nodes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """The sets before that of `nodes`, which is that of `version`."""
        is_told = version <= self.version or (self.sets and set(self.sets[0]) == set(nodes))
        earlier = self.sets[1:] if is_told else self.sets
        return tuple(names for names in earlier if set(names) != set(nodes))[:LONGEST_HISTORY]


def key_of(prefix: str) -> bytes:
    """Under which key each node has it; no session's key is as short."""
    return f"{prefix}nodes".encode()


def recall(key: bytes, version: int, nodes: Sequence[str], ask: Ask) -> tuple[tuple[str, ...], ...]:
    """The sets of nodes before this one, newest first, as far as the nodes tell."""
    best: History | None = None
    for node in nodes:
        told = _told(key, node, ask)[0]
        if told is not None and (best is None or told.version > best.version):
            best = told
            if best.version >= version:
                break  # whoever wrote it saw this very change
    return () if best is None else best.before(version, nodes)


def remember(key: bytes, history: History, ask: Ask) -> None:
    """Tell it to every node that knows less. One that does not answer is not told: any other will do."""
    for node in history.sets[0]:
        told, token = _told(key, node, ask)
        if token is None or (told is not None and (told.version > history.version or told == history)):
            continue
        try:
            ask(node, Write(key, history.packed(), _TTL, token))
        except (StoreUnavailable, ValueTooLarge) as error:
            logger.debug("a node was not told which nodes there were before: %s", error)


def _told(key: bytes, node: str, ask: Ask) -> tuple[History | None, bytes | None]:
    """What the node tells, and a token to write with; None: it does not answer."""
    try:
        entry = ask(node, Read(key))
    except StoreUnavailable as error:
        logger.debug("a node was not asked which nodes there were before: %s", error)
        return None, None
    if not isinstance(entry, Entry):
        return None, ABSENT
    return History.unpacked(entry.value), entry.token
