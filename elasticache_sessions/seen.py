"""A session as others see it, who do not have its id: by its header, and the time that it has left."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from .clients.base import Glance, Look, Page, Replace, Scan
from .exceptions import DecodeError
from .index import CLOCKS_APART, UNKNOWN_ORIGIN, Listed, Origin, SessionInfo, moment
from .record import REVISION_BYTES, Header, Kind, Record, following, header_of, pack
from .session import FOREVER, Rules, Session, fixed_end_of, is_handle
from .settle import Event, Flow, lives

SIGNED_OUT: Final = "signed_out"
"""Why a session ended that its owner, or an administrator, ended from elsewhere."""
# To so many seconds it is known when a session was last used.
_WITHIN: Final = 60


def entry_of(header: Header, origin: Origin, rules: Rules) -> Listed:
    """What is listed of a session. An end of its own is none for the list, as it may be put off while the session lives."""
    return Listed(
        header.authenticated_at, fixed_end_of(header._replace(expires_at=0), rules) or FOREVER, origin
    )


def glances_at(handles: Collection[str], rules: Rules) -> Flow[dict[str, Glance | None]]:
    """What is seen of each, by its handle; asks nothing where there are none."""
    if not handles:
        return {}
    glances: tuple[Glance | None, ...] = yield Look(
        tuple(f"{rules.prefix}{handle}".encode() for handle in handles)
    )
    return dict(zip(handles, glances, strict=True))


def still_there(
    owner: bytes, listed: Mapping[str, bytes], asked: Collection[str], rules: Rules
) -> Flow[dict[str, bytes]]:
    """`listed` without those of the `asked` that are gone."""
    glances = yield from glances_at(asked, rules)
    gone = {handle for handle, glance in glances.items() if is_gone(glance, owner, rules)}
    return {handle: entry for handle, entry in listed.items() if handle not in gone}


def is_there(handle: str, rules: Rules) -> Flow[bool]:
    """Whether a session lives under that handle, whoever it belongs to."""
    header = _header_of((yield from glances_at([handle], rules))[handle])
    return header is not None and lives(header, rules)


def is_gone(glance: Glance | None, owner: bytes, rules: Rules) -> bool:
    """Whether a session that was that owner's is no more, by any clock. What this version cannot read may be a newer one's."""
    legible = glance is None or _header_of(glance) is not None
    return legible and living_as(glance, owner, rules, by_any_clock=True) is None


def _header_of(glance: Glance | None) -> Header | None:
    """None: nothing is there, or nothing that this version can read."""
    try:
        return None if glance is None else header_of(glance.header)
    except DecodeError:
        return None


def living_as(
    glance: Glance | None, owner: bytes, rules: Rules, *, by_any_clock: bool = False
) -> Header | None:
    """Its header, if it lives and is that owner's. `by_any_clock`: also where it may live for another instance alone, which would
    have it slide.
    """
    header, late = _header_of(glance), CLOCKS_APART if by_any_clock else 0
    return header if header is not None and header.owner == owner and lives(header, rules, late) else None


def end_seen(owner: bytes, handle: str, glance: Glance | None, rules: Rules, reason: str) -> Flow[bool]:
    header = living_as(glance, owner, rules, by_any_clock=True)
    if header is None or glance is None:
        return False
    now = rules.now()
    # As long as the record could have lived: a tombstone keeps whoever is still at work from writing.
    end = fixed_end_of(header, rules)
    ttl = max(1, end - now if end else int(glance.ttl_left or 0) + 1, int(glance.ttl_left or 0) + 1)
    buried = following(header, secrets.token_bytes(REVISION_BYTES))
    buried = buried._replace(kind=Kind.TOMBSTONE, expires_at=now + ttl, idle_end=0, key_number=0)
    value = pack(Record(buried))
    there: bool = yield Replace(f"{rules.prefix}{handle}".encode(), value, ttl)
    if there:
        yield Event("ended", handle, reason)
    return there


def is_of(session: Session, owner: bytes) -> bool:
    return session.stored is not None and session.stored.header.owner == owner


def end_handle(owner: bytes, handle: str, rules: Rules, reason: str) -> Flow[bool]:
    """End a session of that owner by its public name; the list is left as it is. Returns whether there was one."""
    glances = yield from glances_at([handle], rules)
    return (yield from end_seen(owner, handle, glances[handle], rules, reason))


def info_of(
    handle: str, header: Header, listed: Listed, ttl_left: float | None, rules: Rules, *, current: bool
) -> SessionInfo:
    used = _last_used(header, ttl_left, rules)
    slides = rules.sliding
    return SessionInfo(
        handle,
        moment(header.authenticated_at),
        used if slides else None,
        None if slides else used,
        listed.origin.user_agent,
        listed.origin.ip,
        current,
    )


def _last_used(header: Header, ttl_left: float | None, rules: Rules) -> datetime | None:
    """When its time began anew, from the time that it has left."""
    idle, end, now = header.idle_ttl or rules.idle_timeout, fixed_end_of(header, rules), rules.now()
    if rules.blind_touch and header.idle_ttl:
        used: float = header.idle_end - header.idle_ttl
    elif ttl_left is None or idle >= FOREVER:
        return None
    else:
        used = now + ttl_left - idle
        if end and now + ttl_left >= end - 1:
            # The TTL is cut short by the end of the session: it was used at any time since its idle time reaches beyond.
            used = max(end - idle, header.authenticated_at)
            if now - used > _WITHIN:
                return None
    return moment(min(max(used, header.authenticated_at), now))


def searched_for(owner: bytes, rules: Rules) -> Flow[dict[str, bytes]]:
    """All of an owner's sessions that the store holds, found by looking at every key of it; none where it cannot be searched."""
    found: dict[str, bytes] = {}
    prefix, cursor = rules.prefix.encode(), None
    while rules.can_scan:
        page: Page = yield Scan(prefix, cursor)
        names = [key.removeprefix(prefix).decode("ascii", "replace") for key in page.keys]
        handles = [name for name in names if is_handle(name)]
        for handle, glance in (yield from glances_at(handles, rules)).items():
            header = living_as(glance, owner, rules)
            if header is not None:
                found[handle] = entry_of(header, UNKNOWN_ORIGIN, rules).packed()
        cursor = page.cursor
        if cursor is None:
            break
    return found
