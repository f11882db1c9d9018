"""The list of an owner's sessions as the store has it: how it is read, and changed until the change holds."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from .clients.base import ABSENT, Conflict, Entry, Read, Stored, Write
from .exceptions import DecodeError, StoreUnavailable
from .record import REVISION_BYTES, Header, Kind, Record, following, includes, pack, unpack
from .session import OWNED_ABSOLUTE_TIMEOUT, Rules, index_name
from .settle import Event, Flow, Sleep
from .turns import Turns

_ATTEMPTS: Final = 200
# A list outlives the sessions on it by so much, in seconds: clocks differ.
_LONGER: Final = 600


@dataclass(slots=True)
class OwnerList:
    """An owner's list as it was read. `header` is None where the store has none."""

    owner: bytes
    header: Header | None = None
    listed: dict[str, bytes] = field(default_factory=dict)
    token: bytes = ABSENT

    def is_lost(self, rules: Rules) -> bool:
        """Whether there may be sessions that are not listed, as the store has lost an earlier list."""
        header = self.header
        return header is None or bool(header.idle_end and rules.now() < header.created + lifetime(rules))


def lifetime(rules: Rules) -> int:
    """Seconds for which somebody stays signed in at most."""
    return rules.absolute_timeout or OWNED_ABSOLUTE_TIMEOUT


def read(owner: bytes, rules: Rules) -> Flow[OwnerList]:
    return _opened(owner, (yield Read(rules.index_key(owner))), rules)


def _opened(owner: bytes, entry: Entry | None, rules: Rules) -> OwnerList:
    if entry is None:
        return OwnerList(owner)
    try:
        record = unpack(entry.value, rules.owner_seal(owner))
    except DecodeError:
        record = None
    if record is None or record.header.kind is not Kind.INDEX:
        # As good as lost, with its key, say; what is stored next takes its place.
        return OwnerList(owner, token=entry.token)
    return OwnerList(owner, record.header, dict(record.fields), entry.token)


@dataclass(frozen=True, slots=True)
class Next:
    """What a list is to become."""

    listed: Mapping[str, bytes]
    is_lost: bool | None = None
    """Whether there may be others, as the store has lost an earlier list; None: as before."""
    ends_others: bool = False
    """Whether whoever is not listed has been signed out."""


def change(owner: bytes, decide: Callable[[OwnerList], Flow[Next | None]], rules: Rules) -> Flow[None]:
    """Store what `decide` makes of the newest list, until it holds; None leaves it as it is."""
    key, revision, turns = rules.index_key(owner), secrets.token_bytes(REVISION_BYTES), Turns(rules.clock)
    found: OwnerList | None = None
    for attempt in range(_ATTEMPTS):
        if pause := turns.pause_before(attempt):
            yield Sleep(pause)
        if found is None or pause:
            found = yield from read(owner, rules)
        decision = yield from decide(found)
        if decision is None:
            return
        record, ttl = _stamped(found, decision, revision, rules)
        reply: Stored | Conflict = yield Write(key, pack(record, rules.owner_seal(owner)), ttl, found.token)
        if isinstance(reply, Stored):
            return
        found = _opened(owner, reply.entry, rules)
        if found.header is not None and includes(found.header, revision):
            return  # the reply was lost, not the write
    raise StoreUnavailable(
        f"the list of a user's sessions changed {_ATTEMPTS} times while this change waited for its turn. Try again."
    )


def _stamped(found: OwnerList, decision: Next, revision: bytes, rules: Rules) -> tuple[Record, int]:
    now, ttl = rules.now(), lifetime(rules) + _LONGER
    # Of what was lost, nobody knows how many writes it had.
    header = found.header or Header(Kind.INDEX, 0, (), now, owner=found.owner)
    if found.header is None and found.token != ABSENT:
        header = header._replace(idle_end=now)
    header = following(header, revision)._replace(expires_at=now + ttl)
    if decision.ends_others:
        header = header._replace(authenticated_at=now)
    if decision.is_lost is not None:
        header = header._replace(idle_end=now if decision.is_lost else 0)
    return Record(header, decision.listed), ttl


def index_lost(owner: bytes) -> Event:
    return Event("index_lost", index_name(owner))
