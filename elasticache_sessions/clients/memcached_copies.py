"""A session on its nodes: what is read from all of them, and written to all of them.

Generators that decide and do no I/O (`memcached_asks.Flight`). For any number of owners, one among them. What holds for
every interleaving, as long as no acknowledged write is on one node alone that is lost:
- a write is acknowledged when all owners that are up hold it, or something that was made of it;
- what is read is not older than what was acknowledged before;
- a copy is only ever replaced by one that counts more (`memcached_views.judge`), by compare-and-set.
"""

from __future__ import annotations

from ..exceptions import DecodeError, StoreUnavailable
from ..record import (
    KEPT_REVISIONS,
    REVISION,
    generation_of,
    head,
    includes,
    is_alone,
    is_plainly_live,
    restamped,
    was_alone,
)
from .base import ABSENT, Command, Conflict, Entry, Read, Replace, Reply, Stored, Write
from .memcached_asks import DOWN, Ask, Flight, Left
from .memcached_handover import leave_word
from .memcached_look import TRIES, View, look
from .memcached_views import Token


def perform(command: Command, view: View) -> Flight[Reply]:
    """Carry out `command`; the reply is what any client's is."""
    if isinstance(command, Read):
        return (yield from read(command, view))
    if isinstance(command, Write):
        return (yield from write(command, view))
    return (yield from replace(command, view))


def read(command: Read, view: View) -> Flight[Entry | None]:
    """One flight, where the owners hold the same. What they do not, is mended first."""
    return (yield from look(command, view)).entry


def write(command: Write, view: View) -> Flight[Stored | Conflict]:
    """One flight, where nobody else writes. Two where it must be known what came of it: one node decides first then, and
    what that has taken stays.
    """
    key, creates = command.key, command.token == ABSENT
    if (creates or command.exactly_once) and view.nodes.previous is None:
        yield from view.renew()  # with the nodes that had it before: word is left there, and one of them decides
        view.is_recent = True
    owners = view.owners(key)
    token = (
        Token(agreed=True, parts=dict.fromkeys(owners, ABSENT)) if creates else Token.unpacked(command.token)
    )
    if creates and view.is_recent:
        yield from leave_word(key, owners, view.nodes, view.copies, view.now)
    if token is None or token.parts.keys() != set(owners):
        # Read before the last repair, or when the key had other owners.
        return (yield from _acknowledged(command, view))
    value = restamped(command.value, alone=not token.agreed)

    def question(node: str) -> Ask:
        part = token.parts[node]
        # A node that was down is asked whether it is back.
        return Ask(node, Read(key) if part is None else Write(key, value, command.ttl, part))

    answers: list[object] = []
    try:
        if command.exactly_once and len(owners) > 1:
            for node in owners:
                # The others are asked as well, so that a node which fails is known to be down when they answer.
                said = yield [question(each) if each == node else Ask(each, Read(key)) for each in owners]
                answers.append(said[len(answers)])
                if not any(map(_may_be_stored, answers)) and answers[-1] is not DOWN:
                    return (yield from _acknowledged(command, view))
        else:
            answers += yield [question(node) for node in owners]
        stored = [isinstance(answer, Stored) for answer in answers]
        down = [answer is DOWN for answer in answers]
        if all(stored):
            return Stored(None)
        # What is new has nothing that could contradict it, and what is marked says that it is alone.
        settled = creates or not token.agreed
        if settled and any(stored) and all(one or other for one, other in zip(stored, down, strict=True)):
            return Stored(None)
        up = [node for node, other in zip(owners, down, strict=True) if not other]
        decided = up[0] if command.exactly_once and up and stored[owners.index(up[0])] else None
        perhaps = any(map(_may_be_stored, answers))
        since = token.parts[decided] if decided is not None else None
        return (yield from _acknowledged(command, view, perhaps=perhaps, decided=decided, since=since))
    except StoreUnavailable as error:
        # Whatever failed after a node had taken it.
        error.sent = error.sent or any(map(_may_be_stored, answers))
        raise


def _may_be_stored(answer: object) -> bool:
    return isinstance(answer, Stored) or (isinstance(answer, Conflict) and answer.resent)


def _acknowledged(
    command: Write,
    view: View,
    *,
    perhaps: bool = False,
    decided: str | None = None,
    since: bytes | None = None,
) -> Flight[Stored | Conflict]:
    """Whether a write that found others in its way came to hold after all, on every node that is up.

    `perhaps`: whether a node took it; `decided`: the one that decides, if it did, in place of what it called `since`.
    """
    key = command.key
    for _ in range(TRIES):
        found = yield from look(Read(key), view)
        if found.entry is None:
            return Conflict(None, resent=perhaps)
        if not _includes(found.entry.value, command.value):
            # So many writes ago that it is not named any more: then the one that decides says it, as all were made of that,
            # unless it began anew meanwhile, and its numbers as well.
            behind = generation_of(found.entry.value) >= generation_of(command.value) + KEPT_REVISIONS
            plain = is_plainly_live(found.entry.value) and not was_alone(found.entry.value)
            if decided is None or since is None or not behind or not plain:
                return Conflict(found.entry, resent=perhaps)
            (now,) = yield [Ask(decided, Read(key))]
            if not isinstance(now, Entry) or not _is_later(now.token, since):
                return Conflict(found.entry, resent=True)
        if not found.agrees:
            continue
        if not found.down or is_alone(found.entry.value):
            return Stored(None)
        yield from _mark_alone(key, found.entry)
    raise StoreUnavailable(f"a session changed {TRIES} times while it was written. Try again.", retry=True)


def _is_later(token: bytes, before: bytes) -> bool:
    """Whether a node gave that CAS after the other: it counts them up, from 1 when it begins anew."""
    return token.isdigit() and before.isdigit() and int(token) > int(before)


def _includes(value: bytes, written: bytes) -> bool:
    """Whether what is there was made of what was `written`."""
    revision = written[REVISION]
    try:
        header = head(value)
    except DecodeError:
        return value[REVISION] == revision
    return includes(header, revision)


def _mark_alone(key: bytes, entry: Entry) -> Flight[None]:
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
    for _ in range(TRIES):
        found = yield from look(Read(key), view)
        if found.entry is None:
            return False
        reply = yield from write(Write(key, command.value, command.ttl, found.entry.token), view)
        if isinstance(reply, Stored):
            return True
    raise StoreUnavailable(f"a session changed {TRIES} times while it was replaced. Try again.", retry=True)
