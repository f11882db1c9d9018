"""A session gets on its owner's list before anybody has its id, and off it when it has ended: generators, as `flows`."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Final

from .exceptions import SessionEnded, SessionError, StoreUnavailable, TooManySessions
from .index import MOST_SESSIONS, UNKNOWN_ORIGIN, Listed, old_handles, oldest_first, without_those_over
from .owner_list import Next, OwnerList, change, index_lost, lifetime, read
from .record import Header
from .seen import SIGNED_OUT, end_handle, entry_of, is_of, is_there, still_there
from .session import Rules, Session
from .settle import Event, Flow, buried, ended_meanwhile, settle

# From so many on, each sign-in looks whether the oldest are still there, at so many of them.
_MANY: Final = 256
_LOOKED_AT: Final = 32


def enrol(owner: bytes, handle: str, entry: Listed, rules: Rules, old: Session | None = None) -> Flow[None]:
    """Put a session on the list, before anybody has its id. Where there are too many, the oldest end first.

    `old`: the stored session that goes on under the new id, whoever it belongs to; it has not ended yet. If it is that owner's
    it stays on the list beside the new one: whichever of the two comes to live is listed.

    Raises:
        TooManySessions
        SessionEnded: the old one had ended, or was to have.
    """
    before = old if old is not None and is_of(old, owner) else None

    def decide(found: OwnerList) -> Flow[Next]:
        listed, is_lost, here = _may_live(found, rules), None, entry
        # Whoever searched for a lost list may have found it already, but has not asked whether there is room.
        listed.pop(handle, None)
        had = None
        if before is not None and before.handle is not None:
            had = listed.get(before.handle)
            if had is None:
                if has_escaped(before, found) and entry.signed_in_at == owned_header(before).authenticated_at:
                    raise SessionEnded(_ESCAPED.format(before.handle))
                yield index_lost(owner)
                is_lost = True
            here = replace(entry, instead_of=before.handle)
        if had is None:
            listed = yield from _with_room(owner, listed, rules, old, may_refuse=before is None)
        else:
            known = Listed.unpacked(had)
            # Whoever asks for another id has got the one before, so that what it had before that one has ended.
            listed.pop(known.instead_of, None)
            if entry.origin == UNKNOWN_ORIGIN:
                here = replace(here, origin=known.origin)
        if before is not None and before.handle is not None:
            listed.setdefault(before.handle, entry_of(owned_header(before), UNKNOWN_ORIGIN, rules).packed())
        return Next({**listed, handle: here.packed()}, is_lost=is_lost)

    yield from change(owner, decide, rules)


def _may_live(found: OwnerList, rules: Rules) -> dict[str, bytes]:
    return without_those_over(found.listed, rules.now(), lifetime(rules))


_ESCAPED: Final = "session {} was signed out together with all others of its owner"


def _with_room(
    owner: bytes, listed: dict[str, bytes], rules: Rules, old: Session | None, *, may_refuse: bool
) -> Flow[dict[str, bytes]]:
    """`listed`, where there is room for one more."""
    limit = min(rules.max_sessions or MOST_SESSIONS, MOST_SESSIONS)

    def too_many() -> int:
        return max(0, len(listed) - len(old_handles(listed)) - limit + 1)

    if too_many():
        listed = yield from still_there(owner, listed, listed, rules)
    elif len(listed) >= _MANY:
        listed = yield from still_there(owner, listed, oldest_first(listed)[:_LOOKED_AT], rules)
    if not too_many():
        return listed
    if old is not None and old.handle is not None and not (yield from is_there(old.handle, rules)):
        # Somebody clicked twice: nobody is to end for the second time, or to be told of a limit.
        raise ended_meanwhile(old.handle)
    if may_refuse and rules.on_limit == "refuse" and rules.max_sessions is not None:
        count = len(listed) - len(old_handles(listed))
        raise TooManySessions(
            f"the user is signed in with {count} sessions already. Have one of them signed out first (`for_user`, `end`), or "
            "raise ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER."
        )
    superseded = old_handles(listed)
    oldest = [handle for handle in oldest_first(listed) if handle not in superseded]
    for handle in oldest[: too_many()]:
        for ends in (handle, Listed.unpacked(listed[handle]).instead_of):
            if listed.pop(ends, None) is not None:
                yield from end_handle(owner, ends, rules, "limit")
    return listed


def withdraw(owner: bytes, handles: Collection[str], rules: Rules) -> Flow[None]:
    """Take sessions that have ended off the list. The list stays, even when it is empty."""

    def decide(found: OwnerList) -> Flow[Next | None]:
        if found.header is None:
            yield index_lost(owner)
            return None
        if not found.listed.keys() & set(handles):
            return None
        listed = _may_live(found, rules)
        return Next({handle: entry for handle, entry in listed.items() if handle not in handles})

    yield from change(owner, decide, rules)


def to_be_looked_after(header: Header, rules: Rules) -> Header:
    """`header` as it is written; where that says another hour than before, `look_after` is to follow."""
    if not header.owned:
        return header
    hour = max(0, rules.now() - header.authenticated_at) // 3600 % 16
    return header if header.looked_after == hour else header._replace(looked_after=hour)


def look_after(session: Session, rules: Rules) -> Flow[None]:
    """See that a session which is signed in is on its owner's list: the store may have lost that.

    Raises:
        SessionEnded: all sessions of its owner were ended, and it escaped that, as it was not listed. Now it has ended.
    """
    try:
        if (yield from _put_back(session, rules)):
            return
    except StoreUnavailable:
        return  # in an hour, then
    yield from discard(session, rules, SIGNED_OUT)
    raise SessionEnded(_ESCAPED.format(session.handle))


def _put_back(session: Session, rules: Rules) -> Flow[bool]:
    """Returns whether it is on the list now; False: it may not be."""
    header, handle = owned_header(session), session.handle or ""
    found = yield from read(header.owner, rules)
    if handle in found.listed:
        return True
    if has_escaped(session, found):
        return False
    yield index_lost(header.owner)

    def decide(now: OwnerList) -> Flow[Next]:
        yield from ()
        entry = entry_of(header, session.origin, rules).packed()
        return Next({**now.listed, handle: entry}, is_lost=True)

    yield from change(header.owner, decide, rules)
    return True


def has_escaped(session: Session, found: OwnerList) -> bool:
    """Whether a session that is not listed was to be ended together with all others."""
    return (
        found.header is not None and owned_header(session).authenticated_at <= found.header.authenticated_at
    )


def owned_header(session: Session) -> Header:
    if session.stored is None or not session.stored.header.owned:
        raise ValueError("only a stored session that has an owner is on a list")
    return session.stored.header


def listed(new: Session, old: Session, rules: Rules) -> Flow[Session]:
    """`new`, on its owner's list if it has one, before anybody has its id. It ends where that cannot be.

    `old`: what goes on as `new`; not stored, if that begins with it; the same, if it gets no new id.
    """
    header = new.stored.header if new.stored is not None else None
    if header is None or not header.owned:
        return new
    entry = entry_of(header, old.origin, rules)
    goes_on = old if old.stored is not None and old is not new else None
    try:
        yield from enrol(header.owner, new.handle or "", entry, rules, goes_on)
    except SessionEnded:
        yield from discard(new, rules)
        yield from discard(old, rules, SIGNED_OUT)
        raise
    except SessionError:  # too many, a store that fails, a list that is too large for it
        yield from discard(new, rules)
        raise
    return new


def discard(session: Session, rules: Rules, reason: str | None = None) -> Flow[None]:
    """End one, if the store lets us. Without a reason: one that nobody has got to know, so nobody is told."""
    if session.stored is None:
        return
    with suppress(StoreUnavailable, SessionEnded):
        yield from settle(session, buried, rules)
        if reason is not None:
            yield Event("ended", session.handle or "", reason)


def off_the_list(header: Header, handle: str, rules: Rules) -> Flow[None]:
    """It has ended, which is what matters; a list that still names it is put right when it is looked at."""
    if header.owned:
        with suppress(StoreUnavailable):
            yield from withdraw(header.owner, [handle], rules)
