"""The three commands: read, write, replace."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final

from ..clients.base import ABSENT, Conflict, Entry, Look, Read, Replace, Stored, Write
from ..record import Kind
from .checks import Check, Question, new_key, new_value, until_gone


def _left(entry: Entry | None) -> float:
    assert entry is not None
    assert entry.ttl_left is not None, "a read with touch says how long the key has left"
    return entry.ttl_left


def a_key_that_holds_nothing_reads_as_none() -> Generator[Question, Any, None]:
    key = new_key()
    assert (yield Read(key)) is None
    assert (yield Read(key, touch=60, now=int(time.time()))) is None


def what_was_written_is_read() -> Generator[Question, Any, None]:
    key, value = new_key(), new_value()
    assert isinstance((yield Write(key, value, 60, ABSENT)), Stored)
    assert (yield Read(key)).value == value
    assert (yield Read(key, touch=60, now=int(time.time()))).value == value


def any_bytes_come_back_as_they_were() -> Generator[Question, Any, None]:
    for content in (b"", b"\r\n$-1\r\n\0\xff" * 9, bytes(range(256)) * 1200):
        key, value = new_key(), new_value(content=content)
        yield Write(key, value, 60, ABSENT)
        assert (yield Read(key)).value == value


def creating_where_something_is_conflicts_and_changes_nothing() -> Generator[Question, Any, None]:
    key, value = new_key(), new_value()
    yield Write(key, value, 60, ABSENT)
    reply = yield Write(key, new_value(), 60, ABSENT)
    assert isinstance(reply, Conflict)
    assert reply.entry is not None
    assert reply.entry.value == value
    assert (yield Read(key)).value == value


def a_write_with_the_newest_token_is_stored() -> Generator[Question, Any, None]:
    key = new_key()
    yield Write(key, new_value(), 60, ABSENT)
    for _ in range(3):
        entry, value = (yield Read(key)), new_value()
        reply = yield Write(key, value, 60, entry.token)
        assert isinstance(reply, Stored)
        entry = yield Read(key)
        assert entry.value == value
        assert reply.token in (None, entry.token), "the token that a write gave is that of the next read"


def a_write_with_an_old_token_conflicts_and_brings_what_is_there() -> Generator[Question, Any, None]:
    key = new_key()
    yield Write(key, new_value(), 60, ABSENT)
    old, newer = (yield Read(key)).token, new_value()
    yield Write(key, newer, 60, old)
    reply = yield Write(key, new_value(), 60, old)
    assert isinstance(reply, Conflict)
    assert reply.entry is not None
    assert reply.entry.value == newer
    # What the conflict brought is enough to write again.
    newest = new_value()
    assert isinstance((yield Write(key, newest, 60, reply.entry.token)), Stored)
    assert (yield Read(key)).value == newest


def of_two_writes_with_one_token_one_is_stored() -> Generator[Question, Any, None]:
    key = new_key()
    yield Write(key, new_value(), 60, ABSENT)
    token = (yield Read(key)).token
    first = yield Write(key, new_value(), 60, token)
    second = yield Write(key, new_value(), 60, token)
    assert (type(first), type(second)) == (Stored, Conflict)


def a_write_never_creates_what_it_did_not_read() -> Generator[Question, Any, None]:
    key = new_key()
    yield Write(key, new_value(), 1, ABSENT)
    token = (yield Read(key)).token
    yield from until_gone(key)
    assert (yield Write(key, new_value(), 60, token)) == Conflict(None)
    assert (yield Read(key)) is None


def replace_writes_only_where_something_is() -> Generator[Question, Any, None]:
    key, value = new_key(), new_value()
    assert (yield Replace(key, value, 60)) is False
    assert (yield Read(key)) is None
    yield Write(key, new_value(), 60, ABSENT)
    old = (yield Read(key)).token
    assert (yield Replace(key, value, 60)) is True
    assert (yield Read(key)).value == value
    assert isinstance((yield Write(key, new_value(), 60, old)), Conflict), "a replaced value has a new token"


def a_value_is_gone_when_its_ttl_ends() -> Generator[Question, Any, None]:
    written, replaced = new_key(), new_key()
    yield Write(written, new_value(), 1, ABSENT)
    yield Write(replaced, new_value(), 60, ABSENT)
    yield Replace(replaced, new_value(), 1)
    assert (yield Read(written)) is not None
    yield from until_gone(written, replaced)
    assert (yield Look((written, replaced))) == (None, None)


def a_long_ttl_is_no_time_long_ago() -> Generator[Question, Any, None]:
    month, now = 30 * 86_400, int(time.time())
    for ttl in (month - 1, month, month + 1, 365 * 86_400, 100 * 365 * 86_400):
        key = new_key()
        yield Write(key, new_value(), ttl, ABSENT)
        assert (yield Read(key, touch=ttl, now=now)) is not None
        assert (yield Replace(key, new_value(), ttl)) is True
        token = (yield Read(key)).token
        assert isinstance((yield Write(key, new_value(), ttl, token)), Stored)
        assert (yield Read(key)) is not None


def touching_leaves_value_and_token() -> Generator[Question, Any, None]:
    now = int(time.time())
    for value in (new_value(), new_value(Kind.TOMBSTONE)):
        key = new_key()
        yield Write(key, value, 30, ABSENT)
        token = (yield Read(key)).token
        entry = yield Read(key, touch=3600, now=now)
        assert (entry.value, entry.token) == (value, token)
        assert isinstance((yield Write(key, new_value(), 30, token)), Stored)


# Where a touch looks at what is there.


def ttls_over_thirty_days_are_right() -> Generator[Question, Any, None]:
    key, year = new_key(), 365 * 86_400
    yield Write(key, new_value(), year, ABSENT)
    assert year - 60 < _left((yield Read(key, touch=60, now=int(time.time())))) <= year


def reading_without_touch_leaves_the_ttl() -> Generator[Question, Any, None]:
    key, now = new_key(), int(time.time())
    yield Write(key, new_value(), 50, ABSENT)
    yield Read(key)
    assert _left((yield Read(key, touch=50, now=now))) <= 50


def touching_sets_the_ttl_anew_once_a_tenth_of_it_has_passed() -> Generator[Question, Any, None]:
    key, now = new_key(), int(time.time())
    yield Write(key, new_value(), 950, ABSENT)
    assert _left((yield Read(key, touch=1000, now=now))) <= 950, (
        "50 s of 1000 s and less than 60 s have passed"
    )
    assert 990 < _left((yield Read(key, touch=1012, now=now))) <= 1012
    yield Write(key2 := new_key(), new_value(), 85, ABSENT)
    assert 85 < _left((yield Read(key2, touch=100, now=now))) <= 100, "15 s of 100 s have passed"


def touching_never_goes_past_the_records_end() -> Generator[Question, Any, None]:
    key, now = new_key(), int(time.time())
    yield Write(key, new_value(expires_at=now + 30), 20, ABSENT)
    assert _left((yield Read(key, touch=3600, now=now))) <= 30
    assert 20 < _left((yield Read(key, touch=3600, now=now))) <= 30


def touching_keeps_to_the_records_own_idle_ttl() -> Generator[Question, Any, None]:
    key, now = new_key(), int(time.time())
    yield Write(key, new_value(idle_ttl=200), 100, ABSENT)
    assert 190 < _left((yield Read(key, touch=3600, now=now))) <= 200


def touching_leaves_what_is_not_live() -> Generator[Question, Any, None]:
    now = int(time.time())
    for kind in (Kind.TOMBSTONE, Kind.INDEX):
        key = new_key()
        yield Write(key, new_value(kind), 30, ABSENT)
        assert _left((yield Read(key, touch=3600, now=now))) <= 30


# Where it is blind.


def a_blind_touch_sets_the_ttl_of_whatever_is_there() -> Generator[Question, Any, None]:
    now = int(time.time())
    cut, kept = [], []
    for value in (
        new_value(),
        new_value(idle_ttl=60),
        new_value(expires_at=now + 60),
        new_value(Kind.TOMBSTONE),
    ):
        cut.append(new_key())
        yield Write(cut[-1], value, 60, ABSENT)
        assert (yield Read(cut[-1], touch=1, now=now)).value == value
        kept.append(new_key())
        yield Write(kept[-1], value, 1, ABSENT)
        assert (yield Read(kept[-1], touch=60, now=now)).value == value
    yield from until_gone(*cut)
    for key in kept:
        assert (yield Read(key)) is not None


def a_blind_touch_revives_nothing() -> Generator[Question, Any, None]:
    key, now = new_key(), int(time.time())
    yield Write(key, new_value(Kind.TOMBSTONE), 60, ABSENT)
    token = (yield Read(key, touch=1, now=now)).token
    yield from until_gone(key)
    assert (yield Write(key, new_value(), 60, token)) == Conflict(None)
    assert (yield Replace(key, new_value(), 60)) is False
    assert (yield Read(key, touch=60, now=now)) is None


ANY: Final[tuple[Check, ...]] = (
    a_key_that_holds_nothing_reads_as_none,
    what_was_written_is_read,
    any_bytes_come_back_as_they_were,
    creating_where_something_is_conflicts_and_changes_nothing,
    a_write_with_the_newest_token_is_stored,
    a_write_with_an_old_token_conflicts_and_brings_what_is_there,
    of_two_writes_with_one_token_one_is_stored,
    a_write_never_creates_what_it_did_not_read,
    replace_writes_only_where_something_is,
    a_value_is_gone_when_its_ttl_ends,
    a_long_ttl_is_no_time_long_ago,
    touching_leaves_value_and_token,
)
BY_HEADER: Final[tuple[Check, ...]] = (
    ttls_over_thirty_days_are_right,
    reading_without_touch_leaves_the_ttl,
    touching_sets_the_ttl_anew_once_a_tenth_of_it_has_passed,
    touching_never_goes_past_the_records_end,
    touching_keeps_to_the_records_own_idle_ttl,
    touching_leaves_what_is_not_live,
)
BLIND: Final[tuple[Check, ...]] = (
    a_blind_touch_sets_the_ttl_of_whatever_is_there,
    a_blind_touch_revives_nothing,
)
