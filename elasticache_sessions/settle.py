"""One write, until it holds: the compare-and-set loop that every change of a record goes through.

Generators, as `flows`: they yield commands, `Sleep` and `Event`, and never do I/O.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from .clients.base import ABSENT, Command, Conflict, Entry, Look, Read, Scan, Stored, Write
from .exceptions import DecodeError, OutcomeUnknown, SessionEnded, StoreUnavailable, ValueTooLarge
from .record import KEPT_REVISIONS, REVISION_BYTES, Header, Kind, Record, following, includes, pack, unpack
from .session import Rules, Session, end_of, handle_of, new_id, ttl_of
from .turns import Turns

_ATTEMPTS: Final = 100
# One that hangs costs half of what is left of TIMEOUT.
_NODES_TRIED: Final = 3


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait that many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a log line, a counter or a signal. `handle` is the session's public name."""

    name: str
    handle: str
    detail: str = ""
    """What is wrong with what is "unreadable"; why a session "ended" ("logout", "signed_out", "limit", "emptied", "expired",
    "replaced" by another that begins with what it held, or what the caller of `end_all` says); the new handle of one that was
    "cycled"; what the operation failed with where the store was "unavailable". The `handle` of an "index_lost" is the list's.
    """


T = TypeVar("T")
Flow = Generator[Command | Look | Scan | Sleep | Event, Any, T]
"""An operation: yields commands and wishes, receives replies, returns a T."""


def settle(
    session: Session,
    decide: Callable[[Record], Record | None],
    rules: Rules,
    *,
    exactly_once: bool = False,
    insist: bool = False,
    carry: Callable[[Record], Flow[None]] | None = None,
) -> Flow[tuple[Record, bytes | None]]:
    """Write what `decide` makes of the newest record, until it holds. Returns what is there then, and its token.

    `decide` returns None to leave the record as it is. `carry` runs before each attempt, with what others
    wrote, if they did. With `insist`, a write that never heard back is sent once more.

    Raises:
        SessionEnded: there is no live record any more.
        OutcomeUnknown: with `exactly_once`, when nobody can tell whether a write was carried out.
    """
    session_id, known, token = session.id, session.stored, session.token
    if session_id is None or known is None:
        raise ValueError("only a stored session can be written to")
    current = known
    key, turns = rules.key(session_id), Turns(rules.clock)
    revision, at_least = secrets.token_bytes(REVISION_BYTES), 0
    for attempt in range(_ATTEMPTS):
        if pause := turns.pause_before(attempt):
            yield Sleep(pause)
        if token is None or pause:
            entry = yield Read(key)
            current, token = yield from _survivor(entry, session_id, rules)
            if current.header.revision == known.header.revision:
                current = known  # nobody wrote since; only its token was not known
        if carry is not None and current is not known:
            yield from carry(current)
        decision = decide(current)
        if decision is None:
            return current, token
        record, ttl = _stamped(decision, revision, rules, at_least)
        # Of two attempts that one of several nodes took each, the later one counts.
        at_least = record.header.generation + 1
        value = _sized(record, session_id, rules)
        try:
            reply: Stored | Conflict = yield Write(key, value, ttl, token, exactly_once)
        except StoreUnavailable as error:
            if exactly_once and error.sent:
                raise OutcomeUnknown(_UNKNOWN) from error
            if not (insist and error.sent):
                raise
            reply = yield Write(key, value, ttl, token)
        if isinstance(reply, Stored):
            return record, reply.token
        applied = _applied(reply.entry, revision, session_id, rules)
        if applied is not None:
            return applied
        current, token = yield from _survivor(reply.entry, session_id, rules)
        # Had an earlier sending been stored, it would be this generation; it shows among the last four, or it
        # is behind them.
        behind = current.header.generation - KEPT_REVISIONS >= record.header.generation
        if exactly_once and reply.resent and behind:
            raise OutcomeUnknown(_UNKNOWN)
        yield Event("conflict", handle_of(session_id))
    raise StoreUnavailable(
        f"the session changed {_ATTEMPTS} times while this change waited for its turn. Try again."
    )


_UNKNOWN: Final = (
    "the reply to a change was lost, and nobody can tell whether it was stored. "
    "Read the session again and decide whether to repeat it."
)


def _stamped(decision: Record, revision: bytes, rules: Rules, at_least: int = 0) -> tuple[Record, int]:
    """`decision` as the next generation, or that one, and its TTL in seconds."""
    header = following(decision.header, revision, at_least)
    ttl = ttl_of(header, rules)
    if header.kind is Kind.TOMBSTONE:
        # A tombstone stays as long as the record could have lived.
        ttl = max(1, ttl)
        header = header._replace(expires_at=rules.now() + ttl)
    # A blind touch may set any TTL, so there the record itself says when an idle TTL of its own ends. Not in
    # `expires_at`, which a session may have as well, and which does not slide.
    idles = rules.blind_touch and header.kind is Kind.LIVE and header.idle_ttl
    idle_end = rules.now() + header.idle_ttl if idles else 0
    if idle_end != header.idle_end:
        header = header._replace(idle_end=idle_end)
    return Record(header, decision.fields), ttl


def _sized(record: Record, session_id: str, rules: Rules) -> bytes:
    value = pack(record, rules.seal(session_id))
    if len(value) > rules.max_bytes:
        raise ValueTooLarge(
            f"the session would take {len(value):,} bytes and may take {rules.max_bytes:,}. "
            "Keep large things elsewhere and their key in the session, or raise ELASTICACHE_SESSIONS_MAX_BYTES."
        )
    return value


def _applied(
    entry: Entry | None, revision: bytes, session_id: str, rules: Rules
) -> tuple[Record, bytes] | None:
    """What `entry` holds if the write called `revision` is part of it: its reply was lost, not the write."""
    if entry is None:
        return None
    try:
        record = unpack(entry.value, rules.seal(session_id))
    except DecodeError:
        return None
    return (record, entry.token) if includes(record.header, revision) else None


def buried(record: Record) -> Record:
    return Record(record.header._replace(kind=Kind.TOMBSTONE))


def insert(
    header: Header, fields: Mapping[str, bytes], rules: Rules, session_id: str | None = None
) -> Flow[Session]:
    """A new record under a new id, or under one that `new_id` made for it.

    Where nodes fail one by one, a new session need not: nobody knows its id yet, so it may get another, on a node
    that lives.
    """
    revision = secrets.token_bytes(REVISION_BYTES)
    record, ttl = _stamped(Record(header, fields), revision, rules)
    session_id, failed = session_id or new_id(), set[str]()
    reply: Stored | Conflict | None = None
    while reply is None:
        try:
            value = _sized(record, session_id, rules)
            reply = yield Write(rules.key(session_id), value, ttl, ABSENT)
        except StoreUnavailable:
            elsewhere = _id_elsewhere(session_id, failed, rules)
            if elsewhere is None:
                raise
            session_id = elsewhere
    if isinstance(reply, Stored):
        return Session(session_id, stored=record, token=reply.token)
    applied = _applied(reply.entry, revision, session_id, rules)
    if applied is None:  # 240 random bits do not collide: somebody answers what was not asked
        raise StoreUnavailable(
            "the store says that a new, random session id is taken. Check what answers at its address."
        )
    return Session(session_id, stored=applied[0], token=applied[1])


def _id_elsewhere(session_id: str, failed: set[str], rules: Rules) -> str | None:
    """Another new id, on none of the nodes that failed; None where there is no other, or it has taken long enough."""
    if rules.node_of is None:
        return None
    failed.add(rules.node_of(rules.key(session_id)))
    if len(failed) >= _NODES_TRIED:
        return None
    others = (new_id() for _ in range(100))
    return next((other for other in others if rules.node_of(rules.key(other)) not in failed), None)


def opened(entry: Entry, session_id: str, rules: Rules) -> Flow[Record | None]:
    """The record in `entry`, whether it still lives or not; None: nobody can read it."""
    try:
        return unpack(entry.value, rules.seal(session_id))
    except DecodeError as error:
        yield Event("unreadable", handle_of(session_id), str(error))
        return None


def lives(header: Header, rules: Rules, late: int = 0) -> bool:
    """Whether it is a session that has not ended, or not so many seconds ago yet."""
    end = end_of(header, rules)
    return header.kind is Kind.LIVE and not (end and end + late <= rules.now())


def ended_meanwhile(handle: str) -> SessionEnded:
    return SessionEnded(f"session {handle} was ended, or got a new id, while this request was using it")


def _survivor(entry: Entry | None, session_id: str, rules: Rules) -> Flow[tuple[Record, bytes]]:
    record = None if entry is None else (yield from opened(entry, session_id, rules))
    if record is None or entry is None or not lives(record.header, rules):
        raise ended_meanwhile(handle_of(session_id))
    return record, entry.token
