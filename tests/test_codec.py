"""Values come back exactly as they were, or are refused by name; equal values have equal bytes everywhere."""

from __future__ import annotations

import collections
import dataclasses
import enum
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
import pytest
from hypothesis import given, strategies as st
from markupsafe import Markup

from elasticache_sessions.codec import MAX_DEPTH, decode, encode
from elasticache_sessions.exceptions import DecodeError, EncodeError

fixed_zones = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
text = st.text(st.characters(), max_size=12)  # with lone surrogates
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    text,
    st.binary(max_size=12),
    text.map(Markup),
    st.datetimes(timezones=st.none() | fixed_zones),
    st.dates(),
    st.times(timezones=st.none() | fixed_zones),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
)
hashable = st.recursive(
    # A signalling NaN cannot be hashed.
    scalars.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan())),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    scalars | st.binary(max_size=12).map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(text, inner, max_size=4),
        st.dictionaries(hashable, inner, max_size=4),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
    ),
    max_leaves=12,
)


def exactly(value: object) -> object:
    """`value` with its types in plain sight, so that 1, True and 1.0, or -0.0 and 0.0, are not equal."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return kind, [exactly(item) for item in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(exactly(item)) for item in value)
    return kind, repr(value)


@given(values)
def test_every_value_comes_back_exactly_and_encodes_to_the_same_bytes_again(value: object) -> None:
    encoded = encode(value)
    assert exactly(decode(encoded)) == exactly(value)
    assert encode(decode(encoded)) == encoded


@pytest.mark.parametrize(
    "value",
    [
        (1, (2, [3, (4,)])),
        b"\x00",
        bytearray(b"x"),
        [bytearray(b"x"), b"x"],
        ({"deep": [bytearray(b"x")]},),
        {"price": 0.1, "text": "zażółć", "deep": [({"here": bytearray()},)]},
        2**64,
        -(2**63) - 1,
        10**100,
        -0.0,
        Decimal("-0.00"),
        Decimal("sNaN123"),
        {1: "a", None: "b", False: "c", (1, 2): "d", b"k": "e", 1.5: "f"} | {"1": "g"},
        {Markup("k"): Markup("<b>")},
        frozenset({(1, frozenset({2}))}),
        UUID(int=7),
        date.min,
        datetime.max,  # noqa: DTZ901 - naive datetimes come back, too
        datetime(2020, 10, 25, 2, 30, fold=1),  # noqa: DTZ001 - as above
        datetime(2020, 1, 1, microsecond=1, tzinfo=UTC),
        time(1, 2, 3, 4, fold=1),
        timedelta.min,
        "\ud800",
        {"\udfff": "\ud800"},
        [],
        {},
        set(),
        (),
    ],
    ids=repr,
)
def test_a_value_of_every_kind_comes_back(value: object) -> None:
    assert exactly(decode(encode(value))) == exactly(value)
    assert exactly(decode(encode([[value]]))) == exactly([[value]])


def test_a_zone_becomes_its_fixed_offset() -> None:
    summer = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    back = decode(encode(summer))
    assert back == summer
    assert back.tzinfo == timezone(timedelta(hours=2))


class Lazy:
    """What Flask-Babel's lazy strings look like to us: a class known by its name."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


Lazy.__module__, Lazy.__name__ = "flask_babel.speaklater", "LazyString"


class Widget:
    def __html__(self) -> str:
        return "<i>"


class SafeText(str):
    __slots__ = ()

    def __html__(self) -> str:
        return self


def test_lazy_text_becomes_text_and_markup_of_any_kind_markup() -> None:
    assert exactly(decode(encode([Lazy("hi")]))) == exactly(["hi"])
    assert exactly(decode(encode(Lazy(Markup("<b>"))))) == exactly(Markup("<b>"))
    assert exactly(decode(encode((Widget(), SafeText("<u>"))))) == exactly((Markup("<i>"), Markup("<u>")))


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    YES = "yes"


class Pair(NamedTuple):
    left: int


@dataclasses.dataclass
class Point:
    x: int


class Text(str):
    __slots__ = ()


class Dict(dict[str, int]): ...


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Number.ONE,
        Word.YES,
        Pair(1),
        Point(1),
        Text("x"),
        Dict(),
        collections.OrderedDict(),
        collections.defaultdict(int),
        object(),
        1j,
        memoryview(b"x"),
        range(3),
        iter(()),
        Exception("x"),
        datetime,
        time(1, tzinfo=ZoneInfo("Europe/Berlin")),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize(
    "place",
    [
        lambda value: value,
        lambda value: [1, value],
        lambda value: {"a": (value,)},
        lambda value: {1: [value]},
        lambda value: {value: 1},
        lambda value: {(1, value)},
    ],
    ids=["alone", "in a list", "in a tuple in a dict", "under an int key", "as a key", "in a set"],
)
def test_what_would_not_come_back_is_refused_by_its_type(value: Any, place: Callable[[Any], Any]) -> None:
    try:
        placed = place(value)
    except TypeError:
        placed = [value]  # not hashable: it cannot be there
    with pytest.raises(EncodeError) as refused:
        encode(placed)
    name = "time" if isinstance(value, time) else type(value).__qualname__
    assert name in str(refused.value)


def test_the_refusal_says_where_but_not_what_the_session_holds() -> None:
    with pytest.raises(EncodeError) as refused:
        encode({"alice@example.org": [1, object()]})
    assert "{…}[1]" in str(refused.value)
    assert "alice" not in str(refused.value)


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


WRAPS: list[Callable[[Any], Any]] = [
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {"k": inner},
    lambda inner: {1: inner},
    lambda inner: frozenset({inner}),
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_nesting_is_taken_to_a_documented_depth_and_refused_beyond(wrap: Callable[[Any], Any]) -> None:
    deep = nested(MAX_DEPTH - 1, wrap)
    assert decode(encode(deep)) == deep
    for levels in (300, 5_000):
        with pytest.raises(EncodeError, match="nested deeper"):
            encode(nested(levels, wrap))


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    tangle: dict[object, object] = {1: loop}
    tangle[2] = tangle
    for value in (loop, tangle, (loop,)):
        with pytest.raises(EncodeError, match="holds itself"):
            encode(value)


DETERMINISM = """
from decimal import Decimal
from elasticache_sessions.codec import encode
words = [f"word-{number}" for number in range(40)]
value = {"s": set(words), "f": frozenset(map(Decimal, range(40))), "n": {frozenset(words[:9]), (1, "x")}}
print(encode(value).hex())
"""


def test_bytes_are_equal_in_every_process_and_under_every_hash_seed() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", DETERMINISM],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1", "2", "random")
    }
    assert len(printed) == 1


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with suppress(DecodeError):
        decode(data)


@given(values, st.data())
def test_changed_bytes_decode_or_are_refused(value: object, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(DecodeError):
        decode(bytes(encoded))


def test_bytes_nested_without_end_are_refused_and_crash_nothing() -> None:
    bomb = b"\x01"
    for _ in range(3_000):
        bomb = ormsgpack.packb(ormsgpack.Ext(1, b"\x91" + bomb))
    with pytest.raises(DecodeError):
        decode(bomb)
