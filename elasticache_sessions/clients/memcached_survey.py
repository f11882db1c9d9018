"""Looks at many keys: which node is asked for which, and what the nodes' answers say together. Generators and values; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ..record import HEADER_BYTES, LASTING
from .base import Glance, Read
from .memcached_asks import Ask, Flight, Left
from .memcached_copies import read
from .memcached_look import View

LOOKED_AT_ONCE: Final = 200
"""Keys that one node is asked for in one flight."""
_KIND_AT: Final = 1


def grouped(
    keys: Iterable[bytes], nodes_of: Callable[[bytes], Iterable[str]]
) -> Iterator[tuple[str, Sequence[bytes]]]:
    """What each node is asked for, so much at a time as fits a flight."""
    theirs: dict[str, list[bytes]] = {}
    for key in dict.fromkeys(keys):
        for node in nodes_of(key):
            theirs.setdefault(node, []).append(key)
    for node, each in theirs.items():
        for first in range(0, len(each), LOOKED_AT_ONCE):
            yield node, each[first : first + LOOKED_AT_ONCE]


def alike(glances: Sequence[Glance | None]) -> Glance | None:
    """What is nearly always the case, as in a read: all owners that are up hold the same, which stays there. None: that is for
    `glance` to find out.
    """
    first = glances[0] if glances else None
    if first is None or len(first.header) < HEADER_BYTES or first.header[_KIND_AT] not in LASTING:
        return None
    left: list[float] = []
    for each in glances:
        # Its revision is in the header: no two values have the same one.
        if each is None or each.header != first.header:
            return None
        if each.ttl_left is not None:
            left.append(each.ttl_left)
    return Glance(first.header, max(left) if len(left) == len(glances) else None)


def glance(key: bytes, view: View) -> Flight[Glance | None]:
    """One flight to read it, as ever, with whatever is to be mended; and one to ask how long it lives."""
    entry = yield from read(Read(key), view)
    if entry is None:
        return None
    answers = yield [Ask(node, Left(key)) for node in view.owners(key)]
    left = [answer for answer in answers if isinstance(answer, int)]
    if not left:
        return None  # gone meanwhile
    return Glance(entry.value[:HEADER_BYTES], None if min(left) < 0 else max(left))
