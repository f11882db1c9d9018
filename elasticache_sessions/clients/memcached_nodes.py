"""Which node of Memcached has which key. Pure: no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def ranked(nodes: Sequence[str], key: bytes) -> list[str]:
    """`nodes` by their claim to `key`, the owner first: rendezvous hashing.

    Depends on nothing but the names and the key, so every process ranks alike. A node that is added takes its share
    of the keys from each of the others, and one that is taken away leaves its share to them; no other key moves.
    """

    if len(nodes) < 2:
        return list(nodes)
    return sorted(nodes, key=_claim_to(key), reverse=True)


def owner(nodes: Sequence[str], key: bytes) -> str:
    """The first of them."""
    return nodes[0] if len(nodes) == 1 else max(nodes, key=_claim_to(key))


def _claim_to(key: bytes) -> Callable[[str], tuple[bytes, str]]:
    def claim(node: str) -> tuple[bytes, str]:
        return hashlib.blake2b(node.encode() + b" " + key, digest_size=8).digest(), node

    return claim


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes at one moment, by their names ("host:port"). Never changed: another takes its place."""

    current: tuple[str, ...]
    previous: tuple[tuple[str, ...], ...] | None = ()
    """Those before the last change, before the change before it, and so on, as far back as a session can be there. None:
    that is not known yet.
    """
    version: int = 0
    """Higher after each change."""
    last: tuple[str, ...] = ()
    """Those before the last change, whatever has become of them: every process must take them for the same."""

    def owners(self, key: bytes, copies: int) -> tuple[str, ...]:
        """The nodes that have `key`, the one that decides first.

        After a change, that is the one which had it before: processes that have not heard of the change write to it as
        well, and to none of the new ones.
        """
        best = ranked(self.current, key)[:copies]
        if copies > 1 and self.last:
            had = ranked(self.last, key)[:copies]
            best.sort(key=lambda node: node not in had)
        return tuple(best)

    def before(self, key: bytes, copies: int) -> tuple[str, ...]:
        """The nodes that had `key` before, and have it no more; those that had it last come first."""
        if not self.previous:
            return ()
        now = self.owners(key, copies)
        had = (node for nodes in self.previous for node in ranked(nodes, key)[:copies])
        return tuple(dict.fromkeys(node for node in had if node not in now))

    def always_had(self, key: bytes, copies: int) -> bool:
        """Whether it is known that no others had `key` before."""
        return self.previous is not None and not self.before(key, copies)

    def known(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self.current).union(*(self.previous or ()))
