"""What weakens sessions is found before an app is deployed: by `manage.py check --deploy`, and by `check(app)` in Flask."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.checks import WARNING, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from flask import Flask
from pytest_django import Settings as DjangoSettings

import elasticache_sessions
from elasticache_sessions import Settings
from elasticache_sessions.flask import ElastiCacheSessionInterface, ElastiCacheSessions, check
from elasticache_sessions.hardening import PREFIX, CookieFacts, findings
from tests.support.django_browser import DJANGOS, OURS

PACKAGE = Path(elasticache_sessions.__file__).parent
DOCS = PACKAGE.parent / "docs"
GOOD: dict[str, Any] = {
    "SESSION_COOKIE_NAME": "__Host-session",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": "Lax",
    "SESSION_COOKIE_DOMAIN": None,
    "SESSION_COOKIE_PATH": "/",
    "ELASTICACHE_SESSIONS_URL": "rediss://cache.example.com",
    "ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT": 86_400,
    "ELASTICACHE_SESSIONS_ENCRYPTION_KEYS": ["k" * 32],
    "ELASTICACHE_SESSIONS_OWNER_KEY": "o" * 32,
}
"""Of which nothing is to be said."""
URL, NONE = "ELASTICACHE_SESSIONS_URL", frozenset[str]()
CASES: list[tuple[dict[str, Any], set[str] | frozenset[str]]] = [
    ({"SESSION_COOKIE_SECURE": False}, {"W010", "W015"}),
    ({"SESSION_COOKIE_SECURE": False, "SESSION_COOKIE_NAME": "session"}, {"W010", "W014"}),
    ({"SESSION_COOKIE_HTTPONLY": False}, {"W011"}),
    ({"SESSION_COOKIE_SAMESITE": None}, {"W012"}),
    ({"SESSION_COOKIE_SAMESITE": False}, {"W012"}),
    ({"SESSION_COOKIE_SAMESITE": "Strict"}, NONE),
    ({"SESSION_COOKIE_SAMESITE": "None"}, NONE),  # a site that others embed
    ({"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": False}, {"W010", "W012", "W015"}),
    ({"SESSION_COOKIE_DOMAIN": "shop.example.com"}, {"W015"}),
    *(
        ({"SESSION_COOKIE_NAME": "__Secure-session", "SESSION_COOKIE_DOMAIN": domain}, expected)
        for domain, expected in (
            ("example.com", {"W013"}),
            (".example.com", {"W013"}),
            ("example.co.uk", {"W013"}),
            ("localhost", {"W013"}),
            ("shop.example.com", NONE),
            ("shop.example.co.uk", NONE),
            ("shop.example.uk", NONE),
        )
    ),
    ({"SESSION_COOKIE_NAME": "session"}, {"W014"}),
    ({"SESSION_COOKIE_PATH": "/shop"}, {"W015"}),
    ({"SESSION_COOKIE_NAME": "__Secure-session", "SESSION_COOKIE_PATH": "/shop"}, NONE),
    ({"SESSION_COOKIE_NAME": "__Secure-session", "SESSION_COOKIE_SECURE": False}, {"W010", "W015"}),
    ({"SESSION_COOKIE_NAME": "__Secure-session"}, NONE),
    ({"ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT": None}, {"W020"}),
    ({URL: "memory://"}, {"W030"}),
    ({URL: "redis://cache.example.com"}, {"W031"}),
    ({URL: "valkey://10.0.0.1"}, {"W031"}),
    ({URL: "redis://[2001:db8::1]"}, {"W031"}),
    ({URL: "redis://localhost.example.com"}, {"W031"}),
    ({URL: "redis://:secret@valkey"}, {"W031", "W032"}),
    ({URL: "memcached://127.0.0.1,10.0.0.1"}, {"W031"}),
    ({URL: "memcached+discovery://my.cfg.cache.amazonaws.com"}, {"W031"}),
    ({URL: "redis://localhost"}, NONE),
    ({URL: "redis://:secret@127.0.0.1"}, NONE),
    ({URL: "redis://[::1]"}, NONE),
    ({URL: "memcached://localhost,127.0.0.2"}, NONE),
    ({URL: "memcached://cache.example.com?tls=true"}, NONE),
    ({URL: "valkeys://:secret@cache.example.com"}, NONE),
    ({URL: "elasticache://my-cache"}, NONE),  # AWS knows
    ({"ELASTICACHE_SESSIONS_ENCRYPTION_KEYS": None}, {"W040"}),
    ({"ELASTICACHE_SESSIONS_ENCRYPTION_PLAIN": "accept"}, {"W041"}),
    ({"ELASTICACHE_SESSIONS_ENCRYPTION_PLAIN": "write"}, {"W041"}),
    ({"ELASTICACHE_SESSIONS_COMPRESS_MIN_BYTES": 100}, {"W042"}),
    (
        {"ELASTICACHE_SESSIONS_COMPRESS_MIN_BYTES": 100, "ELASTICACHE_SESSIONS_ENCRYPTION_KEYS": None},
        {"W040"},
    ),
    ({"ELASTICACHE_SESSIONS_OWNER_KEY": None}, {"W043"}),
]


def _named(value: object) -> str:
    """The same in every process, which the order of a set is not."""
    return ",".join(sorted(value)) if isinstance(value, set | frozenset) else str(value)


each_case = pytest.mark.parametrize(("changed", "expected"), CASES, ids=_named)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)


@pytest.fixture
def hardened(settings: DjangoSettings) -> DjangoSettings:
    for name, value in GOOD.items():
        setattr(settings, name, value)
    return settings


def found_in_django() -> set[str]:
    found = [each for each in run_checks(include_deployment_checks=True) if str(each.id).startswith(PREFIX)]
    assert all(each.level == WARNING and each.hint for each in found)
    return {str(each.id).removeprefix(PREFIX) for each in found}


def found_in_flask(changed: dict[str, Any]) -> set[str]:
    app = Flask("shop")
    app.config |= GOOD | changed
    found = check(app)
    assert all(each.message and each.hint and each.level == "warning" for each in found)
    return {each.id.removeprefix(PREFIX) for each in found}


def test_nothing_is_said_of_what_is_well_set(hardened: DjangoSettings) -> None:
    assert found_in_django() == set()
    assert found_in_flask({}) == set()


def test_flask_looks_at_the_cookie_that_the_app_s_own_interface_sets() -> None:
    app = Flask("shop")
    app.config |= GOOD
    sessions = ElastiCacheSessions(app)
    assert check(app) == ()
    assert sessions is app.extensions["elasticache_sessions"]

    class Open(ElastiCacheSessionInterface):
        def get_cookie_httponly(self, app: Flask) -> bool:
            return False

    ours = app.session_interface
    assert isinstance(ours, ElastiCacheSessionInterface)
    app.session_interface = Open(ours.manager, fixed_idle_timeout=True)
    assert [finding.id for finding in check(app)] == [f"{PREFIX}W011"]


@each_case
def test_django_finds_it(
    hardened: DjangoSettings, changed: dict[str, Any], expected: set[str] | frozenset[str]
) -> None:
    for name, value in changed.items():
        setattr(hardened, name, value)
    assert found_in_django() == expected


@each_case
def test_flask_finds_it(changed: dict[str, Any], expected: set[str] | frozenset[str]) -> None:
    assert found_in_flask(changed) == expected


def test_django_says_it_before_a_deployment_alone(settings: DjangoSettings) -> None:
    settings.ELASTICACHE_SESSIONS_URL = "redis://cache.example.com"
    assert [each for each in run_checks() if str(each.id).startswith(PREFIX)] == []
    with pytest.raises(SystemCheckError, match=r"elasticache_sessions\.W031"):
        call_command("check", "--deploy", "--fail-level", "WARNING", "--tag", "security")


def test_nothing_is_said_of_sessions_that_are_kept_elsewhere(settings: DjangoSettings) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    assert found_in_django() == {"W003"}


def test_settings_that_cannot_be_are_said_and_nothing_else(hardened: DjangoSettings) -> None:
    hardened.ELASTICACHE_SESSIONS_TIMEOUT = "soon"
    found = [each for each in run_checks(include_deployment_checks=True) if str(each.id).startswith(PREFIX)]
    assert [str(each.id) for each in found] == [f"{PREFIX}E001"]
    app = Flask("shop")
    app.config |= GOOD | {"ELASTICACHE_SESSIONS_TIMEOUT": "soon"}
    ((finding),) = check(app)
    assert (finding.id, finding.level) == (f"{PREFIX}E001", "error")
    assert "ELASTICACHE_SESSIONS_TIMEOUT" in finding.message


def test_where_sessions_are_to_be_kept_must_be_said_before_flask_s_extension_is_there() -> None:
    app = Flask("shop")
    app.config |= {name: value for name, value in GOOD.items() if name != URL}
    ((finding),) = check(app)
    assert (finding.id, finding.level) == (f"{PREFIX}E001", "error")
    assert f"{URL} is not set" in finding.message
    ElastiCacheSessions(app, client=redis.Redis())
    assert check(app) == ()


def test_no_password_is_repeated() -> None:
    cookie = CookieFacts("session", secure=False, http_only=False, same_site=None, domain="example.com")
    found = findings(Settings(url="redis://:hunter2@valkey", owner_key=None), cookie)
    assert len(found) >= 8
    assert "hunter2" not in str(found)


def test_what_another_store_s_client_does_only_the_app_knows() -> None:
    cookie = CookieFacts("__Host-session", secure=True, http_only=True, same_site="Lax", domain=None)
    settings = Settings(absolute_timeout=60, owner_key=b"o" * 32, encryption_keys=(b"k" * 32,))
    assert findings(settings, cookie) == ()


# Django's own


@pytest.mark.parametrize(
    ("serializer", "says"),
    [
        ("django.contrib.sessions.serializers.JSONSerializer", None),
        ("django.core.signing.JSONSerializer", None),
        ("shop.serializers.PickleSerializer", "run code"),
        ("tests.django_site.serializers.Rich", "nobody can tell"),
        ("nowhere.to.be.Found", "nobody can tell"),
    ],
)
def test_a_serializer_that_weakens_is_found(
    hardened: DjangoSettings, serializer: str, says: str | None
) -> None:
    hardened.SESSION_SERIALIZER = serializer
    found = [each for each in run_checks(include_deployment_checks=True) if str(each.id).startswith(PREFIX)]
    assert [str(each.id) for each in found] == ([] if says is None else [f"{PREFIX}W050"])
    assert says is None or says in found[0].msg


AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([OURS, AUTH], set()),
        ([OURS], set()),
        ([AUTH, OURS], {"W006"}),
        ([DJANGOS, OURS, AUTH], {"W005"}),
        ([OURS, AUTH, DJANGOS], {"W005"}),
        ([OURS, OURS, AUTH], {"W005"}),
    ],
    ids=_named,
)
def test_a_middleware_that_stands_in_the_wrong_place_is_found_at_any_time(
    settings: DjangoSettings, middleware: list[str], expected: set[str]
) -> None:
    settings.MIDDLEWARE = middleware
    found = {str(each.id).removeprefix(PREFIX) for each in run_checks() if str(each.id).startswith(PREFIX)}
    assert found == expected


# The tables


def test_each_finding_is_explained() -> None:
    source = "".join((PACKAGE / name).read_text() for name in ("hardening.py", "django/checks.py"))
    told = {f"W{int(number):03}" for number in re.findall(r"\bwarning\(\s*(\d+),", source)}
    told |= set(re.findall(rf"{PREFIX}([EW]\d+)\"", source))
    pages = "".join((DOCS / name).read_text() for name in ("django.md", "security.md"))
    assert len(told) > 20
    assert re.findall(rf"^\| `{PREFIX}([EW]\d+)` \|", pages, re.MULTILINE) == sorted(told)


def test_each_finding_has_a_case() -> None:
    source = (PACKAGE / "hardening.py").read_text()
    told = {f"W{int(number):03}" for number in re.findall(r"\bwarning\(\s*(\d+),", source)}
    assert told == set().union(*(expected for _, expected in CASES))
