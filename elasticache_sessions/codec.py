"""value <-> bytes, with exact Python types. Pure, deterministic, no pickle.

ormsgpack packs what MessagePack knows at C speed. What it does not know travels as an extension type
(`scalars`). Three things ormsgpack cannot tell apart or refuses (a bytearray from
bytes, a dict whose keys are not all plain str, a str with lone surrogates) take the slow path, `_tagged`,
which walks the value in Python and also knows the place of what cannot be stored.

`encode(decode(b)) == b` for every b that `encode` made, in any process and under any hash seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ormsgpack

from . import scalars
from .exceptions import DecodeError, EncodeError

# What ormsgpack would otherwise turn into something else without a word.
_EXACT: Final = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
# Levels of lists, dicts and the like in one field that are always taken; lists and dicts alone may go to 255.
MAX_DEPTH: Final = 100
# Tuples and sets inside each other that the fast path follows before it leaves the count to the slow one.
_FAST_NESTING: Final = 8


def encode(value: object) -> bytes:
    """The bytes of `value`.

    Raises:
        EncodeError: `value`, or something in it, has a type that would not come back as it was, or is nested
            deeper than `MAX_DEPTH` levels. Says which and where.
    """
    try:
        packed = ormsgpack.packb(value, _FAST[0], _EXACT)
    except TypeError:
        return _encode_slowly(value)
    if type(value) in _MAY_HOLD_BUFFERS and _may_hold_bytes(packed) and _holds_buffer(value):
        return _encode_slowly(value)
    return packed


def decode(data: bytes) -> Any:
    """The value that `encode` made `data` of.

    Raises:
        DecodeError: `data` is not such bytes.
    """
    try:
        return ormsgpack.unpackb(data, ext_hook=_unpack_extension)
    except DecodeError as error:
        raise DecodeError(f"not a value of this package: {error}") from None
    except Exception as error:  # noqa: BLE001 - it may be any, and say what the value is
        raise DecodeError(f"not a value of this package: {type(error).__name__}") from None


def field_name(name: object) -> str:
    """The name of a field as it is stored.

    Raises:
        EncodeError: it is not plain text.
    """
    if not isinstance(name, str):
        raise EncodeError(
            f"a session field's name is a str, not {type(name).__qualname__}. "
            "Use a str, or put a dict with such keys under one."
        )
    plain = name if type(name) is str else str.__str__(name)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise EncodeError("a session field's name must be valid Unicode, without lone surrogates") from None
    return plain


def encode_foreign(data: bytes) -> bytes:
    """Bytes that another serialiser made of a value: `decode` refuses them, so that they are never taken for ours."""
    return ormsgpack.packb(ormsgpack.Ext(scalars.FOREIGN, data))


def decode_foreign(data: bytes) -> bytes | None:
    """What was given to `encode_foreign`; None where `data` is a value of our own.

    Raises:
        DecodeError: `data` is neither.
    """
    found: list[bytes] = []

    def hook(tag: int, content: bytes) -> None:
        if tag == scalars.FOREIGN:
            found.append(content)

    try:
        # The hook gives None for an extension of ours: only the outermost one matters here.
        whole = ormsgpack.unpackb(data, ext_hook=hook)
    except Exception as error:  # noqa: BLE001 - it may be any, and say what the bytes say
        raise DecodeError(f"not a value of this package: {type(error).__name__}") from None
    return found[0] if whole is None and found else None


_BUFFERS: Final = frozenset({bytearray, memoryview})
_LINES: Final = frozenset({list, tuple, set, frozenset})
_MAY_HOLD_BUFFERS: Final = _BUFFERS | _LINES | {dict}


def _may_hold_bytes(packed: bytes) -> bool:
    # MessagePack's three markers of byte strings. They may stand for something else (text, a number); then
    # the value is looked through for nothing.
    return b"\xc4" in packed or b"\xc5" in packed or b"\xc6" in packed


def _holds_buffer(value: object) -> bool:
    """Whether there is, in what could be packed, something that was packed as bytes and is none."""
    found: list[Any] = [value]
    for item in found:  # which grows meanwhile
        kind = type(item)
        if kind is dict:
            found.extend(item.values())
        elif kind in _LINES:
            found.extend(item)
        elif kind in _BUFFERS:
            return True
    return False


def _encode_slowly(value: object) -> bytes:
    try:
        return _pack(_tagged(value, 0, ""))
    except RecursionError:
        raise EncodeError(f"is nested deeper than {MAX_DEPTH} levels, or holds itself") from None


def _pack(plain: object) -> bytes:
    return ormsgpack.packb(plain, None, _EXACT)


def _extension(tag: int, content: object) -> ormsgpack.Ext:
    return ormsgpack.Ext(tag, _pack(content))


def _fast_default(nesting: int) -> Callable[[Any], ormsgpack.Ext]:
    """ormsgpack's hook for what it does not know, `nesting` tuples and sets down."""

    def default(value: Any) -> ormsgpack.Ext:
        kind = type(value)
        leaf = scalars.PACK.get(kind)
        if leaf is not None:
            return leaf(value)
        if nesting + 1 < _FAST_NESTING:
            inner = _FAST[nesting + 1]
            if kind is tuple:
                return ormsgpack.Ext(scalars.TUPLE, ormsgpack.packb(list(value), inner, _EXACT))
            if kind is set or kind is frozenset:
                members = sorted(ormsgpack.packb(member, inner, _EXACT) for member in value)
                return ormsgpack.Ext(scalars.SET if kind is set else scalars.FROZENSET, _array(members))
        raise TypeError  # the slow path names it, or knows how

    return default


def _array(members: list[bytes]) -> bytes:
    """MessagePack's array of members that are packed already."""
    count = len(members)
    if count < 16:
        head = bytes((0x90 | count,))
    elif count < 0x10000:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(members)


def _tagged(value: Any, depth: int, path: str) -> Any:
    """`value` with everything that MessagePack does not know replaced by its extension."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth >= MAX_DEPTH:
        raise EncodeError(f"is nested deeper than {MAX_DEPTH} levels, or holds itself")
    if kind is str:
        return value if scalars.is_utf8(value) else scalars.surrogates(value)
    if kind is int:
        return value if -(2**63) <= value < 2**64 else scalars.big_int(value)
    if kind is list:
        return _tagged_items(value, depth, path)
    if kind is dict:
        return _tagged_dict(value, depth, path)
    if kind is tuple:
        return _extension(scalars.TUPLE, _tagged_items(value, depth, path))
    if kind is set or kind is frozenset:
        members = sorted(_pack(_tagged(member, depth + 1, f"{path}{{…}}")) for member in value)
        return ormsgpack.Ext(scalars.SET if kind is set else scalars.FROZENSET, _array(members))
    leaf = scalars.PACK.get(kind)
    if leaf is not None:
        return leaf(value)
    text = scalars.as_text(value)
    if text is not None:
        return _tagged(text, depth, path)
    raise EncodeError(_refusal(value, path))


def _tagged_items(value: list[Any] | tuple[Any, ...], depth: int, path: str) -> list[Any]:
    return [_tagged(item, depth + 1, f"{path}[{index}]") for index, item in enumerate(value)]


# Keys and values are what the session holds, and an error may end in a log: the path names neither.
def _tagged_dict(value: dict[Any, Any], depth: int, path: str) -> Any:
    if all(type(key) is str and scalars.is_utf8(key) for key in value):
        return {key: _tagged(item, depth + 1, f"{path}{{…}}") for key, item in value.items()}
    pairs: list[Any] = []
    for key, item in value.items():
        pairs.append(_tagged(key, depth + 1, f"{path}{{key}}"))
        pairs.append(_tagged(item, depth + 1, f"{path}{{…}}"))
    return _extension(scalars.DICT, pairs)


def _refusal(value: object, path: str) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    place = f"{path} is" if path else "is"
    return (
        f"{place} of type {name!r}, which would not come back as it was. "
        "Store str, int, float, bool, None, bytes, list, tuple, dict, set, datetime, Decimal or UUID instead."
    )


_PLAIN: Final = frozenset({float, bool, type(None), bytes})
_FAST: Final = [_fast_default(nesting) for nesting in range(_FAST_NESTING)]


def _unpack_dict(data: bytes) -> dict[Any, Any]:
    pairs = iter(decode(data))
    return dict(zip(pairs, pairs, strict=True))


_UNPACK: Final[dict[int, Callable[[bytes], Any]]] = scalars.UNPACK | {
    scalars.TUPLE: lambda data: tuple(decode(data)),
    scalars.SET: lambda data: set(decode(data)),
    scalars.FROZENSET: lambda data: frozenset(decode(data)),
    scalars.DICT: _unpack_dict,
}


def _unpack_extension(tag: int, data: bytes) -> Any:
    unpack = _UNPACK.get(tag)
    if unpack is None:
        raise DecodeError(f"type {tag} is not known to this version")
    return unpack(data)
