"""A session on its nodes: what is read from all of them, what is written to all of them, and how they come to hold the same.

Generators that decide and do no I/O (`memcached_asks.Flight`). For any number of owners, one among them. What holds for
every interleaving, as long as no acknowledged write is on one node alone that is lost:
- a write is acknowledged when all owners that are up hold it, or something that was made of it;
- what is read is not older than what was acknowledged before;
- a copy is only ever replaced by one that counts more (`memcached_views.best`), by compare-and-set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..exceptions import DecodeError, StoreUnavailable
from ..record import (
    KEPT_REVISIONS,
    REVISION,
    Header,
    Kind,
    generation_of,
    is_alone,
    is_plainly_live,
    pack,
    restamped,
    unpack,
)
from .base import ABSENT, Command, Conflict, Entry, Read, Replace, Reply, Stored, Write
from .memcached_asks import DOWN, RENEW, Ask, Flight, Left, Noticed
from .memcached_handover import MISSING, OUTDATED_VIEW, bring, leave_word
from .memcached_nodes import Nodes
from .memcached_views import OUTDATED, Copy, Token, judge

# How often somebody else may have been faster. Each time, a writer somewhere got on.
_TRIES: Final = 8
# What has fewer seconds left is not worth mending; and Memcached would give it up to so many anew, again and again.
_DYING: Final = 3


@dataclass(slots=True)
class View:
    """The nodes as one operation sees them."""

    nodes: Nodes
    copies: int
    is_recent: bool = False
    """Whether there may be processes that have not heard of the last change yet."""
    renewed: bool = False

    def owners(self, key: bytes) -> tuple[str, ...]:
        return self.nodes.owners(key, self.copies)

    def before(self, key: bytes) -> tuple[str, ...]:
        return self.nodes.before(key, self.copies)

    def renew(self) -> Flight[None]:
        self.nodes = yield RENEW
        self.renewed = True


@dataclass(frozen=True, slots=True)
class _Found:
    """What the owners hold now; `agrees`: all that are up hold it."""

    entry: Entry | None
    agrees: bool
    down: bool


def perform(command: Command, view: View) -> Flight[Reply]:
    """Carry out `command`; the reply is what any client's is."""
    if isinstance(command, Read):
        return (yield from read(command, view))
    if isinstance(command, Write):
        return (yield from write(command, view))
    return (yield from replace(command, view))


def read(command: Read, view: View) -> Flight[Entry | None]:
    """One flight, where the owners hold the same. What they do not, is mended first."""
    return (yield from _look(command, view)).entry


def _look(command: Read, view: View) -> Flight[_Found]:
    key = command.key
    found: _Found | None = None
    seen: Token | None = None
    for _ in range(_TRIES):
        owners = view.owners(key)
        answers = yield [Ask(node, command) for node in owners]
        if (same := _the_same(owners, answers)) is not None:
            return same
        copies = [Copy.of(*each) for each in zip(owners, answers, strict=True)]
        if any(copy.moved_in > view.nodes.version for copy in copies):
            if view.renewed:
                raise StoreUnavailable(OUTDATED_VIEW, retry=True, sent=False, silent=None)
            yield from view.renew()
            continue
        winner, merged, is_sure = judge(copies)
        down = any(copy.down for copy in copies)
        if winner is None or winner.entry is None:
            if view.nodes.previous is None:
                yield from view.renew()  # with the nodes that had it before
            elif not (yield from bring(key, copies, view.before(key), view.nodes.version)):
                if down:
                    raise StoreUnavailable(MISSING)
                return _Found(None, agrees=True, down=False)
            continue
        value = winner.entry.value if merged is None else pack(merged)
        bad = [copy for copy in copies if not copy.down and _is_worse(copy, winner, value, command)]
        token = Token(agreed=False, parts={copy.node: copy.token for copy in copies})
        if not is_sure and bad and token != seen:
            seen = token  # until nothing has changed from one look to the next: then all of it was there at one moment
            continue
        ttl = (yield from _ttl(winner, command)) if bad else 0
        if ttl < _DYING:
            return _Found(Entry(value, token.packed()), agrees=True, down=down)
        asks = [Ask(copy.node, Write(key, value, ttl, copy.token or ABSENT)) for copy in bad]
        if all(isinstance(answer, Stored) for answer in (yield asks)):
            yield Noticed("repaired")
            return _Found(Entry(value, OUTDATED), agrees=True, down=down)
        if merged is None:
            found = _Found(Entry(value, OUTDATED), agrees=False, down=down)
    if found is None:
        raise StoreUnavailable(f"a session changed {_TRIES} times while it was read. Try again.", retry=True)
    return found


def _ttl(winner: Copy, command: Read) -> Flight[int]:
    """The seconds that what counts still has, at most: what is mended must not live any longer for that."""
    header = winner.header
    if command.touch is not None:
        if header is not None and header.kind is Kind.TOMBSTONE:
            return max(command.touch, header.expires_at - command.now)
        return command.touch  # which it has just been given
    (left,) = yield [Ask(winner.node, Left(command.key))]
    return left or 0


def _the_same(owners: Sequence[str], answers: Sequence[object]) -> _Found | None:
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
    return _Found(Entry(first.value, token), agrees=True, down=False)


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


def write(command: Write, view: View) -> Flight[Stored | Conflict]:
    """One flight, where nobody else writes. Two where it must be known what came of it: one node decides first then, and
    what that has taken stays.
    """
    key, owners = command.key, view.owners(command.key)
    creates = command.token == ABSENT
    token = (
        Token(agreed=True, parts=dict.fromkeys(owners, ABSENT)) if creates else Token.unpacked(command.token)
    )
    if creates and view.is_recent:
        yield from leave_word(key, owners, view.nodes, view.copies)
    if token is None or token.parts.keys() != set(owners):
        # Read before the last repair, or when the key had other owners.
        return Conflict((yield from read(Read(key), view)))
    value = restamped(command.value, alone=not token.agreed)

    def question(node: str) -> Ask:
        part = token.parts[node]
        # A node that was down is asked whether it is back.
        return Ask(node, Read(key) if part is None else Write(key, value, command.ttl, part))

    answers: list[object]
    if command.exactly_once and len(owners) > 1:
        answers = []
        for node in owners:
            # The others are asked as well, so that a node which fails is known to be down when they answer; and whether one
            # that has taken it still has it.
            said = yield [question(each) if each == node else Ask(each, Read(key)) for each in owners]
            answers = [_still(*each, value) for each in zip(answers, said, strict=False)]
            answers.append(said[len(answers)])
            if not any(map(_may_be_stored, answers)) and answers[-1] is not DOWN:
                return Conflict((yield from read(Read(key), view)))
    else:
        answers = yield [question(node) for node in owners]
    stored = [isinstance(answer, Stored) for answer in answers]
    down = [answer is DOWN for answer in answers]
    if all(stored):
        return Stored(None)
    # What is new has nothing that could contradict it, and what is marked says that it is alone.
    settled = creates or not token.agreed
    if settled and any(stored) and all(one or other for one, other in zip(stored, down, strict=True)):
        return Stored(None)
    decided = command.exactly_once and next(
        (one for one, other in zip(stored, down, strict=True) if not other), False
    )
    perhaps = any(map(_may_be_stored, answers))
    return (yield from _acknowledged(command, view, perhaps=perhaps, decided=decided))


def _may_be_stored(answer: object) -> bool:
    return isinstance(answer, Stored) or (isinstance(answer, Conflict) and answer.resent)


def _still(answer: object, said: object, value: bytes) -> object:
    """What came of a write that was answered so, by what the node has said since."""
    if not isinstance(answer, Stored) or said is DOWN:
        return answer
    has_it = isinstance(said, Entry) and generation_of(said.value) >= generation_of(value)
    return answer if has_it else Conflict(None, resent=True)


def _acknowledged(command: Write, view: View, *, perhaps: bool, decided: bool) -> Flight[Stored | Conflict]:
    """Whether a write that found others in its way came to hold after all, on every node that is up.

    `perhaps`: whether a node took it; `decided`: whether the one did that decides.
    """
    key = command.key
    for _ in range(_TRIES):
        found = yield from _look(Read(key), view)
        if found.entry is None or not _includes(found.entry.value, command.value, decided=decided):
            return Conflict(found.entry, resent=perhaps)
        if not found.agrees:
            continue
        if not found.down or is_alone(found.entry.value):
            return Stored(None)
        yield from _mark_alone(key, found.entry, view)
    raise StoreUnavailable(f"a session changed {_TRIES} times while it was written. Try again.", retry=True)


def _includes(value: bytes, written: bytes, *, decided: bool) -> bool:
    """Whether what is there was made of what was `written`. Under somebody else's tombstone nothing is."""
    revision = written[REVISION]
    try:
        header = unpack(value).header
    except DecodeError:
        return value[REVISION] == revision
    if revision == header.revision:
        return True
    if header.kind is Kind.TOMBSTONE:
        return False
    # So many writes ago that it is not named any more: then the one that decides says it, as all were made of that.
    behind = header.generation >= generation_of(written) + KEPT_REVISIONS
    return revision in header.revisions or (decided and behind and not header.alone)


def _mark_alone(key: bytes, entry: Entry, view: View) -> Flight[None]:
    """A node went down while this was written: say that the other has it alone."""
    token = Token.unpacked(entry.token)
    if token is None:
        return  # repaired a moment ago: to be read again
    up = {node: part for node, part in token.parts.items() if part is not None}
    (left, *_) = yield [Ask(node, Left(key)) for node in up]
    if left is None or left is DOWN:
        return
    value = restamped(entry.value, alone=True)
    yield [Ask(node, Write(key, value, max(1, left), part)) for node, part in up.items()]


def replace(command: Replace, view: View) -> Flight[bool]:
    """Not unconditional, as a node may be giving the key away: whatever is there is read, and replaced as it is."""
    key = command.key
    for _ in range(_TRIES):
        found = yield from _look(Read(key), view)
        if found.entry is None:
            return False
        reply = yield from write(Write(key, command.value, command.ttl, found.entry.token), view)
        if isinstance(reply, Stored):
            return True
    raise StoreUnavailable(f"a session changed {_TRIES} times while it was replaced. Try again.", retry=True)
