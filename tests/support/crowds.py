"""A user with many sessions, without signing in once for each."""

from __future__ import annotations

from elasticache_sessions.index import UNKNOWN_ORIGIN
from elasticache_sessions.owner_list import Next, OwnerList, change
from elasticache_sessions.record import Header, Kind
from elasticache_sessions.seen import entry_of
from elasticache_sessions.session import Rules, Session
from elasticache_sessions.settle import Flow, insert


def many(rules: Rules, owner: bytes, count: int = 1_000) -> Flow[list[Session]]:
    """Store so many sessions of that owner (a hash), and list them."""
    now = rules.now()
    header = Header(Kind.LIVE, 0, (), now, authenticated_at=now, owner=owner)
    sessions = []
    for _ in range(count):
        sessions.append((yield from insert(header, {"a": b"\x01"}, rules)))  # noqa: PERF401 - it yields
    entry = entry_of(header, UNKNOWN_ORIGIN, rules).packed()

    def decide(found: OwnerList) -> Flow[Next]:
        yield from ()
        return Next(found.listed | {str(session.handle): entry for session in sessions})

    yield from change(owner, decide, rules)
    return sessions
