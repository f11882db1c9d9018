"""What of an app's settings weakens its sessions. Pure: asks nobody, and knows no framework."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from .endpoint import Endpoint
from .exceptions import ConfigurationError
from .settings import NAME, Settings

Level = Literal["warning", "error"]
PREFIX: Final = "elasticache_sessions."
"""What the id of every finding begins with."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to set otherwise before an app is deployed. docs/security.md has a table of them."""

    id: str
    level: Level
    message: str
    """What is so, and what follows."""
    hint: str
    """What to write instead."""


@dataclass(frozen=True, slots=True)
class CookieFacts:
    """The session cookie as the framework will set it."""

    name: str
    secure: bool
    http_only: bool
    same_site: str | None
    """None: without the attribute."""
    domain: str | None
    path: str | None = "/"


def findings(settings: Settings, cookie: CookieFacts) -> tuple[Finding, ...]:
    """What weakens the sessions of an app with these settings, whose names are the same in Flask and Django."""
    return (*_of_cookie(cookie), *_of_lifetime(settings), *_of_store(settings), *_at_rest(settings))


def misconfigured(error: ConfigurationError) -> Finding:
    """The settings are wrong, so nothing else can be said."""
    return Finding(f"{PREFIX}E001", "error", str(error), "Set it in the settings or in the environment.")


def warning(number: int, message: str, hint: str) -> Finding:
    return Finding(f"{PREFIX}W{number:03}", "warning", message, hint)


def _of_cookie(cookie: CookieFacts) -> Iterator[Finding]:
    if not cookie.secure:
        yield warning(
            10,
            "The session cookie is not Secure, so that browsers send it over plain HTTP, where anybody on the way can take it.",
            "Set SESSION_COOKIE_SECURE = True.",
        )
    if not cookie.http_only:
        yield warning(
            11,
            "The session cookie is not HttpOnly, so that a script that was injected into a page can read it.",
            "Set SESSION_COOKIE_HTTPONLY = True.",
        )
    if cookie.same_site is None:
        yield warning(
            12,
            "The session cookie has no SameSite, so that it depends on the browser whether other sites' forms send it.",
            "Set SESSION_COOKIE_SAMESITE = 'Lax' (or 'Strict').",
        )
    elif cookie.same_site.lower() == "none" and not cookie.secure:
        yield warning(
            12,
            "The session cookie has SameSite=None and is not Secure: browsers refuse it.",
            "Set SESSION_COOKIE_SECURE = True, or SESSION_COOKIE_SAMESITE = 'Lax' where no other site embeds this one.",
        )
    domain = (cookie.domain or "").strip(".")
    if domain and _is_whole(domain):
        yield warning(
            13,
            f"The session cookie is sent to every host under {domain}, so that each of them can take sessions over, and set "
            "cookies of that name.",
            "Remove SESSION_COOKIE_DOMAIN, or name the one host under which the apps are that share sessions.",
        )
    if not cookie.name.startswith(("__Host-", "__Secure-")):
        yield warning(
            14,
            f"The session cookie is called {cookie.name!r}, so that another host of the domain, or a page over plain HTTP, can "
            "set one of that name.",
            f"Set SESSION_COOKIE_NAME = '__Host-{cookie.name}'; with SESSION_COOKIE_DOMAIN or SESSION_COOKIE_PATH "
            f"'__Secure-{cookie.name}'. Everybody signs in anew once.",
        )

    elif not _is_taken(cookie):
        yield warning(
            15,
            f"The session cookie is called {cookie.name!r} and is not Secure, or begins with __Host- and has a domain, or a path "
            "other than '/': browsers refuse it, so that nobody can sign in.",
            "Set SESSION_COOKIE_SECURE = True; and, for __Host-, SESSION_COOKIE_PATH = '/' and no SESSION_COOKIE_DOMAIN.",
        )


# Under which anybody may have a domain of two letters' countries, as far as it can be told without the list of all.
_SUFFIXES: Final = frozenset({"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"})


def _is_whole(domain: str) -> bool:
    """Whether it is all that somebody has: `example.com`, `example.co.uk`."""
    *rest, above, country = ("", *domain.lower().split("."))
    return len(rest) < 2 or (len(rest) == 2 and len(country) == 2 and above in _SUFFIXES)


def _is_taken(cookie: CookieFacts) -> bool:
    """Whether browsers take a cookie whose name has a prefix."""
    if not cookie.name.startswith("__Host-"):
        return cookie.secure
    return cookie.secure and not cookie.domain and cookie.path == "/"


def _of_lifetime(settings: Settings) -> Iterator[Finding]:
    if settings.absolute_timeout is None:
        yield warning(
            20,
            "No absolute timeout is set: whoever is signed in has to sign in anew after 30 days, and a session that is nobody's "
            "lives for as long as it is used.",
            f"Set {NAME}ABSOLUTE_TIMEOUT, in seconds, to how long a session may live at most, however much it is used.",
        )


def _of_store(settings: Settings) -> Iterator[Finding]:
    if not settings.url:
        return  # a client object of the app's own: only the app knows
    endpoint = settings.endpoint
    if endpoint.store == "memory":
        yield warning(
            30,
            "Sessions are kept in the memory of each process: each has its own, and they are gone with it.",
            f"Set {NAME}URL to a store that all processes share.",
        )
    if not endpoint.tls and (host := _remote(endpoint)) is not None:
        yield warning(
            31,
            f"What goes to {host} and back is not encrypted on the way, so that anybody there can read and change sessions.",
            f"Switch on encryption in transit, and write {_WITH_TLS[endpoint.store]} in {NAME}URL.",
        )
        if endpoint.password is not None:
            yield warning(
                32,
                f"The password in {NAME}URL goes to {host} in the clear.",
                f"Write {_WITH_TLS[endpoint.store]}, and change the password.",
            )


_WITH_TLS: Final = {"redis": "rediss:// (or valkeys://)", "memcached": "?tls=true behind the hosts"}


def _remote(endpoint: Endpoint) -> str | None:
    """A host of the store that is not this machine, as far as its name says. Of elasticache://, only AWS knows."""
    if endpoint.store not in _WITH_TLS:
        return None
    hosts = [host for host, _ in endpoint.nodes] or [endpoint.host]
    return next((host for host in hosts if not _is_local(host)), None)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".").rpartition(".")[2] == "localhost"


def _at_rest(settings: Settings) -> Iterator[Finding]:
    if not settings.encryption_keys:
        yield warning(
            40,
            "Sessions are stored in the clear: whoever reads the store, or a snapshot of it, reads what they hold.",
            f"Set {NAME}ENCRYPTION_KEYS (pip install 'elasticache-sessions[encryption]').",
        )
    elif settings.encryption_plain != "refuse":
        yield warning(
            41,
            f"{NAME}ENCRYPTION_PLAIN is {settings.encryption_plain!r}, so that a session which somebody put into the store in "
            "the clear is believed.",
            "Remove it once the sessions from before have expired.",
        )
    if settings.encryption_keys and settings.compress_min_bytes is not None:
        yield warning(
            42,
            "Sessions are compressed before they are encrypted, so that their size tells how much what a visitor may put in is "
            "like what is secret there.",
            f"Remove {NAME}COMPRESS_MIN_BYTES, or have no session hold both.",
        )
    if settings.owner_key is None:
        yield warning(
            43,
            "The ids of users are hidden in the store by the prefix alone, so that whoever reads the store can try ids that can "
            "be guessed.",
            f"Set {NAME}OWNER_KEY to a secret, the same in all apps that share sessions: before anybody signs in, or with "
            f"another {NAME}PREFIX, as lists of sessions are lost.",
        )
