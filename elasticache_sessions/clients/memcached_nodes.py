"""Which node of Memcached has which key. Pure: no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


def ranked(nodes: Sequence[str], key: bytes) -> list[str]:
    """`nodes` by their claim to `key`, the owner first: rendezvous hashing.

    Depends on nothing but the names and the key, so every process ranks alike. A node that is added takes its share
    of the keys from each of the others, and one that is taken away leaves its share to them; no other key moves.
    """

    def claim(node: str) -> tuple[bytes, str]:
        return hashlib.blake2b(node.encode() + b" " + key, digest_size=8).digest(), node

    return sorted(nodes, key=claim, reverse=True)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes at one moment, by their names ("host:port"). Never changed: another takes its place."""

    current: tuple[str, ...]
    previous: tuple[str, ...] = ()
    """Those before the last change; () where nothing can be left there."""

    def owners(self, key: bytes, copies: int) -> tuple[str, ...]:
        """The nodes that have `key`, the one that decides first.

        After a change, that is the one which had it before: processes that have not heard of the change write to it as
        well, and to none of the new ones.
        """
        best = ranked(self.current, key)[:copies]
        if copies > 1 and self.previous:
            had = ranked(self.previous, key)[:copies]
            best.sort(key=lambda node: node not in had)
        return tuple(best)

    def before(self, key: bytes, copies: int) -> tuple[str, ...]:
        """The nodes that had `key` before the last change, and have it no more."""
        if not self.previous:
            return ()
        now = self.owners(key, copies)
        return tuple(node for node in ranked(self.previous, key)[:copies] if node not in now)
