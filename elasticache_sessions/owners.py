"""What an owner asks of his sessions: which there are, and that one ends, or all. Generators, as `flows`.

What holds for every interleaving:
- a session that is listed is taken off only when it was looked at and is gone, or its absolute end has passed;
- nobody is signed in with more sessions than the rules allow (`enrolment`);
- a list that the store has lost never reads as "no sessions".
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from .enrolment import has_escaped, owned_header, withdraw
from .exceptions import IndexLost, StoreUnavailable
from .index import Listed, SessionInfo, newest_first
from .owner_list import Next, OwnerList, change, index_lost, read
from .seen import (
    SIGNED_OUT,
    end_handle,
    end_seen,
    entry_of,
    glances_at,
    info_of,
    is_gone,
    is_of,
    living_as,
    searched_for,
)
from .session import Rules, Session, is_handle
from .settle import Flow


def for_user(owner: bytes, rules: Rules, current: Session | None = None) -> Flow[list[SessionInfo]]:
    """What is known of an owner's sessions. One round trip for the list, and one look at all that are on it.

    Raises:
        IndexLost: the store has lost the list, and cannot be searched. Once some have put themselves back, those are told.
    """
    if current is not None and not is_of(current, owner):
        current = None
    found = yield from _complete(owner, rules, current)
    infos, gone = [], []
    for handle, glance in (yield from glances_at(found.listed, rules)).items():
        header = living_as(glance, owner, rules)
        if header is not None and glance is not None:
            own = current is not None and handle == current.handle
            listed = Listed.unpacked(found.listed[handle])
            infos.append(info_of(handle, header, listed, glance.ttl_left, rules, current=own))
        elif is_gone(glance, owner, rules):
            gone.append(handle)
    if gone:
        with suppress(StoreUnavailable):  # next time, then
            yield from withdraw(owner, gone, rules)
    if not infos and not rules.can_scan and found.is_lost(rules):
        raise IndexLost(_REMEDY.format(""))
    return newest_first(infos)


def end_one(owner: bytes, handle: str, rules: Rules, reason: str) -> Flow[bool]:
    """End a session of that owner by its public name, also if it gets another one meanwhile. Returns whether there was one."""
    if not is_handle(handle):
        return False
    ended = False

    def decide(found: OwnerList) -> Flow[Next | None]:
        nonlocal ended
        ends = [
            handle,
            *(new for new, entry in found.listed.items() if Listed.unpacked(entry).instead_of == handle),
        ]
        for each, glance in (yield from glances_at(ends, rules)).items():
            ended |= yield from end_seen(owner, each, glance, rules, reason)
        if found.header is None:
            yield index_lost(owner)
            return None
        rest = {each: entry for each, entry in found.listed.items() if each not in ends}
        return None if len(rest) == len(found.listed) else Next(rest)

    yield from change(owner, decide, rules)
    return ended


def end_all(owner: bytes, rules: Rules, reason: str, keep: Session | None = None) -> Flow[int]:
    """End all sessions of an owner but `keep`; those as well that sign in meanwhile. Returns how many.

    Raises:
        IndexLost: the store has lost the list, or an earlier one, and cannot be searched. What is listed has ended.
    """
    if keep is not None and not is_of(keep, owner):
        keep = None
    ended, lost = 0, False

    def decide(found: OwnerList) -> Flow[Next]:
        nonlocal ended, lost
        lost, listed = found.is_lost(rules), found.listed
        if lost:
            listed = (yield from searched_for(owner, rules)) | listed
            if listed or not rules.can_scan:
                yield index_lost(owner)
        kept = {}
        if keep is not None and keep.handle is not None:
            listed.setdefault(keep.handle, entry_of(owned_header(keep), keep.origin, rules).packed())
            kept = {keep.handle: listed.pop(keep.handle)}
        for handle, glance in (yield from glances_at(listed, rules)).items():
            ended += yield from end_seen(owner, handle, glance, rules, reason)
        lost = lost and not rules.can_scan
        return Next(kept, is_lost=lost, ends_others=True)

    yield from change(owner, decide, rules)
    if lost:
        raise IndexLost(_REMEDY.format(f"The {ended} that were listed have ended. "))
    return ended


def _complete(owner: bytes, rules: Rules, current: Session | None) -> Flow[OwnerList]:
    """The list, with `current` on it. Where it is lost, it is made anew of what the store holds."""
    found = yield from read(owner, rules)
    missing = current is not None and current.handle not in found.listed
    if missing and current is not None and has_escaped(current, found):
        yield from end_handle(owner, current.handle or "", rules, SIGNED_OUT)
        current, missing = None, False
    lost = found.is_lost(rules)
    if not missing and (found.header is not None if not rules.can_scan else not lost):
        return found
    searched = yield from searched_for(owner, rules)
    if missing and current is not None:
        entry = entry_of(owned_header(current), current.origin, rules)
        searched[current.handle or ""] = entry.packed()
    if searched or not rules.can_scan:
        yield index_lost(owner)

    def decide(now: OwnerList) -> Flow[Next]:
        yield from ()
        found.listed = {**searched, **now.listed}
        return Next(found.listed, is_lost=not rules.can_scan)

    if searched or rules.can_scan:
        yield from change(owner, decide, rules)
    if found.header is None and not rules.can_scan:
        raise IndexLost(_REMEDY.format(""))
    return found


_REMEDY: Final = (
    "the store has lost the list of a user's sessions, as it had no room for it; or the user has not signed in for as long as "
    "ABSOLUTE_TIMEOUT. {}Memcached cannot be searched for others: each puts itself on the list again, or ends where all were to "
    "end, when it is next changed, an hour or more after it was last looked for; one that is only read goes on until its own "
    "end. Give the nodes more memory, so that it does not happen again."
)
