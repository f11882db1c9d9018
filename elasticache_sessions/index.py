"""The index of an owner's sessions, and what it tells of each. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a session is signed in from, as the request says."""

    user_agent: str = ""
    ip: str = ""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session of a user, for a page that lists them. Tells nobody its id."""

    handle: str
    """Its public name: what to end it by."""
    created_at: datetime
    """When its user signed in (aware, UTC)."""
    last_seen: datetime | None
    """When it was last used, to within a minute (aware, UTC); None where reading does not slide sessions."""
    last_changed: datetime | None
    """There, when it was last stored."""
    user_agent: str
    ip: str
    current: bool = False
    """Whether it is the one that asks."""
