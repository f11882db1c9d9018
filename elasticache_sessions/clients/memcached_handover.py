"""A session that moves to the nodes which have it now, from those which had it before the set of nodes changed.

Generators that decide and do no I/O (`memcached_asks.Flight`). In three steps, so that at no time two nodes would take a
write which the other does not learn of: it is frozen where it is, stored where it belongs, and its old place is marked. Whoever
dies in between leaves the rest to whoever comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..exceptions import StoreUnavailable
from ..record import Kind, Record, pack, restamped
from .base import ABSENT, Read, Stored, Write
from .memcached_asks import Ask, Flight, Left, Noticed
from .memcached_views import Copy, best

MISSING: Final = (
    "one of the Memcached nodes that may have a session does not answer, and the others do not have it. See whether the node "
    "is up."
)


def bring(key: bytes, here: Sequence[Copy], before: Sequence[str]) -> Flight[bool]:
    """Bring what the nodes `before` still have of `key`, or, where they have nothing, what is left of an earlier move.

    `here`: what the owners of now hold, which is nothing that counts. Returns whether it is worth another look.
    """
    there: list[Copy] = []
    if before:
        answers = yield [Ask(node, Read(key)) for node in before]
        there = [Copy.of(*each) for each in zip(before, answers, strict=True)]
    source = best(there)[0] or _leaving(there)
    if source is None:
        if any(copy.down for copy in there):
            raise StoreUnavailable(MISSING)
        source, there = _leaving(here), []
        if source is None:
            return False
    if source.entry is None or source.header is None:
        return False  # nobody can read it
    (left,) = yield [Ask(source.node, Left(key))]
    if left is None:
        return True
    ttl = max(1, left)
    if not source.is_tombstone and not (yield from _frozen(key, there, ttl)):
        return True
    value = restamped(source.entry.value, leaving=False)
    up = [copy for copy in here if not copy.down]
    puts = [Ask(copy.node, Write(key, value, ttl, copy.token or ABSENT)) for copy in up]
    looks = [Ask(copy.node, Read(key)) for copy in there if copy.entry is not None]
    answers = yield [*puts, *looks]
    if not any(isinstance(answer, Stored) for answer in answers[: len(puts)]):
        return True  # somebody else was faster
    yield Noticed("moved")
    if not source.is_tombstone:
        yield from _mark(
            key,
            [Copy.of(ask.node, answer) for ask, answer in zip(looks, answers[len(puts) :], strict=True)],
            ttl,
        )
    return True


def _leaving(copies: Sequence[Copy]) -> Copy | None:
    return next((copy for copy in copies if copy.is_leaving), None)


def _frozen(key: bytes, there: Sequence[Copy], ttl: int) -> Flight[bool]:
    """Whether nobody writes there any more."""
    asks = [
        Ask(copy.node, Write(key, restamped(copy.entry.value, leaving=True), ttl, copy.entry.token))
        for copy in there
        if copy.entry is not None and copy.header is not None and copy.counts
    ]
    answers = (yield asks) if asks else []
    return all(isinstance(answer, Stored) for answer in answers)


def _mark(key: bytes, there: Sequence[Copy], ttl: int) -> Flight[None]:
    """Leave word where the record was, unless it has come back meanwhile."""
    asks = []
    for copy in there:
        if copy.is_leaving and copy.header is not None and copy.entry is not None:
            word = pack(Record(replace(copy.header, kind=Kind.LEFT, leaving=False)))
            asks.append(Ask(copy.node, Write(key, word, ttl, copy.entry.token)))
    if asks:
        yield asks
