"""Looking at several keys, and searching for them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from ..clients.base import ABSENT, Glance, Look, Page, Read, Scan, Write
from ..record import HEADER_BYTES, Kind
from .checks import Check, Question, new_key, new_value

# More than one flight, or one page, of any client here.
_MANY: Final = 700


def _shows(glance: Glance | None, value: bytes, ttl: int) -> None:
    """That it is of `value`, which was stored for `ttl` seconds a moment ago."""
    assert glance is not None
    assert len(glance.header) >= HEADER_BYTES
    assert value.startswith(glance.header[:HEADER_BYTES])
    assert glance.ttl_left is not None
    # Some stores count in whole seconds, by a clock that may tick late.
    assert ttl - 20 < glance.ttl_left < ttl + 5


def a_look_at_nothing_shows_nothing() -> Generator[Question, Any, None]:
    assert (yield Look(())) == ()
    assert (yield Look((new_key(), new_key()))) == (None, None)


def a_look_shows_headers_and_ttls_in_the_order_of_the_keys() -> Generator[Question, Any, None]:
    values = [new_value(content=b"x" * size) for size in (1, 0, 3000, 200_000)]
    keys = [new_key() for _ in values]
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        yield Write(key, value, 100 * (number + 1), ABSENT)
    seen = yield Look((keys[3], new_key(), keys[0], keys[1], keys[0], keys[2]))
    assert seen[1] is None
    for glance, number in zip((seen[0], *seen[2:]), (3, 0, 1, 0, 2), strict=True):
        _shows(glance, values[number], 100 * (number + 1))


def a_look_shows_what_is_not_live_and_any_ttl() -> Generator[Question, Any, None]:
    year = 365 * 86_400
    kinds = {new_key(): new_value(kind) for kind in (Kind.LIVE, Kind.TOMBSTONE, Kind.INDEX)}
    for key, value in kinds.items():
        yield Write(key, value, year, ABSENT)
    for glance, value in zip((yield Look(tuple(kinds))), kinds.values(), strict=True):
        _shows(glance, value, year)


def a_look_slides_and_changes_nothing() -> Generator[Question, Any, None]:
    key, value = new_key(), new_value(idle_ttl=3600)
    yield Write(key, value, 50, ABSENT)
    token = (yield Read(key)).token
    for _ in range(3):
        (glance,) = yield Look((key,))
        _shows(glance, value, 50)
    entry = yield Read(key)
    assert (entry.value, entry.token) == (value, token)


def a_look_shows_as_many_as_are_asked_for() -> Generator[Question, Any, None]:
    values = {new_key(): new_value() for _ in range(_MANY)}
    stored = list(values)[::100]
    for key in stored:
        yield Write(key, values[key], 60, ABSENT)
    seen = yield Look(tuple(values))
    assert [key for key, glance in zip(values, seen, strict=True) if glance] == stored
    for key, glance in zip(values, seen, strict=True):
        if glance is not None:
            _shows(glance, values[key], 60)


def _found(prefix: bytes) -> Generator[Question, Any, set[bytes]]:
    """All pages."""
    page: Page = yield Scan(prefix)
    keys = set(page.keys)
    while page.cursor is not None:
        page = yield Scan(prefix, page.cursor)
        keys |= set(page.keys)
    return keys


def a_search_finds_all_keys_that_begin_alike_and_no_others() -> Generator[Question, Any, None]:
    first, second = new_key() + b":", new_key() + b":"
    wanted = {b"%b%d" % (first, number) for number in range(_MANY)}
    for key in (*wanted, second + b"1", first[:-1]):
        yield Write(key, new_value(), 60, ABSENT)
    assert (yield from _found(first)) == wanted
    assert (yield from _found(second)) == {second + b"1"}
    assert (yield from _found(new_key())) == set()


def a_search_takes_its_prefix_for_what_it_says() -> Generator[Question, Any, None]:
    base = new_key()
    for word in (b"*", b"?", b"[a-z]", b"[^a]", b"\\", b"a\\*", b"{a}", b"{", b"}{"):
        yield Write(base + word + b"1", new_value(), 60, ABSENT)
    for decoy in (b"a", b"b", b"ab", b"", b"a*"):
        yield Write(base + decoy + b"1", new_value(), 60, ABSENT)
    for word in (b"*", b"?", b"[a-z]", b"[^a]", b"\\", b"a\\*", b"{a}", b"{", b"}{"):
        found = yield from _found(base + word)
        expected = {base + word + b"1"} | ({base + b"{a}1"} if word == b"{" else set())
        assert found == expected


LOOK: Final[tuple[Check, ...]] = (
    a_look_at_nothing_shows_nothing,
    a_look_shows_headers_and_ttls_in_the_order_of_the_keys,
    a_look_shows_what_is_not_live_and_any_ttl,
    a_look_slides_and_changes_nothing,
    a_look_shows_as_many_as_are_asked_for,
)
SCAN: Final[tuple[Check, ...]] = (
    a_search_finds_all_keys_that_begin_alike_and_no_others,
    a_search_takes_its_prefix_for_what_it_says,
)
