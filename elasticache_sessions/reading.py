"""How a session is looked up: generators, as `flows`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, Protocol
from weakref import ref

from .clients.base import Entry, Read, slides_to
from .exceptions import DecodeError, SessionEnded, ValueTooLarge
from .fields import Fields
from .record import Header, Kind, Record
from .session import Rules, Session, as_id, fixed_end_of, handle_of, ttl_of
from .settle import Event, Flow, lives, opened, settle


def load(
    session_id: object, rules: Rules, held: Callable[[Mapping[str, bytes]], Fields] | None = None
) -> Flow[Session | None]:
    """The session with that id, or None: unknown, ended, expired, unreadable, or no id at all. One round trip
    at most. `held`: where what is stored is put, if not in fields of its own.
    """
    found = yield from look(session_id, rules, held)
    return found if isinstance(found, Session) else None


def look(
    session_id: object, rules: Rules, held: Callable[[Mapping[str, bytes]], Fields] | None = None
) -> Flow[Session | Literal["ended", "unreadable"] | None]:
    """As `load`, but says where something is that is no session (any more): "ended", the tombstone of one that was ended,
    or got another id, not long ago; or "unreadable".
    """
    if (session_id := as_id(session_id)) is None:
        return None
    touch = rules.idle_timeout if rules.sliding else None
    entry: Entry | None = yield Read(rules.key(session_id), touch, rules.now())
    if entry is None:
        # Unknown, idle for too long, or evicted where the store needed room: nobody can tell them apart.
        yield Event("missing", handle_of(session_id))
        return None
    record = yield from opened(entry, session_id, rules)
    if record is None:
        return "unreadable"
    if not lives(record.header, rules):
        return "ended" if record.header.kind is Kind.TOMBSTONE else None
    token: bytes | None = entry.token
    if touch is not None and _slides_by_a_write(record.header, rules):
        try:
            record, token = yield from _slide(session_id, record, token, rules)
        except SessionEnded:
            return "ended"
        except ValueTooLarge:
            pass  # the limit is lower than it was: read as ever, it just does not slide
    if held is not None:
        return Session(session_id, held(record.fields), record, token, entry.ttl_left)
    session = Session(session_id, rules.fields(record.fields), record, token, entry.ttl_left)
    session.fields.on_unreadable = heard_by(session)
    return session


def _slides_by_a_write(header: Header, rules: Rules) -> bool:
    """Whether a record that was read with a blind touch is to be written anew, for the sake of its own idle TTL."""
    if not (rules.blind_touch and header.idle_ttl):
        return False
    if ttl_of(header, rules) > rules.idle_timeout:
        return True  # the touch has cut its TTL to the store-wide one
    left, end = header.idle_end - rules.now(), fixed_end_of(header, rules)
    return slides_to(rules.idle_timeout, header.idle_ttl, end, rules.now(), left) is not None


def _slide(
    session_id: str, record: Record, token: bytes | None, rules: Rules
) -> Flow[tuple[Record, bytes | None]]:
    """Write `record` as it is, with a new end of its own idle TTL. What another wrote meanwhile slid it as well.

    The blind touch before it has set the store-wide TTL already. Should this process die in between, a session with
    a longer idle TTL of its own is left with the store-wide one, and a later read gives it back its own.
    """
    session = Session(session_id, stored=record, token=token)
    return (yield from settle(session, lambda theirs: theirs if theirs is record else None, rules))


class Reader(Protocol):
    """Who has read fields, and is to know where one of them cannot be decoded."""

    def give_up(self, error: DecodeError) -> None: ...


def heard_by(reader: Reader) -> Callable[[DecodeError], None]:
    """For the `on_unreadable` of fields that the reader holds: where they held it as well, both would stay until the garbage
    collector comes, and have it come more often.
    """
    return partial(_give_up, ref(reader))


def _give_up(known: ref[Reader], error: DecodeError) -> None:
    if (reader := known()) is not None:
        reader.give_up(error)
