"""Every setting, named once and validated: from a framework's configuration, the environment, or keyword
arguments.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from math import ceil
from typing import Any, Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from .exceptions import ConfigurationError

NAME: Final = "ELASTICACHE_SESSIONS_"
"""What the name of every setting begins with, in `app.config`, in Django's settings and in the
environment.
"""

# The store that a URL's scheme means, and whether it speaks TLS.
_SCHEMES: Final = {
    "redis": ("redis", False),
    "rediss": ("redis", True),
    "valkey": ("redis", False),
    "valkeys": ("redis", True),
    "memory": ("memory", False),
}
# Part of a password may end up anywhere in a URL that is taken apart wrongly, so an error repeats nothing of it.
_QUOTE: Final = "A password that holds / ? # @ or : is written as urllib.parse.quote(password, safe='')."
_EXAMPLE: Final = "'rediss://my-cache.abc123.use1.cache.amazonaws.com:6379', or 'memory://' to try things out"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the store is: what a URL says."""

    store: str
    host: str = ""
    port: int = 6379
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: bool = False
    cluster: bool = False

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Raises ConfigurationError, which says what to write instead and never repeats a password."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"{NAME}URL is not a URL. Write {_EXAMPLE}. {_QUOTE}") from None
        if parts.scheme not in _SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
            raise ConfigurationError(
                f"{NAME}URL begins with {parts.scheme + '://' if parts.scheme else 'no scheme'!r}; "
                f"known are {known}. Write {_EXAMPLE}."
            )
        store, tls = _SCHEMES[parts.scheme]
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if store == "memory":
            _refuse_unknown(options, ())
            return cls(store, host=parts.netloc + parts.path)
        _refuse_unknown(options, ("cluster",))
        if not parts.hostname or not _is_host(parts.hostname):
            raise ConfigurationError(f"{NAME}URL names no host. Write {_EXAMPLE}.")
        cluster = _boolean("URL option 'cluster'", options.get("cluster", "false"))
        return cls(
            store,
            parts.hostname,
            6379 if port is None else port,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
            _database(parts, cluster),
            tls,
            cluster,
        )


def _is_host(name: str) -> bool:
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _database(parts: SplitResult, cluster: bool) -> int:
    path = parts.path.strip("/")
    if not path:
        return 0
    if not (path.isascii() and path.isdigit()):
        raise ConfigurationError(
            f"{NAME}URL names no database number behind the host. Write '/0', or nothing. {_QUOTE}"
        )
    if cluster and int(path):
        raise ConfigurationError(
            f"{NAME}URL asks for database {path}, but cluster mode has only database 0. Remove '/{path}', "
            f"and keep apps apart by {NAME}PREFIX."
        )
    return int(path)


def _refuse_unknown(options: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            allowed = f"allowed here: {', '.join(known)}" if known else "this kind of URL takes none"
            shown = f" {name!r}" if name.isidentifier() else ""
            raise ConfigurationError(
                f"{NAME}URL has an unknown option{shown}; {allowed}.{_suggestion(name, known)} {_QUOTE}"
            )


def _suggestion(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _boolean(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ConfigurationError(f"{name} is {value!r}. Write true or false.")


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
        raise ConfigurationError(
            f"{NAME}{name} is no secret of at least 16 bytes. Make one: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return secret


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
    """How long one command to the store may take, sending it again and waiting for a connection included."""
    connect_timeout: float = 1.0
    """How much longer where a connection must be made first."""
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
    max_connections: int = 50
    """The most connections of one process to one server."""
    max_bytes: int = 1_000_000
    """How large a session may get, in bytes as stored."""

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                object.__setattr__(self, name, check(name.upper(), value))
        if self.url:
            Endpoint.from_url(self.url)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Self:
        """What `config` (a framework's configuration) says under `ELASTICACHE_SESSIONS_*`, else the
        environment.
        """
        found = _named(os.environ if environ is None else environ) | _named(config)
        return cls(**found)

    @property
    def endpoint(self) -> Endpoint:
        if not self.url:
            raise ConfigurationError(
                f"{NAME}URL is not set. Set it to where the sessions are kept: {_EXAMPLE}."
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
    "max_connections": _count,
    "max_bytes": _count,
}
_OPTIONAL: Final = frozenset({"idle_timeout", "absolute_timeout", "owner_key"})


def _named(config: Mapping[Any, Any]) -> dict[str, Any]:
    known = tuple(f"{NAME}{item.name.upper()}" for item in fields(Settings))
    found = {}
    for name, value in config.items():
        if not isinstance(name, str) or not name.startswith(NAME):
            continue
        if name not in known:
            raise ConfigurationError(
                f"{name} is not a setting.{_suggestion(name, known)} Settings are {', '.join(known)}."
            )
        found[name.removeprefix(NAME).lower()] = value
    return found
