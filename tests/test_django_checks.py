"""`manage.py check` says what is missing, without asking any store; and settings take effect when a test changes them."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import WARNING, CheckMessage, Error, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpRequest
from django.test import override_settings
from pytest_django import Settings

from elasticache_sessions import ConfigurationError
from elasticache_sessions.django import SessionStore, managers as made
from elasticache_sessions.django.middleware import SessionMiddleware
from tests.support.django_browser import DJANGOS, OURS, Browser
from tests.support.proxy import Proxy
from tests.support.stores import Store


def found() -> dict[str, CheckMessage]:
    """What the checks say of sessions, by its id."""
    return {
        str(message.id): message
        for message in run_checks()
        if str(message.id).startswith("elasticache_sessions.")
    }


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELASTICACHE_SESSIONS_URL", raising=False)


def test_nothing_is_said_where_nothing_is_missing() -> None:
    assert found() == {}
    call_command("check")


def test_settings_that_name_no_store_are_an_error_that_says_what_to_set(settings: Settings) -> None:
    del settings.ELASTICACHE_SESSIONS_URL
    message = found()["elasticache_sessions.E001"]
    assert isinstance(message, Error)
    assert "ELASTICACHE_SESSIONS_URL" in message.msg
    with pytest.raises(SystemCheckError, match=r"elasticache_sessions\.E001"):
        call_command("check")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ELASTICACHE_SESSIONS_URL", "memchached://localhost"),
        ("ELASTICACHE_SESSIONS_TIMEOUT", "soon"),
        ("ELASTICACHE_SESSIONS_COLOUR", "green"),
        ("ELASTICACHE_SESSIONS_URL", ""),
    ],
)
def test_settings_that_cannot_be_are_an_error_that_names_them(
    settings: Settings, name: str, value: object
) -> None:
    setattr(settings, name, value)
    assert name in found()["elasticache_sessions.E001"].msg
    with pytest.raises(ConfigurationError, match=name):
        SessionStore("a" * 40).get("a")


def test_the_environment_alone_suffices(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    del settings.ELASTICACHE_SESSIONS_URL
    with pytest.raises(ConfigurationError, match="ELASTICACHE_SESSIONS_URL"):
        SessionStore("a" * 40).get("a")
    monkeypatch.setenv("ELASTICACHE_SESSIONS_URL", "memory://environment")
    made.managers.cache_clear()
    assert found() == {}
    assert SessionStore("a" * 40).get("a") is None


def not_a_class(get_response: Any) -> Any:
    return get_response


class Own(SessionMiddleware):
    """A project's own, built on ours."""


@pytest.mark.parametrize(
    "middleware", [[DJANGOS], [], ["nowhere.to.be.found"], [f"{__name__}.not_a_class"]], ids=str
)
def test_another_middleware_than_ours_is_warned_of(settings: Settings, middleware: list[str]) -> None:
    settings.MIDDLEWARE = [*middleware, *(path for path in settings.MIDDLEWARE if path != OURS)]
    message = found()["elasticache_sessions.W001"]
    assert message.level == WARNING
    assert OURS in str(message.hint)


def test_going_on_without_a_session_is_said_to_need_our_middleware(settings: Settings) -> None:
    settings.ELASTICACHE_SESSIONS_ON_OUTAGE = "anonymous"
    assert found() == {}
    settings.MIDDLEWARE = [DJANGOS if path == OURS else path for path in settings.MIDDLEWARE]
    message = found()["elasticache_sessions.W004"]
    assert message.level == WARNING
    assert OURS in message.msg
    settings.ELASTICACHE_SESSIONS_ON_OUTAGE = "error"
    assert set(found()) == {"elasticache_sessions.W001"}


def test_a_middleware_that_is_built_on_ours_is_one_of_ours(settings: Settings) -> None:
    settings.MIDDLEWARE = [f"{__name__}.Own" if path == OURS else path for path in settings.MIDDLEWARE]
    assert found() == {}


@pytest.mark.parametrize(
    ("name", "value"), [("SESSION_CACHE_ALIAS", "sessions"), ("SESSION_FILE_PATH", "/tmp/sessions")]
)
def test_settings_of_other_engines_are_warned_of(settings: Settings, name: str, value: str) -> None:
    setattr(settings, name, value)
    message = found()["elasticache_sessions.W002"]
    assert message.level == WARNING
    assert name in message.msg


def test_another_engine_is_warned_of_and_nothing_else_is_said(settings: Settings) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.SESSION_CACHE_ALIAS = "sessions"
    settings.MIDDLEWARE = [DJANGOS if path == OURS else path for path in settings.MIDDLEWARE]
    del settings.ELASTICACHE_SESSIONS_URL
    [(name, message)] = found().items()
    assert (name, message.level) == ("elasticache_sessions.W003", WARNING)


def test_each_warning_can_be_silenced(settings: Settings) -> None:
    settings.SESSION_FILE_PATH = "/tmp/sessions"
    settings.SILENCED_SYSTEM_CHECKS = ["elasticache_sessions.W002"]
    assert found()["elasticache_sessions.W002"].is_silenced()


def test_checking_asks_no_store(settings: Settings, single_proxy: Proxy) -> None:
    settings.ELASTICACHE_SESSIONS_URL = single_proxy.url
    with single_proxy.counting() as count:
        call_command("check")
        assert found() == {}
    assert (count.connections, count.round_trips) == (0, 0)


# Settings that a test changes


def test_settings_take_effect_when_they_change(store: Store, settings: Settings) -> None:
    """Each of those that managers are made of."""
    browser = Browser(store, settings)

    def save(request: HttpRequest) -> None:
        request.session["a"] = 1

    with override_settings(SESSION_COOKIE_AGE=500):
        browser.visit(save)
        assert browser.ttl() in range(497, 502)
    browser.visit(save)
    assert browser.ttl() > 10_000
    with override_settings(ELASTICACHE_SESSIONS_IDLE_TIMEOUT=400):
        browser.visit(save)
        assert browser.ttl() in range(397, 402)
    with override_settings(ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=300):
        browser.visit(save)
        assert browser.ttl() in range(297, 302)
    with override_settings(ELASTICACHE_SESSIONS_MAX_BYTES=200):
        assert browser.visit(lambda request: request.session.update({"b": "b" * 500})).status_code == 500
    with override_settings(SESSION_SERIALIZER="tests.django_site.serializers.Rich"):
        browser.visit(lambda request: request.session.update({"pair": (1, 2)}))
        assert browser.content()["pair"] == [1, 2]
        browser.visit(lambda request: request.session.pop("pair"))
    cookie = browser.session_key or ""
    for changed in (
        {"ELASTICACHE_SESSIONS_PREFIX": "sess:other:"},
        {"ELASTICACHE_SESSIONS_URL": "memory://elsewhere"},
    ):
        assert SessionStore(browser.session_key).get("a") == 1
        with override_settings(**changed):
            assert browser.visit(lambda request: request.session.get("a")).content == b"None"
            browser.client.cookies["sessionid"] = cookie  # which was none, and so deleted
    assert browser.content() == {"a": 1}


def test_the_owner_key_takes_effect_when_it_changes(settings: Settings) -> None:
    def owner() -> bytes:
        return SessionStore()._rules.owner_hash("7")

    before = owner()
    settings.ELASTICACHE_SESSIONS_OWNER_KEY = "x" * 32
    assert owner() != before


def test_sliding_takes_effect_when_it_changes(settings: Settings) -> None:
    assert not SessionStore()._rules.sliding
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        assert SessionStore()._rules.sliding
    with override_settings(ELASTICACHE_SESSIONS_IDLE_TIMEOUT=60):
        assert SessionStore()._rules.sliding
    assert not SessionStore()._rules.sliding
