"""Values that hold no others and that MessagePack does not know, as its extensions; text in disguise."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import ormsgpack
from markupsafe import Markup

from .exceptions import EncodeError

# The numbers are part of the stored format: never reuse one, and count the format up with a new one.
TUPLE: Final = 1
SET: Final = 2
FROZENSET: Final = 3
DICT: Final = 4
_BYTEARRAY: Final = 5
_INT: Final = 6
_STR: Final = 7
_DATETIME: Final = 8
_DATE: Final = 9
_TIME: Final = 10
_TIMEDELTA: Final = 11
_UUID: Final = 12
_DECIMAL: Final = 13
_MARKUP: Final = 14
FOREIGN: Final = 15

IMMUTABLE: Final = frozenset(
    {str, bytes, int, float, bool, type(None), datetime, date, time, timedelta, UUID, Decimal, Markup}
)
"""Types whose values cannot change in place, so that a field that was only read needs no second encoding."""


def is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def surrogates(value: str) -> ormsgpack.Ext:
    return ormsgpack.Ext(_STR, value.encode("utf-8", "surrogatepass"))


def big_int(value: int) -> ormsgpack.Ext:
    return ormsgpack.Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _offset(moment: datetime | time) -> int | None:
    """The offset from UTC in microseconds; None for a naive one."""
    if moment.tzinfo is None:
        return None
    offset = moment.utcoffset()
    if offset is None:
        raise EncodeError(
            "is or holds a time with a time zone that has no offset from UTC without a date. "
            "Store a datetime, or a time with a fixed offset, instead."
        )
    return offset // timedelta(microseconds=1)


def _zone(microseconds: int | None) -> timezone | None:
    if microseconds is None:
        return None
    return UTC if microseconds == 0 else timezone(timedelta(microseconds=microseconds))


def _datetime(value: datetime) -> ormsgpack.Ext:
    day = (value.year, value.month, value.day)
    return _numbers(
        _DATETIME, *day, value.hour, value.minute, value.second, value.microsecond, value.fold, _offset(value)
    )


def _time(value: time) -> ormsgpack.Ext:
    return _numbers(
        _TIME, value.hour, value.minute, value.second, value.microsecond, value.fold, _offset(value)
    )


def _numbers(tag: int, *numbers: int | None) -> ormsgpack.Ext:
    return ormsgpack.Ext(tag, ormsgpack.packb(list(numbers)))


PACK: Final[dict[type, Callable[[Any], ormsgpack.Ext]]] = {
    # Only what is beyond 64 bits, or not UTF-8, comes here.
    int: big_int,
    bytearray: lambda value: ormsgpack.Ext(_BYTEARRAY, bytes(value)),
    datetime: _datetime,
    date: lambda value: _numbers(_DATE, value.year, value.month, value.day),
    time: _time,
    timedelta: lambda value: _numbers(_TIMEDELTA, value.days, value.seconds, value.microseconds),
    UUID: lambda value: ormsgpack.Ext(_UUID, value.bytes),
    # str() keeps every digit, the exponent, the sign of zero and a NaN's payload.
    Decimal: lambda value: ormsgpack.Ext(_DECIMAL, str(value).encode()),
    Markup: lambda value: ormsgpack.Ext(_MARKUP, value.encode("utf-8", "surrogatepass")),
}
"""By exact type: how such a value is packed."""


def _unpack_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold, offset = ormsgpack.unpackb(data)
    return datetime(year, month, day, hour, minute, second, microsecond, _zone(offset), fold=fold)


def _unpack_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold, offset = ormsgpack.unpackb(data)
    return time(hour, minute, second, microsecond, _zone(offset), fold=fold)


UNPACK: Final[dict[int, Callable[[bytes], Any]]] = {
    _BYTEARRAY: bytearray,
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _STR: lambda data: data.decode("utf-8", "surrogatepass"),
    _DATETIME: _unpack_datetime,
    _DATE: lambda data: date(*ormsgpack.unpackb(data)),
    _TIME: _unpack_time,
    _TIMEDELTA: lambda data: timedelta(*ormsgpack.unpackb(data)),
    _UUID: lambda data: UUID(bytes=data),
    _DECIMAL: lambda data: Decimal(data.decode()),
    _MARKUP: lambda data: Markup(data.decode("utf-8", "surrogatepass")),
}
"""By tag: how it is unpacked. Raises whatever the bytes provoke."""


def as_text(value: object) -> Markup | str | None:
    """The text of what is text in disguise: markup of any kind, and translations that wait for their
    language.
    """
    if hasattr(type(value), "__html__") and isinstance(value, str):
        return Markup(str(value))
    names = {f"{cls.__module__}.{cls.__name__}" for cls in type(value).__mro__}
    if names & _LAZY_TEXT:
        text = str(value)
        # str.__str__ hides a Markup behind a lazy call; what the call gave is what is stored.
        return text if type(text) is str else as_text(text)
    if hasattr(type(value), "__html__"):
        return Markup(value.__html__())  # type: ignore[attr-defined]  # asked for just above
    return None


# Django's gettext_lazy, Flask-Babel's lazy_gettext (and its older home), WTForms' and speaklater's strings.
_LAZY_TEXT: Final = frozenset(
    {
        "django.utils.functional.Promise",
        "flask_babel.speaklater.LazyString",
        "flask_babelex.speaklater.LazyString",
        "speaklater._LazyString",
        "babel.support.LazyProxy",
    }
)
