"""What happens to a session, decided here and carried out elsewhere.

Each operation is a generator: it yields commands (`clients.base`), `Sleep` and `Event`, receives the replies,
and returns the result. It never does I/O and asks `Rules` for the time, so that one text serves threads and
event loops, and a test can answer with any reply: late, lost or contradictory.

What holds for every interleaving with other writers:
- what a write did not read, it never creates: an ended session stays ended;
- what one writer alone changed is kept (`merging.merge`);
- a command that was sent twice takes effect once: its revision is among the last four of what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from . import enrolment
from .exceptions import DecodeError, SessionEnded, SessionError
from .fields import Fields
from .merging import merge_into
from .opaque import OpaqueDict, OpaqueList
from .reading import load, look
from .record import Header, Kind, Record
from .session import Rules, Session, nobodys, with_wishes
from .settle import Event, Flow, buried, insert, settle

__all__ = ["apply", "commit", "cycle", "end", "end_id", "load", "look", "save"]

T = TypeVar("T")


# Writing.


def _create(session: Session, mine: Mapping[str, bytes], before: Header, rules: Rules) -> Flow[None]:
    """Store `session` for the first time. What is empty and nobody's is not worth a record."""
    header = with_wishes(session, before, mine, rules)
    if header is None or not (mine or header.owned or rules.keeps_empty):
        return
    session_id, session.next_id = session.next_id, None  # a second attempt must not meet the first
    new = yield from enrolment.listed((yield from insert(header, mine, rules, session_id)), session, rules)
    _hold(session, new)
    yield Event("created", session.handle or "")


def _hold(session: Session, other: Session) -> None:
    if other.id is not None and other.stored is not None:
        session.hold(other.id, other.stored, other.token)


def _fresh(rules: Rules) -> Header:
    return Header(Kind.LIVE, 0, (), rules.now())


def save(session: Session, rules: Rules) -> Flow[None]:
    """Store what the request changed, merged with what others did meanwhile.

    A new session is created, one that has become empty is ended, one that did not change is left alone.

    Raises:
        SessionEnded, EncodeError, ValueTooLarge, StoreUnavailable
    """
    mine = session.fields.encoded()
    if session.stored is None:
        yield from _create(session, mine, _fresh(rules), rules)
        return
    changed = mine != session.stored.fields or session.fields.cleared or session.forced
    if changed or session.idle_ttl is not None or session.expires_at is not None:
        yield from _write(session, mine, lambda merged: merged, rules)


def _write(
    session: Session,
    mine: Mapping[str, bytes],
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    rules: Rules,
    *,
    exactly_once: bool = False,
) -> Flow[None]:
    """Store `change` of what `mine` and the others' writes come to; end the session where nothing is left of
    it.
    """
    base, known, replaces = session.stored, session.stored, session.fields.cleared
    handle, session_id, reason = session.handle or "", session.id or "", ""
    if base is None:
        raise ValueError("only a stored session can be written to")
    before, leaves = base.header, session.leaves_its_owner

    def decide(theirs: Record) -> Record | None:
        nonlocal reason
        fields = change(OpaqueDict(mine) if replaces else merge_into(theirs, base, mine))
        header = with_wishes(session, nobodys(theirs.header) if leaves else theirs.header, fields, rules)
        reason = "expired" if header is None else "emptied"
        if header is None or not (fields or (header.owned and not replaces) or rules.keeps_empty):
            return buried(theirs)
        settled = fields == theirs.fields and header == theirs.header
        if settled and not (session.forced and theirs is known):
            return None
        return Record(enrolment.to_be_looked_after(header, rules), fields)

    record, token = yield from settle(session, decide, rules, exactly_once=exactly_once)
    if record is known and exactly_once and session.token is not None:
        # Nothing to write as far as this request knows; only the store knows whether that is still so.
        session.token = None
        record, token = yield from settle(session, decide, rules, exactly_once=True)
    if record.header.kind is Kind.TOMBSTONE:
        session.let_go()
        session.fields.rebase({})
        yield Event("ended", handle, reason)
        yield from enrolment.off_the_list(before, handle, rules)
        return
    session.hold(session_id, record, token)
    if record.header.owner != before.owner:
        # Whoever signs in without a new id.
        yield from enrolment.off_the_list(before, handle, rules)
        yield from enrolment.listed(session, session, rules)
    elif record.header.looked_after != before.looked_after:
        yield from enrolment.look_after(session, rules)


def apply(session: Session, change: Callable[[Fields], T], rules: Rules) -> Flow[T]:
    """Run `change` on the newest fields and store the result; again on a conflict. Returns what `change`
    returned.

    What the request changed so far is part of those fields, and is stored with them. `change` may run more
    than once, so it should do nothing but compute; when it raises, nothing is stored.

    Raises:
        SessionEnded, EncodeError, ValueTooLarge, StoreUnavailable, OutcomeUnknown
    """
    results = OpaqueList[T]()
    broken: list[DecodeError] = []

    def run(fields: Mapping[str, bytes]) -> dict[str, bytes]:
        newest = rules.fields(fields)
        newest.on_unreadable = broken.append
        result = change(newest)
        if broken:
            raise SessionEnded(f"session {session.handle} cannot be read and counts as none") from broken[0]
        results.append(result)
        return newest.encoded()

    mine = session.fields.encoded()
    if session.stored is None:
        yield from _create(session, run(mine), _fresh(rules), rules)
    else:
        yield from _write(session, mine, run, rules, exactly_once=True)
    return results[-1]


# A new id, and the end.


def cycle(session: Session, rules: Rules, owner: str | None = None) -> Flow[None]:
    """Give the session a new id, and end the old one. With `owner`, it is theirs from now on (login).

    The new record is stored before the old one ends, so that an outage in between loses nobody. What others
    changed under the old id before it ended moves along.

    Raises:
        SessionEnded: the old session was ended meanwhile; so is the new one.
        EncodeError, ValueTooLarge, StoreUnavailable
    """
    mine, old, replaces = session.fields.encoded(), session.stored, session.fields.cleared
    header = (old.header if old is not None else _fresh(rules))._replace(revisions=())
    if session.leaves_its_owner:
        header = nobodys(header)
    if owner is not None:
        # Signing in starts the absolute timeout anew.
        header = header._replace(owner=rules.owner_hash(owner), authenticated_at=rules.now(), expires_at=0)
    if old is None:
        yield from _create(session, mine, header, rules)
        return
    target = with_wishes(session, header, mine, rules)
    if target is None:
        yield from _bury_now(session, rules, "expired")
        session.fields.rebase({})
        return
    if not (mine or rules.keeps_empty or (header.owned and (owner is not None or not replaces))):
        # Nothing of this request's is left to move; what others put in may be.
        yield from save(session, rules)
        if session.stored is not None:
            yield from cycle(session, rules, owner)
        return
    session_id, session.next_id = session.next_id, None  # a second attempt must not meet the first
    new, handle = (yield from insert(target, mine, rules, session_id)), session.handle or ""
    yield from enrolment.listed(new, session, rules)

    def carry(theirs: Record) -> Flow[None]:
        merged = OpaqueDict(mine) if replaces else merge_into(theirs, old, mine)
        wishes = with_wishes(session, theirs.header, merged, rules) or theirs.header

        def decide(now: Record) -> Record | None:
            ends = now.header.expires_at if owner is not None else wishes.expires_at
            carried = now.header._replace(idle_ttl=wishes.idle_ttl, expires_at=ends)
            return None if (now.fields, now.header) == (merged, carried) else Record(carried, merged)

        new.stored, new.token = yield from settle(new, decide, rules)

    try:
        yield from settle(session, buried, rules, carry=carry, insist=True)
    except SessionEnded:
        yield from enrolment.discard(new, rules)
        yield from enrolment.off_the_list(target, new.handle or "", rules)
        raise
    except SessionError:
        if target.owned:  # else the list would name it, which nobody knows, beside the one that lives
            yield from enrolment.discard(new, rules)
        raise
    _hold(session, new)
    yield Event("cycled", handle, session.handle or "")
    if old.header.owner != target.owner:
        yield from enrolment.off_the_list(old.header, handle, rules)


def end(session: Session, rules: Rules, reason: str = "logout") -> Flow[bool]:
    """End the session for good. Returns whether this call did it: False where it had ended already.

    Raises:
        StoreUnavailable: it may still be there.
    """
    ended = yield from _bury(session, rules, reason)
    session.fields.rebase({})
    return ended


def _bury(session: Session, rules: Rules, reason: str) -> Flow[bool]:
    handle, before = session.handle or "", session.stored
    ended = before is not None
    if ended:
        try:
            yield from settle(session, buried, rules)
        except SessionEnded:
            ended = False
    session.let_go()
    if ended and before is not None:
        yield Event("ended", handle, reason)
        yield from enrolment.off_the_list(before.header, handle, rules)
    return ended


def _bury_now(session: Session, rules: Rules, reason: str) -> Flow[None]:
    """End the session, and raise SessionEnded if somebody else did so since it was read."""
    known, handle = session.stored is not None, session.handle
    if not (yield from _bury(session, rules, reason)) and known:
        raise SessionEnded(f"session {handle} had ended, or got a new id, before this request ended it")


def end_id(session_id: object, rules: Rules) -> Flow[bool]:
    """End the session with that id. An id that the store does not know writes nothing. Two round trips."""
    session = yield from load(session_id, replace(rules, sliding=False))
    return False if session is None else (yield from end(session, rules))


def commit(session: Session, rules: Rules) -> Flow[None]:
    """Do what the request wished for: end, cycle, or save.

    Raises:
        SessionEnded, EncodeError, ValueTooLarge, StoreUnavailable
    """
    if session.ending:
        session.fields.encoded()  # what cannot be stored is said before anything is sent
        yield from _bury_now(session, rules, "logout")
    if session.cycling or session.owner is not None:
        yield from cycle(session, rules, session.owner)
        session.cycling, session.owner = False, None
    else:
        yield from save(session, rules)
