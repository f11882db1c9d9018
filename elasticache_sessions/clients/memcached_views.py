"""What the nodes hold of one key, seen at once: which copy counts, and what a compare-and-set needs to know. Pure: no I/O."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ..exceptions import DecodeError
from ..record import KEPT_REVISIONS, REVISION_BYTES, Header, Kind, Record, pack, unpack
from .base import ABSENT, Entry
from .memcached_asks import DOWN, Down

_ABSENT: Final = b"-"
_WAS_DOWN: Final = b"!"
_UNKNOWN: Final = b"?"


@dataclass(frozen=True, slots=True)
class Token:
    """What a compare-and-set compares with, on each of several nodes: a CAS that one node gave means nothing to another,
    where it may happen to be that of something else.
    """

    agreed: bool
    """Whether all nodes were up, and held the same."""
    parts: Mapping[str, bytes | None]
    """By node: its own token, ABSENT among them; None: the node was down."""

    def packed(self) -> bytes:
        def text(part: bytes | None) -> bytes:
            return _WAS_DOWN if part is None else _ABSENT if part == ABSENT else part

        parts = (node.encode() + b"=" + text(part) for node, part in self.parts.items())
        return b" ".join((b"1" if self.agreed else b"0", *parts))

    @classmethod
    def unpacked(cls, data: bytes) -> Token | None:
        """That of an entry; None for one that holds nowhere, as something was written since the entry was read."""
        agreed, *parts = data.split(b" ")
        found: dict[str, bytes | None] = {}
        for each in parts:
            node, _, part = each.rpartition(b"=")
            if part == _UNKNOWN:
                return None
            found[node.decode()] = None if part == _WAS_DOWN else ABSENT if part == _ABSENT else part
        return cls(agreed == b"1", found)


OUTDATED: Final = b"0 =?"
"""The token of an entry that was written, or repaired, since it was read: only another read can tell."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What one node answered."""

    node: str
    entry: Entry | None
    """None: it holds nothing."""
    down: bool = False
    header: Header | None = field(default=None)
    """None: it holds nothing, or nothing that this version can read."""

    @classmethod
    def of(cls, node: str, answer: Entry | Down | None) -> Copy:
        if not isinstance(answer, Entry):
            return cls(node, None, answer is DOWN)
        try:
            return cls(node, answer, header=unpack(answer.value).header)
        except DecodeError:
            return cls(node, answer)

    @property
    def token(self) -> bytes | None:
        return None if self.down else ABSENT if self.entry is None else self.entry.token

    @property
    def is_leaving(self) -> bool:
        return self.header is not None and self.header.leaving

    @property
    def is_moving(self) -> bool:
        """Whether it is on its way to another node, or has left."""
        return self.header is not None and (self.header.leaving or self.header.kind is Kind.LEFT)

    @property
    def is_tombstone(self) -> bool:
        return self.header is not None and self.header.kind is Kind.TOMBSTONE

    @property
    def counts(self) -> bool:
        """Whether it is a session, or what has become of one."""
        return self.entry is not None and not self.is_moving


def best(copies: Sequence[Copy]) -> tuple[Copy | None, Record | None]:
    """The copy that counts, None where there is none; and what is to be stored in place of all, where it is none of them.

    `copies`: that of the node which decides comes first.
    """
    winner: Copy | None = None
    merged: Record | None = None
    for copy in copies:
        if not copy.counts:
            continue
        if winner is None or winner.header is None or copy.header is None:
            # What cannot be read gives way to whatever can.
            winner = copy if winner is None or winner.header is None else winner
            continue
        first, second = winner.header, copy.header
        if _both_alone_apart(first, second):
            merged = _union(winner, copy)
        winner = copy if _gives_way(first, second) else winner
    return winner, merged


def _gives_way(first: Header, second: Header) -> bool:
    """Whether what the node that decides holds is not what counts."""
    if (first.kind is Kind.TOMBSTONE) != (second.kind is Kind.TOMBSTONE):
        return second.kind is Kind.TOMBSTONE
    if first.revision == second.revision:
        return second.alone and not first.alone
    if second.revision in first.revisions or first.revision in second.revisions:
        return first.revision in second.revisions
    if abs(first.generation - second.generation) >= KEPT_REVISIONS:
        return second.generation > first.generation
    # Neither comes from the other. One that is alone may be acknowledged. One that is not can only be half of a write
    # that found another in its way, as nothing is acknowledged before all nodes have it; whoever wrote it will again.
    if first.alone != second.alone:
        return second.alone
    return first.alone and second.generation > first.generation


def _both_alone_apart(first: Header, second: Header) -> bool:
    """Whether both may be acknowledged, and neither comes from the other."""
    return (
        first.alone
        and second.alone
        and first.kind is second.kind is not Kind.TOMBSTONE
        and first.revision not in second.revisions
        and second.revision not in first.revisions
        and abs(first.generation - second.generation) < KEPT_REVISIONS
    )


def _union(first: Copy, second: Copy) -> Record:
    """Both, as there is no telling from where they parted: the fields of either, and of two values the winner's.

    Not among its revisions is the other's: should its writer still be at work, it must not take its change for done.
    """
    assert first.entry is not None
    assert second.entry is not None
    one, other = unpack(first.entry.value), unpack(second.entry.value)
    if other.header.generation > one.header.generation:
        one, other = other, one
    header = replace(
        one.header,
        generation=one.header.generation + 1,
        revisions=(secrets.token_bytes(REVISION_BYTES), *one.header.revisions)[:KEPT_REVISIONS],
    )
    return Record(header, {**other.fields, **one.fields})


def value_of(winner: Copy, merged: Record | None) -> bytes:
    """What is to be stored everywhere."""
    assert winner.entry is not None
    return winner.entry.value if merged is None else pack(merged)
