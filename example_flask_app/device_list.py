"""Where somebody is signed in, in words for people."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from elasticache_sessions import SessionInfo

# A session's last use is known to within a minute.
NOW: Final = 120
STEPS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"))


@dataclass(frozen=True)
class Device:
    handle: str
    name: str
    facts: tuple[str, ...]
    current: bool
    in_a_pocket: bool


def devices(sessions: Iterable[SessionInfo], now: datetime | None = None) -> list[Device]:
    now = now or datetime.now(UTC)
    return [
        Device(
            session.handle,
            _capitalised(session.device),
            tuple(
                filter(None, (_used(session, now), f"signed in {ago(session.created_at, now)}", session.ip))
            ),
            session.current,
            session.device.endswith(("iPhone", "iPad", "Android")),
        )
        for session in sessions
    ]


def ago(moment: datetime, now: datetime) -> str:
    """A moment ago, as people say it: "3 minutes ago"."""
    seconds = (now - moment).total_seconds()
    for length, name in STEPS:
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {name}{'' if number == 1 else 's'} ago"
    return "just now"


def _used(session: SessionInfo, now: datetime) -> str:
    if session.current or (session.last_seen and (now - session.last_seen).total_seconds() < NOW):
        return "active now"
    if session.last_seen:
        return f"last active {ago(session.last_seen, now)}"
    return f"last changed {ago(session.last_changed, now)}" if session.last_changed else ""


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith(("a ", "an ")) else text
