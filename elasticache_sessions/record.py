"""The record: what is stored under a session's key. Pure: no I/O, no clock of its own.

Format 1: a header of `HEADER_BYTES`, a CRC-32 of all the rest, and a MessagePack map of field name to encoded
value, which may be compressed, and then encrypted (a nonce of 12 bytes, the map, 16 bytes that say nobody changed it or
the header). The header can be read without opening the fields, by the Lua scripts in `clients/redis_wire.py` too:

    offset  bytes  what
         0      1  format
         1      1  kind: 1 live, 2 tombstone, 3 the index of an owner's sessions, 4 leaving this node, 5 has left it
         2      1  flags: 1 alone, 2 once alone, 4 compressed with zlib, 8 with zstd; the upper four bits: `looked_after`
         3      1  key number (`sealing.Key`), 0: not encrypted
         4      4  generation, one higher with every write
         8      4  idle TTL in seconds, 0: the store-wide one
        12      4  created, seconds since 1970
        16      4  authenticated at, 0: never
        20      4  expires at, 0: when its TTL ends
        24      4  idle end: when its own idle TTL ends, seconds since 1970; 0: the store's TTL says it
        28      6  revision: random, new with every write; the token of a compare-and-set
        34     18  the three revisions before it, newest first
        52     16  HMAC of the owner, zeros: nobody's

All integers are big-endian and unsigned.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

import ormsgpack

from .compressing import FLAGS, grown
from .exceptions import DecodeError
from .opaque import OpaqueBytes
from .sealing import Seal

FORMAT: Final = 1
HEADER_BYTES: Final = 68
REVISION_BYTES: Final = 6
KEPT_REVISIONS: Final = 4
OWNER_BYTES: Final = 16
REVISION: Final = slice(28, 28 + REVISION_BYTES)
"""Where a record's revision stands."""

_HEADER: Final = struct.Struct(">BBBBIIIIII6s6s6s6s16s")
_CRC: Final = struct.Struct(">I")
_BODY: Final = HEADER_BYTES + _CRC.size
_MAX_UINT32: Final = 2**32 - 1
_NO_REVISION: Final = bytes(REVISION_BYTES)
_FLAGS_AT: Final = 2
_BYTES: Final = frozenset({bytes})
_ALONE: Final = 1
_ONCE_ALONE: Final = 2
NO_OWNER: Final = bytes(OWNER_BYTES)


class Kind(IntEnum):
    """What a record is."""

    LIVE = 1
    TOMBSTONE = 2
    INDEX = 3
    LEAVING = 4
    """On its way to another node: nobody writes to it here any more."""
    LEFT = 5
    """What a record leaves where it was: somebody who still looks for it here has old news of the nodes."""


_KINDS: Final = {int(kind): kind for kind in Kind}
LASTING: Final = frozenset({Kind.LIVE, Kind.INDEX})
"""What is not on its way out, and what tells something: the others have no content, or that of another record."""


class Header(NamedTuple):
    """What is known of a session without opening it. Times are whole seconds since 1970, lifetimes whole
    seconds. A tuple, as each request makes several.
    """

    kind: Kind
    generation: int
    revisions: tuple[bytes, ...]
    """The last four, newest first. A writer whose reply was lost finds its own here."""
    created: int
    authenticated_at: int = 0
    expires_at: int = 0
    idle_ttl: int = 0
    idle_end: int = 0
    """Where the store's TTL cannot say when `idle_ttl` ends: when it does. Slides, unlike `expires_at`."""
    owner: bytes = NO_OWNER
    key_number: int = 0
    """Under which key the fields were stored; 0: in the clear. `pack` does not ask for it."""
    alone: bool = False
    """Of a session that lives on two nodes: written while one of them was down, or while they held different things, so
    that it may be acknowledged though only one has it.
    """
    once_alone: bool = False
    """It, or what it was made of, has been alone, so that what the deciding node had taken may have given way to it."""
    looked_after: int = 0
    """In which hour since its user signed in somebody last saw to it that it is on its owner's list; its last four bits."""

    @property
    def revision(self) -> bytes:
        return self.revisions[0]

    @property
    def owned(self) -> bool:
        return self.owner != NO_OWNER


@dataclass(frozen=True, slots=True)
class Record:
    """A header and the fields, each encoded on its own by `codec.encode`."""

    header: Header
    fields: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def pack(record: Record, seal: Seal | None = None) -> bytes:
    """The stored form: encrypted and compressed as `seal` says, or neither. What does not fit its place (a time after 2106) is
    stored as the largest that does.
    """
    head, fields = record.header, record.fields
    body = ormsgpack.packb(fields if isinstance(fields, dict) else dict(fields))
    numbers: tuple[int, ...] = (
        head.generation,
        head.idle_ttl,
        head.created,
        head.authenticated_at,
        head.expires_at,
        head.idle_end,
    )
    if max(numbers) > _MAX_UINT32:
        numbers = tuple([min(number, _MAX_UINT32) for number in numbers])
    revisions = (head.revisions + (_NO_REVISION,) * KEPT_REVISIONS)[:KEPT_REVISIONS]
    compression = key_number = 0
    if seal is not None and head.kind in LASTING:
        (body, compression), key_number = seal.shrunk(body), seal.key_number
    header = _HEADER.pack(
        FORMAT,
        head.kind,
        _ALONE * head.alone | _ONCE_ALONE * head.once_alone | compression | (head.looked_after % 16) << 4,
        key_number,
        *numbers,
        *revisions,
        head.owner,
    )
    if seal is not None and key_number:
        body = seal.encrypted(body, _lasting(header))
    return _summed(header, body)


def _lasting(data: bytes) -> bytes:
    """The header, without what nodes of Memcached change that have no key (`restamped`)."""
    return (
        data[:_FLAGS_AT]
        + bytes([data[_FLAGS_AT] & ~(_ALONE | _ONCE_ALONE)])
        + data[_FLAGS_AT + 1 : HEADER_BYTES]
    )


def _summed(header: bytes, body: bytes) -> bytes:
    return OpaqueBytes(header + _CRC.pack(zlib.crc32(body, zlib.crc32(header))) + body)


def restamped(data: bytes, *, alone: bool) -> bytes:
    """The record in `data`, alone or not. Its fields are not looked at."""
    flags = data[_FLAGS_AT] | _ALONE | _ONCE_ALONE if alone else data[_FLAGS_AT] & ~_ALONE
    if flags == data[_FLAGS_AT]:
        return data
    header = bytearray(data[:HEADER_BYTES])
    header[_FLAGS_AT] = flags
    return _summed(bytes(header), data[_BODY:])


def is_alone(data: bytes) -> bool:
    """Whether the record in `data` says so (`Header.alone`)."""
    return bool(data[_FLAGS_AT] & _ALONE)


def was_alone(data: bytes) -> bool:
    """Whether it, or what it was made of, has been alone (`Header.once_alone`)."""
    return bool(data[_FLAGS_AT] & _ONCE_ALONE)


def generation_of(data: bytes) -> int:
    return int.from_bytes(data[4:8], "big")


def is_plainly_live(data: bytes) -> bool:
    """Whether it is a live record, or a list of sessions, without a look at anything but that."""
    return len(data) > HEADER_BYTES and data[1] in LASTING


def is_compressed(data: bytes) -> bool:
    return bool(data[_FLAGS_AT] & FLAGS)


def head(data: bytes) -> Header:
    """The header of the record in `data`, encrypted or not. That nobody changed it, only a `seal` can tell.

    Raises:
        DecodeError: these bytes are no record that this version can read.
    """
    if len(data) <= _BODY:
        raise DecodeError(f"{len(data)} bytes are too short for a record")
    header = header_of(data)
    crc = zlib.crc32(memoryview(data)[_BODY:], zlib.crc32(data[:HEADER_BYTES]))
    if _CRC.unpack_from(data, HEADER_BYTES)[0] != crc:
        raise DecodeError("the checksum does not fit")
    return header


def header_of(data: bytes) -> Header:
    """The header that `data` begins with, unchecked: what follows it may be missing.

    Raises:
        DecodeError: it is none that this version can read.
    """
    if len(data) < HEADER_BYTES or data[0] != FORMAT:
        raise DecodeError("not the header of a record that is known to this version")
    _, kind, flags, key_number, *numbers, first, second, third, fourth, owner = _HEADER.unpack_from(data)
    generation, idle_ttl, created, authenticated_at, expires_at, idle_end = numbers
    if kind not in _KINDS:
        raise DecodeError(f"not a record: {kind} is no kind that is known to this version")
    return Header(
        _KINDS[kind],
        generation,
        (first, second, third, fourth),
        created,
        authenticated_at,
        expires_at,
        idle_ttl,
        idle_end,
        owner,
        key_number,
        bool(flags & _ALONE),
        bool(flags & _ONCE_ALONE),
        flags >> 4,
    )


def unpack(data: bytes, seal: Seal | None = None) -> Record:
    """The record in `data`, opened with `seal`; its fields stay encoded.

    Raises:
        DecodeError: these bytes are no record that this version can read, or `seal` does not open it.
    """
    header = head(data)
    body: bytes | memoryview = memoryview(data)[_BODY:]
    if header.key_number or header.kind in LASTING:
        if seal is not None:
            body = seal.opened(body, header.key_number, _lasting(data))
        elif header.key_number:
            raise DecodeError("it is encrypted, and ENCRYPTION_KEYS is not set")
    try:
        fields = ormsgpack.unpackb(grown(body, data[_FLAGS_AT] & FLAGS))
    except ValueError as error:
        raise DecodeError(f"not a record: {error}") from error
    if type(fields) is not dict or not _BYTES.issuperset(map(type, fields.values())):
        raise DecodeError("not a map of fields")
    return Record(header, fields)


def following(header: Header, revision: bytes, at_least: int = 0) -> Header:
    """`header` as the next generation, or as that one, under a revision of its own."""
    revisions = (revision, *header.revisions)[:KEPT_REVISIONS]
    return header._replace(generation=max(header.generation + 1, at_least), revisions=revisions)


def includes(header: Header, revision: bytes) -> bool:
    """Whether a record was made of the write called `revision`. Under somebody else's tombstone it does not matter any more
    what was written before.
    """
    if header.kind is Kind.TOMBSTONE:
        return revision == header.revision
    return revision in header.revisions


def comes_from(later: Header, earlier: Header) -> bool:
    """Whether a record was made of another, or may have been, so many writes ago that it is not named any more."""
    return earlier.revision in later.revisions or later.generation >= earlier.generation + KEPT_REVISIONS
