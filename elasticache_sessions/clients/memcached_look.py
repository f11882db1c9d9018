"""What the owners of a key hold: asked of all of them at once, and mended where they do not hold the same.

A generator that decides and does no I/O (`memcached_asks.Flight`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..exceptions import StoreUnavailable
from ..record import LASTING, Header, Kind, is_plainly_live
from .base import ABSENT, Entry, Read, Stored, Write
from .memcached_asks import RENEW, Ask, Flight, Left, Noticed
from .memcached_handover import MISSING, OUTDATED_VIEW, bring
from .memcached_nodes import Nodes
from .memcached_views import OUTDATED, Copy, Token, judge

# How often somebody else may have been faster. Each time, a writer somewhere got on.
TRIES: Final = 8
# What has fewer seconds left is not worth mending; and Memcached would give it up to so many anew, again and again.
_DYING: Final = 3


@dataclass(slots=True)
class View:
    """The nodes as one operation sees them."""

    nodes: Nodes
    copies: int
    is_recent: bool = False
    """Whether there may be processes that have not heard of the last change yet."""
    now: int = 0
    """Seconds since 1970."""
    renewed: bool = False

    def owners(self, key: bytes) -> tuple[str, ...]:
        return self.nodes.owners(key, self.copies)

    def before(self, key: bytes) -> tuple[str, ...]:
        return self.nodes.before(key, self.copies)

    def renew(self) -> Flight[None]:
        self.nodes = yield RENEW
        self.renewed = True


@dataclass(frozen=True, slots=True)
class Found:
    """What the owners hold now; `agrees`: all that are up hold it."""

    entry: Entry | None
    agrees: bool
    down: bool


def look(command: Read, view: View) -> Flight[Found]:
    """Ask the owners; where they do not hold the same, give them what counts, and bring what others have of it."""
    key = command.key
    found: Found | None = None
    seen: Token | None = None
    had_left = False
    for _ in range(TRIES):
        owners = view.owners(key)
        answers = yield [Ask(node, command) for node in owners]
        if (same := _the_same(owners, answers)) is not None:
            return same
        copies = [Copy.of(*each) for each in zip(owners, answers, strict=True)]
        if any(copy.is_news(view.nodes.version, view.now) for copy in copies):
            if view.renewed:
                raise StoreUnavailable(OUTDATED_VIEW, retry=True, sent=False, silent=None)
            yield from view.renew()
            continue
        winner, merged, is_sure = judge(copies)
        down = any(copy.down for copy in copies)
        is_missed = winner is None or any(not copy.counts and not copy.down for copy in copies)
        if view.nodes.previous is None and (is_missed or not is_sure):
            yield from view.renew()  # with the nodes that had it before, of which one decides
            continue
        if winner is None or is_missed:
            before, version = view.before(key), view.nodes.version
            again = yield from bring(key, copies, before, version, view.now, had_left=had_left)
            had_left = had_left or again is None
            if again is not False:
                continue
            if winner is None:
                if down:
                    raise StoreUnavailable(MISSING)
                return Found(None, agrees=True, down=False)
        if winner.entry is None:
            continue
        value = winner.entry.value if merged is None else merged
        bad = [copy for copy in copies if not copy.down and _is_worse(copy, winner, value, command)]
        token = Token(agreed=False, parts={copy.node: copy.token for copy in copies})
        if not is_sure and bad and token != seen:
            seen = token  # until nothing has changed from one look to the next: then all of it was there at one moment
            continue
        ttl = (yield from _ttl(winner, command)) if bad else 0
        if ttl is None:
            continue  # gone meanwhile
        if ttl < _DYING:
            return Found(Entry(value, token.packed()), agrees=True, down=down)
        if not is_sure or (winner.kind in LASTING and any(not copy.counts for copy in bad)):
            # A node that began anew has lost the half of a write which may be under way to the winner still: it must not be
            # stored there now, and be acknowledged. And who takes another copy for the one that counts must not replace this
            # one while it is about to replace that.
            (kept,) = yield [Ask(winner.node, Write(key, value, ttl, winner.entry.token))]
            if not isinstance(kept, Stored):
                continue
            bad = [copy for copy in bad if copy.node != winner.node]
        asks = [Ask(copy.node, Write(key, value, ttl, copy.token or ABSENT)) for copy in bad]
        if all(isinstance(answer, Stored) for answer in (yield asks)):
            yield Noticed("repaired")
            return Found(Entry(value, OUTDATED), agrees=True, down=down)
        if merged is None:
            found = Found(Entry(value, OUTDATED), agrees=False, down=down)
    if found is None:
        raise StoreUnavailable(f"a session changed {TRIES} times while it was read. Try again.", retry=True)
    return found


def _ttl(winner: Copy, command: Read) -> Flight[int | None]:
    """The seconds that what counts still has, at most: what is mended must not live any longer for that."""
    header = winner.header
    if command.touch is not None:
        if header is not None and header.kind is Kind.TOMBSTONE:
            return max(command.touch, header.expires_at - command.now)
        return command.touch  # which it has just been given
    (left,) = yield [Ask(winner.node, Left(command.key))]
    return None if left is None else int(left)


def _the_same(owners: Sequence[str], answers: Sequence[object]) -> Found | None:
    """What is nearly always the case: all owners hold the same, and it stays there."""
    first = answers[0]
    if not isinstance(first, Entry) or not is_plainly_live(first.value):
        return None
    parts: dict[str, bytes | None] = {}
    for node, answer in zip(owners, answers, strict=True):
        if not isinstance(answer, Entry) or answer.value != first.value:
            return None
        parts[node] = answer.token
    token = Token(agreed=True, parts=parts).packed()
    return Found(Entry(first.value, token), agrees=True, down=False)


def _is_worse(copy: Copy, winner: Copy, value: bytes, command: Read) -> bool:
    """Whether a node's copy is to be replaced by `value`."""
    if copy.entry is None:
        return winner.header is not None
    if winner.header is None or copy.header is None:
        return False  # nobody reads it, so nobody may judge it
    return copy.entry.value != value or _is_cut_short(winner.header, command)


def _is_cut_short(header: Header, command: Read) -> bool:
    """Whether a blind touch let a tombstone go before the record could have gone, which another node may still hold."""
    return (
        header.kind is Kind.TOMBSTONE
        and command.touch is not None
        and header.expires_at - command.now > command.touch
    )
