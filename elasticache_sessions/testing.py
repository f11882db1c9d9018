"""The contract of a cache client as a suite: run it over every client, yours too.

Each check is a generator that yields commands and looks at the replies, so that one text holds for sync and
async clients:

    @pytest.mark.parametrize("check", contract(blind_touch=MyClient.blind_touch), ids=lambda check: check.__name__)
    def test_my_client(check):
        hold(check, MyClient(...))                    # or: await hold_async(check, MyAsyncClient(...))

Every check uses keys of its own, so that the store need not be empty.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from .clients.base import (
    ABSENT,
    AsyncCacheClient,
    CacheClient,
    Command,
    Conflict,
    Entry,
    Read,
    Replace,
    Stored,
    Write,
)
from .drive import drive, drive_async
from .record import Header, Kind, Record, pack
from .settle import Sleep

Check = Callable[[], Generator[Command | Sleep, Any, None]]


def hold(check: Check, client: CacheClient) -> None:
    """Run one check. Raises AssertionError where `client` breaks the contract."""

    def answer(question: Command | Sleep) -> object:
        if isinstance(question, Sleep):
            time.sleep(question.seconds)
            return None
        return client.perform(question)

    drive(check(), answer)


async def hold_async(check: Check, client: AsyncCacheClient) -> None:
    """Run one check. Raises AssertionError where `client` breaks the contract."""

    def answer(question: Command | Sleep) -> Awaitable[object]:
        return asyncio.sleep(question.seconds) if isinstance(question, Sleep) else client.perform(question)

    await drive_async(check(), answer)


def _key() -> bytes:
    return b"sess:contract:" + secrets.token_hex(8).encode()


def _value(
    kind: Kind = Kind.LIVE, *, idle_ttl: int = 0, expires_at: int = 0, content: bytes = b"\xc0"
) -> bytes:
    header = Header(kind, 1, (secrets.token_bytes(6),), int(time.time()), 0, expires_at, idle_ttl)
    return pack(Record(header, {"field": content}))


def _until_gone(*keys: bytes) -> Generator[Command | Sleep, Any, None]:
    """Wait for a TTL of a second to end. Some stores count in whole seconds, by a clock that may tick late."""
    for key in keys:
        for _ in range(50):
            if (yield Read(key)) is None:
                break
            yield Sleep(0.1)
        assert (yield Read(key)) is None


def _left(entry: Entry | None) -> float:
    assert entry is not None
    assert entry.ttl_left is not None, "a read with touch says how long the key has left"
    return entry.ttl_left


def a_key_that_holds_nothing_reads_as_none() -> Generator[Command, Any, None]:
    key = _key()
    assert (yield Read(key)) is None
    assert (yield Read(key, touch=60, now=int(time.time()))) is None


def what_was_written_is_read() -> Generator[Command, Any, None]:
    key, value = _key(), _value()
    assert isinstance((yield Write(key, value, 60, ABSENT)), Stored)
    assert (yield Read(key)).value == value
    assert (yield Read(key, touch=60, now=int(time.time()))).value == value


def any_bytes_come_back_as_they_were() -> Generator[Command, Any, None]:
    for content in (b"", b"\r\n$-1\r\n\0\xff" * 9, bytes(range(256)) * 1200):
        key, value = _key(), _value(content=content)
        yield Write(key, value, 60, ABSENT)
        assert (yield Read(key)).value == value


def creating_where_something_is_conflicts_and_changes_nothing() -> Generator[Command, Any, None]:
    key, value = _key(), _value()
    yield Write(key, value, 60, ABSENT)
    reply = yield Write(key, _value(), 60, ABSENT)
    assert isinstance(reply, Conflict)
    assert reply.entry is not None
    assert reply.entry.value == value
    assert (yield Read(key)).value == value


def a_write_with_the_newest_token_is_stored() -> Generator[Command, Any, None]:
    key = _key()
    yield Write(key, _value(), 60, ABSENT)
    for _ in range(3):
        entry, value = (yield Read(key)), _value()
        reply = yield Write(key, value, 60, entry.token)
        assert isinstance(reply, Stored)
        entry = yield Read(key)
        assert entry.value == value
        assert reply.token in (None, entry.token), "the token that a write gave is that of the next read"


def a_write_with_an_old_token_conflicts_and_brings_what_is_there() -> Generator[Command, Any, None]:
    key = _key()
    yield Write(key, _value(), 60, ABSENT)
    old, newer = (yield Read(key)).token, _value()
    yield Write(key, newer, 60, old)
    reply = yield Write(key, _value(), 60, old)
    assert isinstance(reply, Conflict)
    assert reply.entry is not None
    assert reply.entry.value == newer
    # What the conflict brought is enough to write again.
    newest = _value()
    assert isinstance((yield Write(key, newest, 60, reply.entry.token)), Stored)
    assert (yield Read(key)).value == newest


def of_two_writes_with_one_token_one_is_stored() -> Generator[Command, Any, None]:
    key = _key()
    yield Write(key, _value(), 60, ABSENT)
    token = (yield Read(key)).token
    first = yield Write(key, _value(), 60, token)
    second = yield Write(key, _value(), 60, token)
    assert (type(first), type(second)) == (Stored, Conflict)


def a_write_never_creates_what_it_did_not_read() -> Generator[Command | Sleep, Any, None]:
    key = _key()
    yield Write(key, _value(), 1, ABSENT)
    token = (yield Read(key)).token
    yield from _until_gone(key)
    assert (yield Write(key, _value(), 60, token)) == Conflict(None)
    assert (yield Read(key)) is None


def replace_writes_only_where_something_is() -> Generator[Command, Any, None]:
    key, value = _key(), _value()
    assert (yield Replace(key, value, 60)) is False
    assert (yield Read(key)) is None
    yield Write(key, _value(), 60, ABSENT)
    old = (yield Read(key)).token
    assert (yield Replace(key, value, 60)) is True
    assert (yield Read(key)).value == value
    assert isinstance((yield Write(key, _value(), 60, old)), Conflict), "a replaced value has a new token"


def a_value_is_gone_when_its_ttl_ends() -> Generator[Command | Sleep, Any, None]:
    written, replaced = _key(), _key()
    yield Write(written, _value(), 1, ABSENT)
    yield Write(replaced, _value(), 60, ABSENT)
    yield Replace(replaced, _value(), 1)
    assert (yield Read(written)) is not None
    yield from _until_gone(written, replaced)


def a_long_ttl_is_no_time_long_ago() -> Generator[Command, Any, None]:
    month, now = 30 * 86_400, int(time.time())
    for ttl in (month - 1, month, month + 1, 365 * 86_400, 100 * 365 * 86_400):
        key = _key()
        yield Write(key, _value(), ttl, ABSENT)
        assert (yield Read(key, touch=ttl, now=now)) is not None
        assert (yield Replace(key, _value(), ttl)) is True
        token = (yield Read(key)).token
        assert isinstance((yield Write(key, _value(), ttl, token)), Stored)
        assert (yield Read(key)) is not None


def touching_leaves_value_and_token() -> Generator[Command, Any, None]:
    now = int(time.time())
    for value in (_value(), _value(Kind.TOMBSTONE)):
        key = _key()
        yield Write(key, value, 30, ABSENT)
        token = (yield Read(key)).token
        entry = yield Read(key, touch=3600, now=now)
        assert (entry.value, entry.token) == (value, token)
        assert isinstance((yield Write(key, _value(), 30, token)), Stored)


# Where a touch looks at what is there.


def ttls_over_thirty_days_are_right() -> Generator[Command, Any, None]:
    key, year = _key(), 365 * 86_400
    yield Write(key, _value(), year, ABSENT)
    assert year - 60 < _left((yield Read(key, touch=60, now=int(time.time())))) <= year


def reading_without_touch_leaves_the_ttl() -> Generator[Command, Any, None]:
    key, now = _key(), int(time.time())
    yield Write(key, _value(), 50, ABSENT)
    yield Read(key)
    assert _left((yield Read(key, touch=50, now=now))) <= 50


def touching_sets_the_ttl_anew_once_a_tenth_of_it_has_passed() -> Generator[Command, Any, None]:
    key, now = _key(), int(time.time())
    yield Write(key, _value(), 950, ABSENT)
    assert _left((yield Read(key, touch=1000, now=now))) <= 950, (
        "50 s of 1000 s and less than 60 s have passed"
    )
    assert 990 < _left((yield Read(key, touch=1012, now=now))) <= 1012
    yield Write(key2 := _key(), _value(), 85, ABSENT)
    assert 85 < _left((yield Read(key2, touch=100, now=now))) <= 100, "15 s of 100 s have passed"


def touching_never_goes_past_the_records_end() -> Generator[Command, Any, None]:
    key, now = _key(), int(time.time())
    yield Write(key, _value(expires_at=now + 30), 20, ABSENT)
    assert _left((yield Read(key, touch=3600, now=now))) <= 30
    assert 20 < _left((yield Read(key, touch=3600, now=now))) <= 30


def touching_keeps_to_the_records_own_idle_ttl() -> Generator[Command, Any, None]:
    key, now = _key(), int(time.time())
    yield Write(key, _value(idle_ttl=200), 100, ABSENT)
    assert 190 < _left((yield Read(key, touch=3600, now=now))) <= 200


def touching_leaves_what_is_not_live() -> Generator[Command, Any, None]:
    now = int(time.time())
    for kind in (Kind.TOMBSTONE, Kind.INDEX):
        key = _key()
        yield Write(key, _value(kind), 30, ABSENT)
        assert _left((yield Read(key, touch=3600, now=now))) <= 30


# Where it is blind.


def a_blind_touch_sets_the_ttl_of_whatever_is_there() -> Generator[Command | Sleep, Any, None]:
    now = int(time.time())
    cut, kept = [], []
    for value in (
        _value(),
        _value(idle_ttl=60),
        _value(expires_at=now + 60),
        _value(Kind.TOMBSTONE),
    ):
        cut.append(_key())
        yield Write(cut[-1], value, 60, ABSENT)
        assert (yield Read(cut[-1], touch=1, now=now)).value == value
        kept.append(_key())
        yield Write(kept[-1], value, 1, ABSENT)
        assert (yield Read(kept[-1], touch=60, now=now)).value == value
    yield from _until_gone(*cut)
    for key in kept:
        assert (yield Read(key)) is not None


def a_blind_touch_revives_nothing() -> Generator[Command | Sleep, Any, None]:
    key, now = _key(), int(time.time())
    yield Write(key, _value(Kind.TOMBSTONE), 60, ABSENT)
    token = (yield Read(key, touch=1, now=now)).token
    yield from _until_gone(key)
    assert (yield Write(key, _value(), 60, token)) == Conflict(None)
    assert (yield Replace(key, _value(), 60)) is False
    assert (yield Read(key, touch=60, now=now)) is None


def contract(*, blind_touch: bool) -> tuple[Check, ...]:
    """Every check that holds for a client; `blind_touch`: what the client says it is."""
    return (*_ANY, *(_BLIND if blind_touch else _LOOKING))


_ANY: Final[tuple[Check, ...]] = (
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
_LOOKING: Final[tuple[Check, ...]] = (
    ttls_over_thirty_days_are_right,
    reading_without_touch_leaves_the_ttl,
    touching_sets_the_ttl_anew_once_a_tenth_of_it_has_passed,
    touching_never_goes_past_the_records_end,
    touching_keeps_to_the_records_own_idle_ttl,
    touching_leaves_what_is_not_live,
)
_BLIND: Final[tuple[Check, ...]] = (
    a_blind_touch_sets_the_ttl_of_whatever_is_there,
    a_blind_touch_revives_nothing,
)
