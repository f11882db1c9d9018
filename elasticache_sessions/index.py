"""The list of an owner's sessions, as it is stored, and what it tells of each. Pure: no I/O.

It is a record of its own kind, whose fields are the sessions' handles. What its header's times mean there:
`created`: when the list was begun; `authenticated_at`: until when everybody who is not listed was signed out;
`idle_end`: when it was noticed that the store had lost an earlier list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from . import codec
from .devices import describe
from .exceptions import DecodeError

# What a request says of itself is kept no longer than a person can make use of it.
_MOST_OF_AN_AGENT: Final = 160
_MOST_OF_AN_IP: Final = 45
CLOCKS_APART: Final = 60
"""Seconds by which the clocks of two instances may differ."""
MOST_SESSIONS: Final = 2_000
"""The most that anybody is signed in with, whatever the rules say: a list is one value in the store."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a session is signed in from, as the request says."""

    user_agent: str = ""
    ip: str = ""


UNKNOWN_ORIGIN: Final = Origin()


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session of a user, for a page that lists them. Tells nobody its id."""

    handle: str
    """Its public name: what to end it by."""
    created_at: datetime
    """When its user signed in (aware, UTC)."""
    last_seen: datetime | None
    """When it was last used, to within a minute (aware, UTC). None where reading does not slide sessions, and where nobody knows:
    its end does not depend on being used, as the idle timeout reaches beyond the absolute one.
    """
    last_changed: datetime | None
    """Where reading does not slide sessions: when it was last stored."""
    user_agent: str
    ip: str
    current: bool = False
    """Whether it is the one that asks."""

    @property
    def device(self) -> str:
        """What a person calls it, as far as its User-Agent tells: "Firefox on Linux"."""
        return describe(self.user_agent)


@dataclass(frozen=True, slots=True)
class Listed:
    """What the list holds of one session. Times are whole seconds since 1970."""

    signed_in_at: int
    ends_at: int
    origin: Origin = UNKNOWN_ORIGIN
    instead_of: str = ""
    """The handle that it had before, if its id was changed. That one is listed, too, until somebody finds it gone: had the change
    of the id failed in the middle, it would be the one that lives.
    """

    def packed(self) -> bytes:
        agent, ip = _printable(self.origin.user_agent), _printable(self.origin.ip)
        about = (agent[:_MOST_OF_AN_AGENT], ip[:_MOST_OF_AN_IP], self.instead_of)
        return codec.encode([self.signed_in_at, self.ends_at, *about])

    @staticmethod
    @lru_cache(2 * MOST_SESSIONS)  # a sign-in asks up to three times of each session of its user
    def unpacked(data: bytes) -> Listed:
        """What cannot be read is listed as a session of which nothing is known."""
        try:
            signed_in_at, ends_at, user_agent, ip, instead_of = codec.decode(data)
            return Listed(int(signed_in_at), int(ends_at), Origin(str(user_agent), str(ip)), str(instead_of))
        except (DecodeError, ValueError, TypeError):
            return Listed(0, 2**32 - 1)

    def is_over(self, now: int, lifetime: int) -> bool:
        """Whether its absolute end has passed, by any clock, and also where sessions have got a longer life since then."""
        return max(self.ends_at, self.signed_in_at + lifetime) + CLOCKS_APART <= now


def without_those_over(listed: Mapping[str, bytes], now: int, lifetime: int) -> dict[str, bytes]:
    """Those that may still be there. `lifetime`: how long a session lives at most, by the settings of now."""
    return {
        handle: data for handle, data in listed.items() if not Listed.unpacked(data).is_over(now, lifetime)
    }


def old_handles(listed: Mapping[str, bytes]) -> set[str]:
    """Those of sessions that are listed under another one, too."""
    return {Listed.unpacked(data).instead_of for data in listed.values()} & listed.keys()


def oldest_first(listed: Mapping[str, bytes]) -> list[str]:
    """The handles, by when they were signed in; in the same second, as they are listed."""
    return sorted(listed, key=lambda handle: Listed.unpacked(listed[handle]).signed_in_at)


def newest_first(sessions: Iterable[SessionInfo]) -> list[SessionInfo]:
    """As a person looks for them: this one, then those used last."""

    def rank(info: SessionInfo) -> tuple[bool, datetime]:
        return info.current, info.last_seen or info.last_changed or info.created_at

    return sorted(sessions, key=rank, reverse=True)


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
