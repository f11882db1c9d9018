"""Records that only whoever knows their secret, and one of the app's keys, can read or make: AES-256-GCM. Pure: no I/O.

The app's key alone opens nothing. The key of a session's record is derived from it (HKDF with SHA-256) and the session's id,
which is in the cookie and nowhere in the store; that of the list of an owner's sessions, from it and the owner's hash.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, Self

from .compressing import check_method, shrunk
from .exceptions import DecodeError, MissingExtra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_LABEL: Final = b"elasticache-sessions record 1"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
INSTALL: Final = "pip install 'elasticache-sessions[encryption]'"


@dataclass(frozen=True, slots=True)
class Key:
    """One of the app's keys."""

    number: int
    """1 to 255. Made of the key itself, so that it is the same in every process, in whatever order keys are listed. Two keys
    may have the same one.
    """
    extracted: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> Self:
        extracted = hmac.digest(_LABEL, secret, hashlib.sha256)
        return cls(1 + _expanded(extracted, b"number")[0] % 255, extracted)

    def cipher(self, secret: bytes) -> AESGCM:
        """That of one record."""
        aes, _ = _cryptography()
        return aes(_expanded(self.extracted, b"key " + secret))


def _expanded(extracted: bytes, info: bytes) -> bytes:
    """HKDF-Expand (RFC 5869), for the length of one hash."""
    return hmac.digest(extracted, info + b"\1", hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Box:
    """How records are stored: under which keys, and from which size on compressed."""

    keys: tuple[Key, ...] = ()
    """The first encrypts, all decrypt; none: nothing is encrypted."""
    plain: str = "refuse"
    """What becomes of what is not encrypted. "accept": it is read, and encrypted at its next change. "write": whatever is
    written is not encrypted either, and `keys` decrypt only.
    """
    compress_from: int | None = None
    """Bytes from which on fields are compressed; None: never."""
    compress_with: str = "zlib"

    @classmethod
    def of(
        cls,
        app_keys: Iterable[bytes] = (),
        plain: str = "refuse",
        compress_from: int | None = None,
        compress_with: str = "zlib",
    ) -> Self:
        """Raises MissingExtra where a package is not installed."""
        keys = tuple(map(Key.of, app_keys))
        if keys:
            _cryptography()
        if compress_from is not None:
            check_method(compress_with)
        return cls(keys, plain, compress_from, compress_with)

    def of_session(self, session_id: str, handle: str) -> Seal:
        return Seal(self, b"session " + session_id.encode(), handle.encode())

    def of_owner(self, owner: bytes, name: str) -> Seal:
        """`owner`: the hash; `name`: that of the record, without the prefix."""
        return Seal(self, b"owner " + owner, name.encode())


@dataclass(frozen=True, slots=True)
class Seal:
    """Closes and opens the record of one session, or of one owner (`record.pack`, `record.unpack`)."""

    box: Box
    secret: bytes = field(repr=False)
    name: bytes
    """What a record is stored under: one that is copied to another name does not open."""

    @property
    def key_number(self) -> int:
        """Under which key records are encrypted; 0: not at all."""
        return self.box.keys[0].number if self.box.keys and self.box.plain != "write" else 0

    def shrunk(self, body: bytes) -> tuple[bytes, int]:
        """As `compressing.shrunk`, where `body` is large enough."""
        box = self.box
        if box.compress_from is None or len(body) < box.compress_from:
            return body, 0
        return shrunk(body, box.compress_with)

    def encrypted(self, body: bytes, about: bytes) -> bytes:
        """`body` under the first key. `about` is not encrypted, but has to be the same when it is opened."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self.box.keys[0].cipher(self.secret).encrypt(nonce, body, about + self.name)

    def opened(self, body: bytes | memoryview, key_number: int, about: bytes) -> bytes | memoryview:
        """What was `encrypted` under one of the keys of that number; `body` itself where that is 0 and may be.

        Raises:
            DecodeError: says why not.
        """
        if not key_number:
            if self.box.keys and self.box.plain == "refuse":
                raise DecodeError(_PLAIN)
            return body
        keys = [key for key in self.box.keys if key.number == key_number]
        if not keys:
            raise DecodeError(_LOST.format(key_number))
        if len(body) < _NONCE_BYTES + _TAG_BYTES:
            raise DecodeError(_CHANGED)
        _, invalid = _cryptography()
        nonce = bytes(body[:_NONCE_BYTES])
        for key in keys:
            try:
                return key.cipher(self.secret).decrypt(nonce, body[_NONCE_BYTES:], about + self.name)
            except invalid:
                continue
        raise DecodeError(_CHANGED)


_PLAIN: Final = (
    "it is not encrypted, though ENCRYPTION_KEYS is set. Where sessions are left from before, set "
    'ENCRYPTION_PLAIN to "accept" until they have expired'
)
_LOST: Final = "it is encrypted under key {}, which is none of ENCRYPTION_KEYS"
_CHANGED: Final = (
    "it does not open: it was changed in the store, or is of another session or under another key"
)


@cache
def _cryptography() -> tuple[type[AESGCM], type[Exception]]:
    """The cipher, and what it raises where something was changed."""
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtra(f"ENCRYPTION_KEYS needs the package cryptography: {INSTALL}") from error
    return AESGCM, InvalidTag
