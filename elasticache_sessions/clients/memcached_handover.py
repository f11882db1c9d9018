"""A session that moves to the nodes which have it now, from those which had it before the set of nodes changed.

Generators that decide and do no I/O (`memcached_asks.Flight`). In three steps, so that at no time two nodes would take a
write which the other does not learn of: it is frozen where it is, stored where it belongs, and its old place is marked. Whoever
dies in between leaves the rest to whoever comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..exceptions import StoreUnavailable
from ..record import Kind
from .base import ABSENT, Read, Stored, Write
from .memcached_asks import Ask, Flight, Left, Noticed
from .memcached_nodes import Nodes, ranked
from .memcached_views import KNOWN_AFTER, Copy, judge, leaving, left

MISSING: Final = (
    "one of the Memcached nodes that may have a session does not answer, and the others do not have it. See whether the node "
    "is up."
)
OUTDATED_VIEW: Final = (
    "a session has moved to another Memcached node, and the configuration endpoint does not tell yet which nodes there are "
    "now. Try again."
)
UNKNOWN_PAST: Final = (
    "this process has just begun, and has not heard yet which Memcached nodes there were before, of which one may have the "
    "session. Try again."
)


def bring(
    key: bytes, here: Sequence[Copy], before: Sequence[str], version: int, now: int, *, had_left: bool = False
) -> Flight[bool | None]:
    """Bring what the nodes `before` still have of `key`, or, where nobody has anything, what is left of an earlier move.

    `here`: what the owners of now, by that version of the nodes, hold; one of them at least holds nothing. Returns whether
    it is worth another look; None: one more, with `had_left`, as it has left, perhaps after it was looked for here.
    """
    there: list[Copy] = []
    found = [copy for copy in here if copy.counts]
    if before:
        # Together with one that answers, so that one which is down and gone is passed over.
        answering = [Ask(copy.node, Read(key)) for copy in found[:1]]
        answers = yield [*(Ask(node, Read(key)) for node in before), *answering]
        there = [Copy.of(*each) for each in zip(before, answers, strict=False)]
    sources = [copy for copy in there if copy.counts or copy.leaving is not None]
    if not sources:
        if found:
            return False
        if any(copy.down for copy in there):
            raise StoreUnavailable(MISSING)
        if not had_left and any(copy.kind is Kind.LEFT for copy in there):
            return None
        sources = [copy for copy in here if copy.leaving is not None]
    candidates = [*found, *(copy.unpacked() for copy in sources)]
    source, merged, _ = judge(candidates)
    if source is None or source.entry is None or source.header is None:
        return False  # or nobody can read it
    (ttl,) = yield [Ask(source.node, Left(key))]
    if not ttl:
        return True
    if not (yield from _frozen(key, there, ttl, version, now)):
        return True
    value = source.entry.value if merged is None else merged
    puts = [Ask(copy.node, Write(key, value, ttl, copy.token or ABSENT)) for copy in here if not copy.down]
    looks = [Ask(copy.node, Read(key)) for copy in there if copy in sources]
    if source in found:  # it is to be there still when the others take it
        (kept,) = yield [put for put in puts if put.node == source.node]
        if not isinstance(kept, Stored):
            return True
        puts = [put for put in puts if put.node != source.node]
    answers = yield [*puts, *looks]
    if puts and not any(isinstance(answer, Stored) for answer in answers[: len(puts)]):
        return True  # somebody else was faster
    yield Noticed("moved")
    marks = []
    contents = {copy.node: copy.unpacked().entry for copy in sources}
    for ask, answer in zip(looks, answers[len(puts) :], strict=True):
        copy, content = Copy.of(ask.node, answer), contents[ask.node]
        # Unless it has come back meanwhile.
        if (
            copy.entry is not None
            and copy.header is not None
            and content is not None
            and copy.leaving == content.value
        ):
            word = left(version, now, copy.header)
            # As long as somebody may look for it here, however little it had left.
            marks.append(Ask(copy.node, Write(key, word, max(ttl, KNOWN_AFTER), copy.entry.token)))
    if marks:
        yield marks
    return True


def _frozen(key: bytes, there: Sequence[Copy], ttl: int, version: int, now: int) -> Flight[bool]:
    """Whether nobody writes there any more."""
    asks = [
        Ask(copy.node, Write(key, leaving(copy.entry.value, version, now), ttl, copy.entry.token))
        for copy in there
        if copy.entry is not None and copy.header is not None and copy.counts
    ]
    answers = (yield asks) if asks else []
    return all(isinstance(answer, Stored) for answer in answers)


def leave_word(key: bytes, owners: Sequence[str], nodes: Nodes, copies: int, now: int) -> Flight[None]:
    """What is new is where nobody looks for it who has not heard of the last change: tell him that he has old news."""
    had = ranked(nodes.previous[0], key)[:copies] if nodes.previous else []
    # Though he shares one of the owners: that one may be down for him.
    word = left(nodes.version, now)
    asks = [Ask(node, Write(key, word, KNOWN_AFTER, ABSENT)) for node in had if node not in owners]
    if asks:
        # Together with one that answers, so that one which is down and gone is passed over. One that just did not answer is
        # not: somebody else may reach it, and miss there what is new.
        yield [*asks, Ask(owners[0], Read(key))]
