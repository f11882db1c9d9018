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
from .memcached_known import LONGEST_HISTORY
from .memcached_listing import MOST_NODES, is_name
from .tls import is_about

_TTL: Final = 400 * 86_400
"""As long as browsers keep a cookie."""
Ask = Callable[[str, Read | Write], object]
"""Asks one node; raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class History:
    """The sets of nodes of a cluster, the newest first, the version of the newest in its configuration, and which nodes are
    gone for good.
    """

    version: int
    sets: tuple[tuple[str, ...], ...]
    gone: frozenset[str] = frozenset()

    def packed(self) -> bytes:
        return ormsgpack.packb([self.version, self.sets, sorted(self.gone)])

    @classmethod
    def unpacked(cls, data: bytes) -> History | None:
        """None: it is none."""
        try:
            version, sets, gone = ormsgpack.unpackb(data)
        except (ValueError, TypeError):
            return None
        if type(version) is not int or type(sets) is not list:
            return None
        named = [*sets, gone]
        if not all(type(names) is list and len(names) <= MOST_NODES for names in named) or [] in sets:
            return None
        if not all(is_name(name) for names in named for name in names):
            return None
        return cls(version, tuple(map(tuple, sets))[: LONGEST_HISTORY + 1], frozenset(gone))

    def before(self, version: int, nodes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """The sets before that of `nodes`, which is that of `version`."""
        is_told = version <= self.version or (self.sets and set(self.sets[0]) == set(nodes))
        return (self.sets[1:] if is_told else self.sets)[:LONGEST_HISTORY]

    def joined(self, other: History) -> History:
        """With what another says of the same version."""
        longer = max(self, other, key=lambda each: len(each.sets))
        return History(self.version, longer.sets, self.gone | other.gone)


def key_of(prefix: str) -> bytes:
    """Under which key each node has it; no session's key is as short."""
    return f"{prefix}nodes".encode()


def recall(key: bytes, version: int, nodes: Sequence[str], ask: Ask) -> History | None:
    """What the nodes tell, as far as they do; None: none of them answers."""
    best: History | None = None
    answered = False
    for node in nodes:
        told, token = _told(key, node, ask)
        answered = answered or token is not None
        if told is not None and (best is None or told.version > best.version):
            best = told
            if best.version >= version:
                break  # whoever wrote it saw this very change
    return best or (History(version, (tuple(nodes),)) if answered else None)


def remember(key: bytes, history: History, ask: Ask) -> None:
    """Tell it to every node that knows less. One that does not answer is not told: any other will do."""
    for node in history.sets[0]:
        told, token = _told(key, node, ask)
        if token is None or (told is not None and told.version > history.version):
            continue
        best = history.joined(told) if told is not None and told.version == history.version else history
        if best == told:
            continue
        try:
            ask(node, Write(key, best.packed(), _TTL, token))
        except (StoreUnavailable, ValueTooLarge) as error:
            logger.debug("a node was not told which nodes there were before: %s", error)


def _told(key: bytes, node: str, ask: Ask) -> tuple[History | None, bytes | None]:
    """What the node tells, and a token to write with; None: it does not answer."""
    try:
        entry = ask(node, Read(key))
    except StoreUnavailable as error:
        logger.debug("a node was not asked which nodes there were before: %s", error)
        # Where nobody listens, nobody remembers anything.
        return None, ABSENT if is_about(error, ConnectionRefusedError) else None
    if not isinstance(entry, Entry):
        return None, ABSENT
    return History.unpacked(entry.value), entry.token
