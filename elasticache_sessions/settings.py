"""Every setting, named once and validated: from a framework's configuration, the environment, or keyword
arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from math import ceil
from typing import Any, Final, Self

from .endpoint import EXAMPLE, Endpoint
from .endpoint_options import NAME, suggestion
from .exceptions import ConfigurationError
from .index import MOST_SESSIONS
from .limit import Timeouts
from .sealing import Box

__all__ = ["NAME", "Endpoint", "Settings"]


def _seconds(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{NAME}{name} is {value!r}. Write a positive number of seconds.")
    return value


def _count(name: str, value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{NAME}{name} is {value!r}. Write a whole number of at least 1.")
    return value


def _sessions(name: str, value: object) -> int:
    if (count := _count(name, value)) > MOST_SESSIONS:
        raise ConfigurationError(
            f"{NAME}{name} is {value!r}. Write at most {MOST_SESSIONS}: more are not kept of any user."
        )
    return count


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{NAME}{name} is of type {type(value).__name__}. Write a str.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{NAME}{name} holds lone surrogates. Write valid Unicode.") from None
    return value


def _secret(name: str, value: object) -> bytes:
    secret = value.encode() if isinstance(value, str) else value
    if not isinstance(secret, bytes) or len(secret) < 16:
        raise ConfigurationError(f"{NAME}{name} is no secret of at least 16 bytes. {_MAKE_ONE}")
    return secret


def _keys(name: str, value: object) -> tuple[bytes, ...]:
    listed = [each.strip() for each in value.split(",")] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise ConfigurationError(
            f"{NAME}{name} is no list of keys. Write a list of secrets; in the environment, with commas between. {_MAKE_ONE}"
        )
    keys = [each.encode() if isinstance(each, str) else each for each in listed]
    for number, key in enumerate(keys, 1):
        if not isinstance(key, bytes) or len(key) < 32:
            raise ConfigurationError(
                f"{NAME}{name}: number {number} is no secret of at least 32 bytes. {_MAKE_ONE}"
            )
    return tuple(keys)


_MAKE_ONE: Final = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


def _one_of(choices: Mapping[str, str]) -> Callable[[str, object], str]:
    """A check for one of several words, each with what it does."""

    def check(name: str, value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        meant = "; or ".join(f"'{choice}' {does}" for choice, does in choices.items())
        raise ConfigurationError(
            f"{NAME}{name} is {value!r}.{suggestion(str(value), tuple(choices))} Write {meant}."
        )

    return check


_PLAIN: Final = {
    "refuse": "to take what is not encrypted for no session",
    "accept": "to read it, and encrypt it at its next change",
    "write": "to read both and encrypt nothing yet",
}
_POLICIES: Final = {
    "error": "to answer 503 while the store is down",
    "anonymous": "to serve pages as if nobody were signed in",
}
_LIMITS: Final = {
    "end_oldest": "to end a user's oldest session where there would be too many",
    "refuse": "to let nobody sign in any more then",
}
_METHODS: Final = {"zlib": "which Python brings", "zstd": "where the extra [zstd] is installed everywhere"}


def _check_memcached_prefix(prefix: str) -> None:
    """Memcached's keys are words of up to 250 bytes; `_HANDLE_BYTES` of them are the session's own."""
    word = prefix.encode()
    if len(word) > _KEY_BYTES - _HANDLE_BYTES or any(byte <= ord(" ") or byte == 0x7F for byte in word):
        raise ConfigurationError(
            f"{NAME}PREFIX cannot begin a key of Memcached. Write one of at most "
            f"{_KEY_BYTES - _HANDLE_BYTES} bytes without white space and control characters."
        )


_KEY_BYTES: Final = 250
_HANDLE_BYTES: Final = 43


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Lifetimes and time limits are in seconds, or a timedelta.

    Raises:
        ConfigurationError: says which setting is wrong, and what to write instead.
    """

    url: str = field(default="", repr=False)
    """Where the store is."""
    prefix: str = "sess:"
    """What every key in the store begins with. Apps with the same prefix (and cookie name) share sessions."""
    timeout: float = 0.5
    """How long one operation may wait for the store: to load a session, say, or to save one. Waiting for a free connection
    and sending again what failed are included."""
    connect_timeout: float = 1.0
    """How much longer where it must connect first: names, TCP, TLS, credentials."""
    idle_timeout: int | None = None
    """How long a session lives without being used. None: the framework's own setting."""
    absolute_timeout: int | None = None
    """How long a session lives at most, however much it is used. None: no limit; 30 days once its user signed
    in.
    """
    owner_key: bytes | None = field(default=None, repr=False)
    """The secret that hides user ids in the store. The same for apps that share sessions. None: hidden by the
    prefix alone,
    which keeps nobody from trying ids that can be guessed."""
    anonymous_idle_timeout: int | None = None
    """How long a session that is nobody's lives without being used: one that only holds a visitor's choices, or a bot's.
    None: as long as any.
    """
    max_sessions_per_user: int | None = None
    """How many sessions a user may be signed in with at once. None: 2,000, as nobody needs more; then the oldest ends."""
    on_limit: str = "end_oldest"
    """What becomes of one more sign-in. "end_oldest": the session that signed in longest ago ends. "refuse": it raises
    TooManySessions.
    """
    on_outage: str = "error"
    """What becomes of a request that needs its session while the store is down. "error": it is answered with 503.
    "anonymous": it goes on with an empty session, of which nothing is saved.
    """
    max_connections: int = 50
    """The most connections of one process to one server: for its threads, and again for each of its event loops."""
    max_bytes: int = 1_000_000
    """How large a session may get, in bytes as stored."""
    encryption_keys: tuple[bytes, ...] | None = field(default=None, repr=False)
    """The secrets that sessions are encrypted with in the store: a list, or a str with commas. The first encrypts, all
    decrypt. None: sessions are stored in the clear.
    """
    encryption_plain: str = "refuse"
    """What becomes of sessions that are not encrypted, where ENCRYPTION_KEYS is set. "refuse": they are none. "accept": they
    are read, and encrypted at their next change. "write": nothing is encrypted yet, but all is read.
    """
    compress_min_bytes: int | None = None
    """From how many bytes on sessions are compressed. None: never, as how well something compresses tells what it is like,
    even where it is encrypted."""
    compress_with: str = "zlib"
    """"zlib", or "zstd" where the extra [zstd] is installed. Both are read wherever they can be."""

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                object.__setattr__(self, name, check(name.upper(), value))
        if self.url and Endpoint.from_url(self.url).store == "memcached":
            _check_memcached_prefix(self.prefix)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Self:
        """What `config` (a framework's configuration) says under `ELASTICACHE_SESSIONS_*`, else the
        environment.
        """
        found = _named(os.environ if environ is None else environ) | _named(config)
        return cls(**found)

    @property
    def timeouts(self) -> Timeouts:
        """Both time limits."""
        return Timeouts(self.timeout, self.connect_timeout)

    @property
    def box(self) -> Box | None:
        """How sessions are encrypted and compressed; None: not at all."""
        if self.encryption_keys is None and self.compress_min_bytes is None:
            return None
        return Box.of(
            self.encryption_keys or (), self.encryption_plain, self.compress_min_bytes, self.compress_with
        )

    @property
    def endpoint(self) -> Endpoint:
        if not self.url:
            raise ConfigurationError(
                f"{NAME}URL is not set. Set it to where the sessions are kept: {EXAMPLE}."
            )
        return Endpoint.from_url(self.url)


def _whole_seconds(name: str, value: object) -> int:
    return ceil(_seconds(name, value))


_CHECKS: Final = {
    "url": _text,
    "prefix": _text,
    "timeout": _seconds,
    "connect_timeout": _seconds,
    "idle_timeout": _whole_seconds,
    "absolute_timeout": _whole_seconds,
    "owner_key": _secret,
    "anonymous_idle_timeout": _whole_seconds,
    "max_sessions_per_user": _sessions,
    "on_limit": _one_of(_LIMITS),
    "on_outage": _one_of(_POLICIES),
    "max_connections": _count,
    "max_bytes": _count,
    "encryption_keys": _keys,
    "encryption_plain": _one_of(_PLAIN),
    "compress_min_bytes": _count,
    "compress_with": _one_of(_METHODS),
}
_OPTIONAL: Final = frozenset(
    {
        "idle_timeout",
        "absolute_timeout",
        "owner_key",
        "anonymous_idle_timeout",
        "max_sessions_per_user",
        "encryption_keys",
        "compress_min_bytes",
    }
)


def _named(config: Mapping[Any, Any]) -> dict[str, Any]:
    known = tuple(f"{NAME}{item.name.upper()}" for item in fields(Settings))
    found = {}
    for name, value in config.items():
        if not isinstance(name, str) or not name.startswith(NAME):
            continue
        if name not in known:
            raise ConfigurationError(
                f"{name} is not a setting.{suggestion(name, known)} Settings are {', '.join(known)}."
            )
        found[name.removeprefix(NAME).lower()] = value
    return found
