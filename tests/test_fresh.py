"""How long ago a session's user signed in, as the core tells it to every framework. No store."""

from __future__ import annotations

import pytest

from elasticache_sessions.index import CLOCKS_APART
from elasticache_sessions.record import NO_OWNER, Header, Kind, Record
from elasticache_sessions.session import Rules, Session

NOW = 1_000_000
RULES = Rules("sess:", 3600, clock=lambda: NOW + 0.5)
OWNED = Header(Kind.LIVE, 0, (), NOW - 9000, owner=RULES.owner_hash("ada"))


def signed_in(ago: int) -> Session:
    return Session("x" * 40, stored=Record(OWNED._replace(authenticated_at=NOW - ago)))


@pytest.mark.parametrize("ago", [0, 1, 299])
def test_who_signed_in_just_now_is_fresh(ago: int) -> None:
    assert signed_in(ago).fresh(300, RULES)


@pytest.mark.parametrize("ago", [300, 301, 30 * 86_400])
def test_who_signed_in_long_ago_is_not(ago: int) -> None:
    assert not signed_in(ago).fresh(300, RULES)


def test_who_signed_in_where_the_clock_is_ahead_is_fresh_and_nobody_for_ever() -> None:
    assert signed_in(-30).fresh(10, RULES)
    assert signed_in(-CLOCKS_APART).fresh(10, RULES)
    assert not signed_in(-CLOCKS_APART - 1).fresh(10, RULES)


def test_nobody_is_not_fresh_and_who_signs_in_with_this_request_is() -> None:
    assert not Session().fresh(300, RULES)
    assert Session(owner="ada").fresh(300, RULES)
    assert Session(signing_in=True).fresh(300, RULES)
    assert Session("x" * 40, stored=Record(OWNED._replace(owner=NO_OWNER)), signing_in=True).fresh(300, RULES)
    again = signed_in(9000)
    again.signing_in = True
    assert again.fresh(300, RULES)
    anonymous = Session("x" * 40, stored=Record(Header(Kind.LIVE, 0, (), NOW)))
    assert not anonymous.fresh(300, RULES)
    leaving = signed_in(0)
    leaving.ending = True
    assert not leaving.fresh(300, RULES)
