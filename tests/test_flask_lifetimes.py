"""How long sessions live: by a clock that the test moves, by the TTLs in each store, and once by real time."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from flask import session

from elasticache_sessions.clients.memory import MemoryClient
from tests.support.flask_apps import RecordingClient, Site
from tests.support.stores import Store

DAY = 86_400


class MovedSite(Site):
    """A site on memory:// whose time passes by `wait` alone."""

    def __init__(self, **config: object) -> None:
        super().__init__("memory://never used", **config)
        self.now = 1_800_000_000.0
        self.store = RecordingClient(MemoryClient(clock=lambda: self.now))
        self.manager._client = self.store
        self.manager.rules = replace(self.manager.rules, clock=lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def lives(self) -> bool:
        """Looks without touching: a request that reads would slide the session."""
        rules = self.manager.rules
        self.manager.rules = replace(rules, sliding=False)
        try:
            return self.manager.load(self.session_id()) is not None
        finally:
            self.manager.rules = rules


@pytest.fixture
def begin() -> Iterator[Callable[..., MovedSite]]:
    """Makes a site with that configuration, and a session on it."""
    sites: list[MovedSite] = []

    def begin(**config: object) -> MovedSite:
        sites.append(MovedSite(**config))
        sites[-1].visit(lambda: session.update(name="Ada"))
        return sites[-1]

    yield begin
    for site in sites:
        site.manager.close()


def test_a_session_ends_when_nobody_used_it_for_its_lifetime(begin: Callable[..., MovedSite]) -> None:
    site = begin(PERMANENT_SESSION_LIFETIME=100)
    site.wait(99)
    assert site.lives()
    site.wait(2)
    assert not site.lives()
    assert site.contents() == {}


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("refresh", [False, True])
def test_reading_slides_the_lifetime(begin: Callable[..., MovedSite], permanent: bool, refresh: bool) -> None:
    """Refreshing the cookie is a decision of its own."""
    site = begin(PERMANENT_SESSION_LIFETIME=100, SESSION_REFRESH_EACH_REQUEST=refresh)
    site.visit(lambda: setattr(session, "permanent", permanent))
    for _ in range(5):
        site.wait(60)
        assert site.contents()["name"] == "Ada"
    site.wait(101)
    assert site.contents() == {}


@pytest.mark.parametrize(
    ("permanent", "refresh", "slides"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_an_untouched_request_slides_only_what_it_refreshes(
    begin: Callable[..., MovedSite], permanent: bool, refresh: bool, slides: bool
) -> None:
    site = begin(PERMANENT_SESSION_LIFETIME=100, SESSION_REFRESH_EACH_REQUEST=refresh)
    site.visit(lambda: setattr(session, "permanent", permanent))
    for _ in range(3):
        site.wait(60)
        site.visit()
    assert site.lives() == slides


def test_the_idle_timeout_of_the_settings_beats_flasks(begin: Callable[..., MovedSite]) -> None:
    site = begin(PERMANENT_SESSION_LIFETIME=1_000, ELASTICACHE_SESSIONS_IDLE_TIMEOUT=100)
    site.wait(60)
    assert site.contents() == {"name": "Ada"}
    site.wait(101)
    assert site.contents() == {}


def test_flasks_lifetime_may_change_while_the_app_runs(begin: Callable[..., MovedSite]) -> None:
    site = begin(PERMANENT_SESSION_LIFETIME=100)
    site.app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(hours=1)
    assert site.contents() == {"name": "Ada"}
    site.wait(3_599)
    assert site.lives()


def end_in_use(site: MovedSite, step: int, longest: int = 100 * DAY) -> float:
    """Seconds from now until the session ends though somebody uses it every `step` seconds."""
    begun = site.now
    while site.contents().get("name") and site.now - begun < longest:
        site.wait(step)
    return site.now - begun


def test_the_absolute_timeout_counts_from_creation_however_much_a_session_is_used(
    begin: Callable[..., MovedSite],
) -> None:
    assert (
        end_in_use(begin(PERMANENT_SESSION_LIFETIME=100, ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=300), 10)
        == 300
    )


def test_writing_does_not_extend_the_absolute_timeout(begin: Callable[..., MovedSite]) -> None:
    site = begin(PERMANENT_SESSION_LIFETIME=100, ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=300)
    for _ in range(3):
        site.wait(90)
        site.visit(lambda: session.update(now=site.now))
    assert end_in_use(site, 10) == 30


def test_cycling_does_not_extend_the_absolute_timeout(begin: Callable[..., MovedSite]) -> None:
    site = begin(PERMANENT_SESSION_LIFETIME=100, ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=300)
    for _ in range(2):
        site.wait(90)
        site.visit(site.sessions.cycle_id)
    assert end_in_use(site, 10) == 120


def test_logging_in_starts_the_absolute_timeout_anew(begin: Callable[..., MovedSite]) -> None:
    site = begin(PERMANENT_SESSION_LIFETIME=100, ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=300)
    for _ in range(2):
        site.wait(90)
        site.visit(lambda: site.sessions.login("ada"))
    assert end_in_use(site, 10) == 300


def test_a_session_that_somebody_owns_ends_after_30_days_without_any_setting(
    begin: Callable[..., MovedSite],
) -> None:
    site = begin()
    site.visit(lambda: site.sessions.login("ada"))
    assert end_in_use(site, DAY) == 30 * DAY


def test_a_session_that_nobody_owns_lives_on_without_any_setting(begin: Callable[..., MovedSite]) -> None:
    assert end_in_use(begin(), DAY, longest=90 * DAY) == 90 * DAY


def test_cycling_an_owned_session_keeps_its_end(begin: Callable[..., MovedSite]) -> None:
    site = begin()
    site.visit(lambda: site.sessions.login("ada"))
    site.wait(20 * DAY)
    site.visit(site.sessions.cycle_id)
    assert end_in_use(site, DAY) == 10 * DAY


# A lifetime of nothing


@pytest.mark.parametrize("lifetime", [0, -1, timedelta(days=-1), timedelta(0)])
def test_a_lifetime_of_0_or_less_creates_no_session(store: Store, lifetime: object) -> None:
    with Site(store.url, PERMANENT_SESSION_LIFETIME=lifetime) as site:
        for do in (
            lambda: session.update(a=1),
            lambda: (session.update(a=1), site.sessions.login("ada")),
            lambda: site.sessions.apply(lambda fields: fields.update(a=1)),
        ):
            assert site.visit(do).status_code == 200
            assert (site.cookie(), store.keys()) == (None, [])


@pytest.mark.parametrize("verb", ["write", "login", "apply"])
def test_a_lifetime_of_0_ends_a_session_that_is_written(store: Store, verb: str) -> None:
    with Site(store.url) as site:
        site.visit(lambda: session.update(a=1))
        old = site.cookie()
        site.app.config["PERMANENT_SESSION_LIFETIME"] = 0
        verbs: dict[str, Callable[[], object]] = {
            "write": lambda: session.update(a=2),
            "login": lambda: site.sessions.login("ada"),
            "apply": lambda: site.sessions.apply(lambda fields: fields.update(a=2)),
        }
        assert site.visit(verbs[verb]).status_code == 200
        assert site.cookie() is None
        site.app.config["PERMANENT_SESSION_LIFETIME"] = 100
        assert site.contents(site.client_with(old)) == {}


def test_a_lifetime_of_less_than_a_second_is_a_second(store: Store) -> None:
    with Site(store.url, PERMANENT_SESSION_LIFETIME=timedelta(milliseconds=1)) as site:
        site.visit(lambda: session.update(a=1))
        # A server rounds what is left of it, and one whose clock ticks in whole seconds is given one more.
        assert store.ttl(site.key()) in (0, 1, 2)
        assert site.contents() == {"a": 1}


def test_real_time_ends_a_session_that_is_not_used_and_no_other(single_store: Store) -> None:
    with Site(single_store.url, PERMANENT_SESSION_LIFETIME=2) as site:
        idle = site.client_with(None)
        site.visit(lambda: session.update(a=1), idle)
        site.visit(lambda: session.update(a=1))
        for _ in range(3):
            time.sleep(0.9)
            assert site.contents() == {"a": 1}
        assert site.contents(idle) == {}
        time.sleep(2.1)
        assert site.contents() == {}
        assert single_store.keys() == []
