"""What the nodes hold of one key, seen at once: which copy counts, and what a compare-and-set needs to know. Pure: no I/O."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ..exceptions import DecodeError
from ..record import (
    KEPT_REVISIONS,
    REVISION_BYTES,
    Header,
    Kind,
    Record,
    following,
    head,
    is_compressed,
    pack,
    unpack,
)
from ..sealing import Box
from .base import ABSENT, Entry
from .memcached_asks import DOWN, Down

_ABSENT: Final = b"-"
_WAS_DOWN: Final = b"!"
_UNKNOWN: Final = b"?"
KNOWN_AFTER: Final = 600
"""Seconds after which every process has heard of a change of the nodes."""
# The version of the nodes, and when, in seconds since 1970.
_MARK: Final = struct.Struct(">QQ")
_NOBODY: Final = Header(Kind.LEFT, 0, (bytes(REVISION_BYTES),), 0)


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
    header: Header | None = None
    """None: it holds nothing, or nothing that this version can read."""

    @classmethod
    def of(cls, node: str, answer: Entry | Down | None) -> Copy:
        if not isinstance(answer, Entry):
            return cls(node, None, answer is DOWN)
        try:
            return cls(node, answer, header=head(answer.value))
        except DecodeError:
            return cls(node, answer)

    @property
    def token(self) -> bytes | None:
        return None if self.down else ABSENT if self.entry is None else self.entry.token

    @property
    def kind(self) -> Kind | None:
        return None if self.header is None else self.header.kind

    @property
    def fields(self) -> Mapping[str, bytes] | None:
        """None where nobody can read them without a key."""
        try:
            return None if self.entry is None else unpack(self.entry.value).fields
        except DecodeError:
            return None

    @property
    def counts(self) -> bool:
        """Whether it is a session, or what has become of one; not one on its way to another node, or what that left."""
        return self.entry is not None and self.kind not in (Kind.LEAVING, Kind.LEFT)

    def is_news(self, version: int, now: int) -> bool:
        """Whether it was given away in a newer version of the nodes than this. Not if that was so long ago that everybody has
        heard of it: then the versions have begun anew, or are not counted any more.
        """
        if self.counts or self.header is None:
            return False
        try:
            newer, moved_at = _MARK.unpack((self.fields or {}).get(_MOVED, b""))
        except struct.error:
            return False
        return bool(newer > version and now - moved_at < KNOWN_AFTER)

    @property
    def leaving(self) -> bytes | None:
        """What is on its way to another node."""
        return None if self.kind is not Kind.LEAVING else (self.fields or {}).get(_CONTENT)

    def unpacked(self) -> Copy:
        """What is on its way to another node, or it itself."""
        content = self.leaving
        if content is None or self.entry is None:
            return self
        return Copy.of(self.node, replace(self.entry, value=content))


_MOVED: Final = "moved"
_CONTENT: Final = "content"


def leaving(value: bytes, version: int, now: int) -> bytes:
    """What takes the place of `value` while it goes where the nodes of `version` have it. `now`: seconds since 1970."""
    header = head(value)._replace(kind=Kind.LEAVING)
    return pack(Record(header, {_MOVED: _MARK.pack(version, now), _CONTENT: bytes(value)}))


def left(version: int, now: int, header: Header = _NOBODY) -> bytes:
    """What stays where it was."""
    return pack(Record(header._replace(kind=Kind.LEFT), {_MOVED: _MARK.pack(version, now)}))


class Verdict(NamedTuple):
    """Which copy counts."""

    winner: Copy | None
    """None: there is none."""
    merged: bytes | None = None
    """What is to be stored in place of all, where it is none of them."""
    is_sure: bool = True
    """Whether the others may be replaced by it whatever has happened since they were read, if only they are still the same.
    Else all of them must have been there at one moment, or the winner may be history, and another acknowledged.
    """


def judge(copies: Sequence[Copy]) -> Verdict:
    """`copies`: that of the node which decides comes first."""
    verdict = Verdict(None)
    for copy in copies:
        if copy.counts:
            verdict = _against(verdict, copy)
    return verdict


def _against(verdict: Verdict, copy: Copy) -> Verdict:
    best = verdict.winner
    if best is None or best.header is None or copy.header is None:
        # What cannot be read gives way to whatever can.
        return Verdict(copy) if best is None or best.header is None else verdict
    first, second = best.header, copy.header
    if (first.kind is Kind.TOMBSTONE) != (second.kind is Kind.TOMBSTONE):
        return verdict if first.kind is Kind.TOMBSTONE else Verdict(copy)
    if first.revision == second.revision:
        # One writer's, who tried again and then had more to consider; or the very same, and then it says that it is alone.
        later = (second.generation, second.alone) > (first.generation, first.alone)
        return Verdict(copy) if later else verdict
    if second.revision in first.revisions or first.revision in second.revisions:
        return Verdict(copy) if first.revision in second.revisions else verdict
    if abs(first.generation - second.generation) >= KEPT_REVISIONS:
        return Verdict(copy if second.generation > first.generation else best, is_sure=False)
    # Neither comes from the other. One that is alone may be acknowledged. One that is not can only be half of a write
    # that found another in its way, as nothing is acknowledged before all nodes have it; whoever wrote it will again.
    if first.alone != second.alone:
        return Verdict(copy if second.alone else best, is_sure=False)
    if not first.alone:
        return Verdict(best, is_sure=False)
    if second.generation > first.generation:
        return Verdict(copy, _union(copy, best), is_sure=False)
    return Verdict(best, _union(best, copy), is_sure=False)


def _union(one: Copy, other: Copy) -> bytes | None:
    """Both, as there is no telling from where they parted: the fields of either, and of two values the first one's. None
    where they are encrypted: nobody here has the key, so the first one counts, whole.

    Not among its revisions is the other's: should its writer still be at work, it must not take its change for done.
    """
    fields, others = one.fields, other.fields
    if one.header is None or one.entry is None or other.entry is None or fields is None or others is None:
        return None
    header = following(one.header, secrets.token_bytes(REVISION_BYTES))
    compressed = is_compressed(one.entry.value) or is_compressed(other.entry.value)
    return pack(Record(header, {**others, **fields}), _COMPRESSED if compressed else None)


# For what might be too large for a node otherwise.
_COMPRESSED: Final = Box(compress_from=0).of_owner(b"", "")
