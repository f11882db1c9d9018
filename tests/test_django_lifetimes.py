"""How long Django's sessions live: by the header and the TTL in each store, by a clock that the test moves, and in cookies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, alogin, alogout, login, logout
from django.contrib.auth.models import User
from django.http import HttpRequest
from pytest_django import Settings

from elasticache_sessions.clients.memory import AsyncMemoryClient, MemoryClient
from elasticache_sessions.django import SessionStore, managers as made
from elasticache_sessions.manager import AsyncSessionManager, SessionManager
from elasticache_sessions.record import NO_OWNER
from tests.support.django_browser import DJANGOS, OURS, Browser
from tests.support.stores import Store

HOUR, DAY = 3600, 86_400
TWO_WEEKS = 14 * DAY


def put(**fields: Any) -> Any:
    """A view that puts them into the session."""
    return lambda request: request.session.update(fields)


# What is stored, and what the browser is told


@pytest.fixture
def browser(store: Store, settings: Settings) -> Browser:
    return Browser(store, settings)


@pytest.fixture(params=[OURS, DJANGOS])
def middleware(request: pytest.FixtureRequest, settings: Settings) -> str:
    settings.MIDDLEWARE = [request.param]
    return str(request.param)


def cookie_age(response: Any) -> object:
    """Max-Age of the cookie that was set; "" where it ends with the browser."""
    return response.cookies["sessionid"]["max-age"]


def test_a_session_lives_for_session_cookie_age(
    browser: Browser, middleware: str, settings: Settings
) -> None:
    for age in (TWO_WEEKS, 600):
        settings.SESSION_COOKIE_AGE = age
        browser.client.cookies.clear()
        assert cookie_age(browser.visit(put(a=1))) == age
        assert age - 2 <= browser.ttl() <= age
        assert (browser.header().idle_ttl, browser.header().expires_at) == (0, 0)


def test_a_session_that_ends_with_the_browser_is_stored_for_session_cookie_age(
    browser: Browser, middleware: str, settings: Settings
) -> None:
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
    response = browser.visit(put(a=1))
    assert (cookie_age(response), response.cookies["sessionid"]["expires"]) == ("", "")
    assert TWO_WEEKS - 2 <= browser.ttl() <= TWO_WEEKS
    assert cookie_age(browser.visit(lambda request: request.session.set_expiry(300))) == 300
    assert cookie_age(browser.visit(lambda request: request.session.set_expiry(None))) == ""


@pytest.mark.parametrize("asynchronous", [False, True])
def test_set_expiry_sets_the_cookie_and_the_life_in_the_store(
    browser: Browser, middleware: str, asynchronous: bool
) -> None:
    def expire(expiry: Any) -> Any:
        async def view(request: HttpRequest) -> None:
            await request.session.aset_expiry(expiry)

        if asynchronous:
            return browser.avisit(view)
        return browser.visit(lambda request: request.session.set_expiry(expiry))

    browser.visit(put(a=1))
    assert cookie_age(expire(300)) == 300
    assert (browser.header().idle_ttl, browser.header().expires_at) == (300, 0)
    assert 298 <= browser.ttl() <= 300

    assert cookie_age(expire(0)) == "", "it ends with the browser"
    assert (browser.header().idle_ttl, browser.header().expires_at) == (0, 0)
    assert TWO_WEEKS - 2 <= browser.ttl() <= TWO_WEEKS

    for later in (timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)):
        age = cookie_age(expire(later))
        assert isinstance(age, int) and HOUR - 2 <= age <= HOUR
        assert HOUR - 2 <= browser.header().expires_at - time.time() <= HOUR + 1
        assert HOUR - 2 <= browser.ttl() <= HOUR + 1

    assert cookie_age(expire(60 * DAY)) == 60 * DAY, "longer than Memcached counts in seconds"
    # A time to Memcached, whose clock ticks late on a busy machine.
    assert abs(browser.ttl() - 60 * DAY) <= 5

    assert cookie_age(expire(None)) == TWO_WEEKS
    assert (browser.header().idle_ttl, browser.header().expires_at) == (0, 0)
    assert TWO_WEEKS - 2 <= browser.ttl() <= TWO_WEEKS
    assert browser.content() == {"a": 1}


@pytest.mark.parametrize("past", [-1, -DAY, timedelta(seconds=-1), datetime(1999, 1, 1, tzinfo=UTC)], ids=str)
def test_a_lifetime_that_is_over_ends_the_session(
    browser: Browser, middleware: str, past: Any, settings: Settings
) -> None:
    browser.visit(put(a=1))
    cookie = browser.session_key or ""
    browser.visit(lambda request: request.session.set_expiry(past))
    assert not SessionStore().exists(cookie)
    if middleware == OURS:
        assert browser.session_key == "", "deleted"
    browser.client.cookies["sessionid"] = cookie
    assert browser.content() == {}
    # Nor is one begun that would be over.
    browser.client.cookies.clear()
    before = browser.store.keys()
    browser.visit(lambda request: request.session.set_expiry(past))
    assert browser.store.keys() == before


@pytest.mark.parametrize("expiry", [datetime.max.replace(tzinfo=UTC), 10.5], ids=str)
def test_unusual_lifetimes_are_kept_as_far_as_they_go(browser: Browser, expiry: Any) -> None:
    response = browser.visit(lambda request: request.session.set_expiry(expiry))
    assert response.status_code == 200
    assert browser.content().keys() == {"_session_expiry"}
    if expiry == 10.5:
        assert browser.header().idle_ttl == 11


def test_lifetimes_that_are_set_at_once_merge(browser: Browser) -> None:
    """The header follows what the fields come to, whoever wrote them last."""
    browser.visit(put(a=1))
    one, other = SessionStore(browser.session_key), SessionStore(browser.session_key)
    for session in (one, other):
        session.get("a")
    one.set_expiry(300)
    one.save()
    other["a"] = 2
    other.save()
    assert (browser.header().idle_ttl, browser.content()["a"]) == (300, 2)
    third = SessionStore(browser.session_key)
    third.get("a")
    one.set_expiry(500)
    one.save()
    third.set_expiry(timedelta(hours=1))
    third.save()
    assert (browser.header().idle_ttl > DAY, browser.header().expires_at > time.time()) == (True, True)
    assert HOUR - 2 <= browser.ttl() <= HOUR + 1
    one.set_expiry(None)
    one.save()
    assert (browser.header().idle_ttl, browser.header().expires_at) == (0, 0)


# Whose it is


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["login", "alogin", "force_login"])
def test_whose_session_it_is_stands_in_the_header(browser: Browser, way: str) -> None:
    ada = User.objects.create_user("ada")
    browser.visit(put(cart=["mug"]))
    anonymous = browser.header()
    assert (anonymous.owner, anonymous.authenticated_at) == (NO_OWNER, 0)
    backend = "django.contrib.auth.backends.ModelBackend"

    async def asynchronous(request: HttpRequest) -> None:
        await alogin(request, ada, backend)

    if way == "login":
        browser.visit(lambda request: login(request, ada, backend))
    elif way == "alogin":
        browser.avisit(asynchronous)
    else:
        browser.client.force_login(ada)
    header = browser.header()
    assert header.owner == SessionStore()._rules.owner_hash(str(ada.pk))
    assert abs(header.authenticated_at - time.time()) <= 3
    assert 30 * DAY - 3 <= header.expires_at - time.time() <= 30 * DAY + 1, (
        "an owned session has an end of its own"
    )

    before = browser.header().authenticated_at
    browser.visit(put(a=1))
    assert browser.header().authenticated_at == before

    async def leave(request: HttpRequest) -> None:
        await alogout(request)

    old = browser.session_key
    if way == "alogin":
        browser.avisit(leave)
    else:
        browser.visit(logout)
    assert not SessionStore().exists(old)


# As time goes by


class Clock:
    """Django's sessions in a memory whose time passes by `wait` alone. Sessions are used without a request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        self.client = MemoryClient(clock=lambda: self.now)
        rules = replace(made.managers().rules, clock=lambda: self.now)
        managers = made.Managers(
            SessionManager(self.client, rules),
            AsyncSessionManager(lambda: AsyncMemoryClient(self.client), rules),
            rules,
        )
        self.rules = rules
        monkeypatch.setattr(SessionStore, "managers", staticmethod(lambda: managers))

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def lives(self, session: SessionStore) -> bool:
        """Looks without touching it."""
        return session.session_key is not None and SessionStore().exists(session.session_key)


@pytest.fixture
def begin(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Clock, SessionStore]]:
    """A clock and a session that is stored, under these settings."""

    def begin(**options: Any) -> tuple[Clock, SessionStore]:
        for name, value in options.items():
            setattr(settings, name, value)
        clock = Clock(monkeypatch)
        session = SessionStore()
        session["a"] = 1
        session.save()
        return clock, session

    return begin


Begin = Callable[..., tuple[Clock, SessionStore]]


def read(session: SessionStore) -> SessionStore:
    """Another request that reads it, and nothing else."""
    other = SessionStore(session.session_key)
    assert other.get("a") == 1
    return other


def test_reading_is_no_activity_as_django_has_it(begin: Begin) -> None:
    clock, session = begin(SESSION_COOKIE_AGE=1000)
    for _ in range(3):
        clock.wait(300)
        read(session)
    clock.wait(101)
    assert not clock.lives(session)


def test_a_change_is_activity(begin: Begin) -> None:
    clock, session = begin(SESSION_COOKIE_AGE=1000)
    for number in range(4):
        clock.wait(900)
        session["number"] = number
        session.save()
    assert clock.lives(session)


@pytest.mark.parametrize(
    "sliding",
    [
        {"SESSION_SAVE_EVERY_REQUEST": True, "SESSION_COOKIE_AGE": 1000},
        {"ELASTICACHE_SESSIONS_IDLE_TIMEOUT": 1000},
    ],
)
def test_reading_slides_where_the_settings_say_so(begin: Begin, sliding: dict[str, object]) -> None:
    clock, session = begin(**sliding)
    for _ in range(5):
        clock.wait(900)
        read(session)
    clock.wait(1001)
    assert not clock.lives(session)


def test_a_lifetime_of_its_own_slides_and_an_end_of_its_own_does_not(begin: Begin) -> None:
    clock, session = begin(SESSION_SAVE_EVERY_REQUEST=True)
    session.set_expiry(1000)
    session.save()
    for _ in range(3):
        clock.wait(900)
        read(session)
    session.set_expiry(datetime.fromtimestamp(clock.now + 1000, UTC))
    session.save()
    clock.wait(900)
    read(session)
    clock.wait(99)
    read(session)
    clock.wait(2)
    assert not clock.lives(session)


def test_an_end_of_its_own_may_be_later_than_session_cookie_age(begin: Begin) -> None:
    clock, session = begin(SESSION_COOKIE_AGE=1000)
    session.set_expiry(datetime.fromtimestamp(clock.now + 5000, UTC))
    session.save()
    clock.wait(4990)
    assert clock.lives(session)
    clock.wait(11)
    assert not clock.lives(session)


def test_cycling_does_not_extend_an_end(begin: Begin) -> None:
    clock, session = begin(ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=1000)
    clock.wait(600)
    session.cycle_key()
    session.save()
    clock.wait(390)
    assert clock.lives(session)
    session["b"] = 1
    session.save()
    clock.wait(11)
    assert not clock.lives(session)


def test_signing_in_begins_the_absolute_timeout_once(begin: Begin) -> None:
    clock, session = begin(ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=1000)
    clock.wait(900)
    session.cycle_key()
    session[SESSION_KEY] = "7"
    session.save()
    clock.wait(900)
    session.cycle_key()
    session["b"] = 1
    session.save()
    assert clock.lives(session)
    clock.wait(101)
    assert not clock.lives(session)


def test_an_owned_session_ends_after_thirty_days_however_it_is_used(begin: Begin) -> None:
    clock, session = begin(SESSION_SAVE_EVERY_REQUEST=True)
    session[SESSION_KEY] = "7"
    session.save()
    for _ in range(29):
        clock.wait(DAY)
        read(session)
    assert clock.lives(session)
    clock.wait(DAY + 1)
    assert not clock.lives(session)


def test_an_end_of_its_own_holds_against_the_absolute_timeout_whichever_is_earlier(begin: Begin) -> None:
    clock, session = begin(ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=1000)
    session.set_expiry(datetime.fromtimestamp(clock.now + 5000, UTC))
    session.save()
    clock.wait(1001)
    assert not clock.lives(session)


def test_a_session_that_has_expired_is_not_brought_back(begin: Begin) -> None:
    clock, session = begin(SESSION_COOKIE_AGE=1000)
    other = read(session)
    clock.wait(1001)
    other["b"] = 1
    with pytest.raises(Exception, match="ended") as raised:
        other.save()
    assert type(raised.value).__name__ == "SessionGone"
    assert SessionStore(session.session_key).get("a") is None


def test_asking_whether_a_session_is_there_stretches_nothing(store: Store, settings: Settings) -> None:
    settings.ELASTICACHE_SESSIONS_URL = store.url
    settings.SESSION_SAVE_EVERY_REQUEST = True
    session = SessionStore()
    session["a"] = 1
    session.save()
    [key] = store.keys()
    store.expire(key, 100)
    assert SessionStore().exists(session.session_key)
    assert (store.ttl(key) or 0) <= 100
