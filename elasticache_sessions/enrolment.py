"""A session gets on its owner's list before anybody has its id, and off it when it has ended: generators, as `flows`."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Final

from .exceptions import SessionEnded, StoreUnavailable, TooManySessions
from .index import (
    UNKNOWN_ORIGIN,
    Listed,
    oldest_first,
    without_those_over,
)
from .owner_list import Next, OwnerList, change, index_lost, read
from .record import (
    Header,
)
from .seen import (
    end_handle,
    entry_of,
    still_there,
)
from .session import (
    Rules,
    Session,
)
from .settle import Event, Flow, buried, settle

# The most that anybody is signed in with, whatever the rules say: a list is one value in the store.
_MOST: Final = 2_000
# From so many on, each sign-in looks whether the oldest are still there, at so many of them.
_MANY: Final = 256
_LOOKED_AT: Final = 32


def enrol(
    owner: bytes, handle: str, entry: Listed, rules: Rules, *, in_place_of: str | None = None
) -> Flow[None]:
    """Put a session on the list, before anybody has its id. Where there are too many, the oldest end first.

    `in_place_of`: the handle that it had until now.

    Raises:
        TooManySessions
    """

    def decide(found: OwnerList) -> Flow[Next]:
        listed = without_those_over(found.listed, rules.now())
        had = listed.pop(in_place_of, None) if in_place_of is not None else None
        # Whoever searched for a lost list may have found it already, but has not asked whether there is room.
        listed.pop(handle, None)
        if had is None:
            listed = yield from _with_room(found.owner, listed, rules, may_refuse=in_place_of is None)
        here = entry
        if had is not None and entry.origin == UNKNOWN_ORIGIN:
            here = replace(entry, origin=Listed.unpacked(had).origin)
        return Next({**listed, handle: here.packed()})

    yield from change(owner, decide, rules)


def _with_room(
    owner: bytes, listed: dict[str, bytes], rules: Rules, *, may_refuse: bool
) -> Flow[dict[str, bytes]]:
    """`listed`, where there is room for one more."""
    limit = min(rules.max_sessions or _MOST, _MOST)
    if len(listed) >= limit:
        listed = yield from still_there(owner, listed, listed, rules)
    elif len(listed) >= _MANY:
        listed = yield from still_there(owner, listed, oldest_first(listed)[:_LOOKED_AT], rules)
    if len(listed) < limit:
        return listed
    if may_refuse and rules.on_limit == "refuse":
        raise TooManySessions(
            f"the user is signed in with {len(listed)} sessions already. Have one of them signed out first (`for_user`, "
            "`end`), or raise ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER."
        )
    for oldest in oldest_first(listed)[: len(listed) - limit + 1]:
        yield from end_handle(owner, oldest, rules, "limit")
        del listed[oldest]
    return listed


def withdraw(owner: bytes, handles: Collection[str], rules: Rules) -> Flow[None]:
    """Take sessions that have ended off the list. The list stays, even when it is empty."""

    def decide(found: OwnerList) -> Flow[Next | None]:
        if found.header is None:
            yield index_lost(owner)
            return None
        if not found.listed.keys() & set(handles):
            return None
        listed = without_those_over(found.listed, rules.now())
        return Next({handle: entry for handle, entry in listed.items() if handle not in handles})

    yield from change(owner, decide, rules)


def to_be_looked_after(header: Header, rules: Rules) -> Header:
    """`header` as it is written; where that says another hour than before, `look_after` is to follow."""
    if not header.owned:
        return header
    hour = max(0, rules.now() - header.authenticated_at) // 3600
    return replace(header, looked_after=hour % 16)


def look_after(session: Session, rules: Rules) -> Flow[None]:
    """See that a session which is signed in is on its owner's list: the store may have lost that.

    Raises:
        SessionEnded: all sessions of its owner were ended, and it escaped that, as it was not listed. Now it has ended.
    """
    try:
        escaped = yield from _put_back(session, rules)
        if escaped:
            handle = session.handle or ""
            yield from settle(session, buried, rules)
            yield Event("ended", handle, "signed_out")
            raise SessionEnded(f"session {handle} was signed out together with all others of its owner")
    except StoreUnavailable:
        return  # in an hour, then


def _put_back(session: Session, rules: Rules) -> Flow[bool]:
    """Returns whether it may not be put back."""
    header, handle = owned_header(session), session.handle or ""
    found = yield from read(header.owner, rules)
    if handle in found.listed:
        return False
    if has_escaped(session, found):
        return True
    yield index_lost(header.owner)

    def decide(now: OwnerList) -> Flow[Next]:
        yield from ()
        entry = entry_of(header, session.origin, rules).packed()
        return Next({**now.listed, handle: entry}, is_lost=True)

    yield from change(header.owner, decide, rules)
    return False


def has_escaped(session: Session, found: OwnerList) -> bool:
    """Whether a session that is not listed was to be ended together with all others."""
    return (
        found.header is not None and owned_header(session).authenticated_at <= found.header.authenticated_at
    )


def owned_header(session: Session) -> Header:
    if session.stored is None or not session.stored.header.owned:
        raise ValueError("only a stored session that has an owner is on a list")
    return session.stored.header


def listed(new: Session, session: Session, rules: Rules, old: Header | None = None) -> Flow[Session]:
    """`new`, on its owner's list if it has one, before anybody has its id; in the place of `session` if that was theirs, by
    `old`. It ends where that cannot be.
    """
    header = new.stored.header if new.stored is not None else None
    if header is None or not header.owned:
        return new
    before = session.handle if old is not None and old.owner == header.owner else None
    entry = entry_of(header, session.origin, rules)
    try:
        yield from enrol(header.owner, new.handle or "", entry, rules, in_place_of=before)
    except (StoreUnavailable, TooManySessions):
        yield from discard(new, rules)
        raise
    return new


def discard(new: Session, rules: Rules) -> Flow[None]:
    """End one that nobody has got to know."""
    if new.stored is not None:
        with suppress(StoreUnavailable, SessionEnded):
            yield from settle(new, buried, rules)


def off_the_list(header: Header, handle: str, rules: Rules) -> Flow[None]:
    """It has ended, which is what matters; a list that still names it is put right when it is looked at."""
    if header.owned:
        with suppress(StoreUnavailable):
            yield from withdraw(header.owner, [handle], rules)
