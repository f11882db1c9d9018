"""The session cookie of Flask: its attributes, when it is set, refreshed and deleted."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from flask import Flask, request, session

from elasticache_sessions.flask import ElastiCacheSessionInterface
from tests.support.flask_apps import Site, attributes, clear
from tests.support.stores import MemoryStore

UNKNOWN = "A" * 40
"""What could be an id and is not."""


def is_id(text: str | None) -> bool:
    """By what the documents say, and not by what the package thinks."""
    return text is not None and re.fullmatch(r"[A-Za-z0-9_-]{40}", text, re.ASCII) is not None


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(MemoryStore().url) as site:
        yield site


def sign_in(site: Site, *, permanent: bool) -> None:
    site.visit(lambda: (session.update(name="Ada"), setattr(session, "permanent", permanent)))


# Its attributes


@pytest.mark.parametrize(
    ("config", "url", "expected"),
    [
        ({}, "http://localhost/", {"path": "/", "httponly": ""}),
        (
            {
                "SESSION_COOKIE_DOMAIN": "example.com",
                "SESSION_COOKIE_PATH": "/shop",
                "SESSION_COOKIE_HTTPONLY": False,
            },
            "http://www.example.com/",
            {"path": "/shop", "domain": "example.com"},
        ),
        ({"APPLICATION_ROOT": "/app"}, "http://localhost/", {"path": "/app", "httponly": ""}),
        (
            {
                "SESSION_COOKIE_NAME": "__Host-session",
                "SESSION_COOKIE_SECURE": True,
                "SESSION_COOKIE_SAMESITE": "Strict",
                "SESSION_COOKIE_PARTITIONED": True,
            },
            "https://localhost/",
            {"path": "/", "httponly": "", "secure": "", "samesite": "Strict", "partitioned": ""},
        ),
    ],
    ids=["defaults", "domain and path", "application root", "__Host- and partitioned"],
)
def test_a_cookie_is_deleted_with_the_attributes_it_was_set_with(
    config: dict[str, object], url: str, expected: dict[str, str]
) -> None:
    with Site(MemoryStore().url, **config) as site:
        name = site.app.config["SESSION_COOKIE_NAME"]
        response = site.visit(lambda: session.update(a=1), base_url=url)
        made = attributes(response.headers["Set-Cookie"])
        value = made.pop("").removeprefix(f"{name}=")
        assert is_id(value)
        assert made == expected

        response = site.visit(clear, base_url=url, headers={"Cookie": f"{name}={value}"})
        deleted = attributes(response.headers["Set-Cookie"])
        assert deleted.pop("") == f"{name}="
        assert (deleted.pop("max-age"), deleted.pop("expires")) == ("0", "Thu, 01 Jan 1970 00:00:00 GMT")
        assert deleted == expected


def test_the_cookie_of_a_session_that_is_not_permanent_ends_with_the_browser(site: Site) -> None:
    made = attributes(site.visit(lambda: session.update(a=1)).headers["Set-Cookie"])
    assert not made.keys() & {"expires", "max-age"}
    assert is_id(made[""].removeprefix("session="))


@pytest.mark.parametrize("lifetime", [timedelta(hours=1), 3600])
def test_the_cookie_of_a_permanent_session_ends_with_its_lifetime(site: Site, lifetime: object) -> None:
    site.app.config["PERMANENT_SESSION_LIFETIME"] = lifetime
    made = attributes(site.visit(lambda: setattr(session, "permanent", True)).headers["Set-Cookie"])
    left = parsedate_to_datetime(made["expires"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_the_cookie_name_may_change_while_the_app_runs(site: Site) -> None:
    site.visit(lambda: session.update(a=1))
    site.app.config["SESSION_COOKIE_NAME"] = "renamed"
    assert site.contents() == {}
    site.visit(lambda: session.update(a=2))
    renamed = site.browser.get_cookie("renamed")
    assert renamed is not None and renamed.value != site.cookie()
    assert site.contents() == {"a": 2}


def test_an_overridden_cookie_name_holds_for_reading_setting_and_deleting(site: Site) -> None:
    class ByHost(ElastiCacheSessionInterface):
        def get_cookie_name(self, app: Flask) -> str:
            return f"session-{request.args.get('tenant')}"

    site.app.session_interface = ByHost(site.manager, fixed_idle_timeout=False)
    for tenant in ("a", "b"):
        site.visit(lambda: session.update(tenant=request.args["tenant"]), path=f"/?tenant={tenant}")
    for tenant in ("a", "b"):
        assert site.ask(lambda: dict(session), path=f"/?tenant={tenant}") == {"tenant": tenant}
    site.visit(clear, path="/?tenant=a")
    assert site.browser.get_cookie("session-a") is None
    assert site.ask(lambda: dict(session), path="/?tenant=b") == {"tenant": "b"}


# When it is refreshed


def test_a_permanent_session_is_refreshed_with_every_request(site: Site) -> None:
    sign_in(site, permanent=True)
    cookie = site.cookie()
    # The mark lets a request that touches nothing know, without asking the store, that there is something to refresh.
    assert cookie is not None and cookie.endswith(".p") and is_id(cookie[:-2])
    # One that has read it looks again before it sets the cookie: the session may have ended since.
    for do, costs in ((lambda: None, ["touch"]), (lambda: session["name"], ["touch", "touch"])):
        with site.recording() as commands:
            response = site.visit(do)
        assert commands == costs
        made = attributes(response.headers["Set-Cookie"])
        assert made[""] == f"session={cookie}" and "expires" in made
        assert response.headers["Vary"] == "Cookie"


def test_without_refresh_only_a_change_sets_the_cookie(site: Site) -> None:
    site.app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    sign_in(site, permanent=True)
    assert is_id(site.cookie())
    for do, cost in ((lambda: None, []), (lambda: session["name"], ["touch"])):
        with site.recording() as commands:
            response = site.visit(do)
        assert commands == cost
        assert "Set-Cookie" not in response.headers
    made = attributes(site.visit(lambda: session.update(name="Grace")).headers["Set-Cookie"])
    assert made[""] == f"session={site.session_id()}" and "expires" in made


def test_a_session_that_is_not_permanent_is_not_refreshed(site: Site) -> None:
    sign_in(site, permanent=False)
    for do, cost in ((lambda: None, []), (lambda: session["name"], ["touch"])):
        with site.recording() as commands:
            response = site.visit(do)
        assert commands == cost
        assert "Set-Cookie" not in response.headers


def test_the_cookie_follows_when_a_session_becomes_permanent_or_ceases_to_be(site: Site) -> None:
    sign_in(site, permanent=False)
    session_id = site.cookie()
    site.visit(lambda: setattr(session, "permanent", True))
    assert site.cookie() == f"{session_id}.p"
    response = site.visit(lambda: setattr(session, "permanent", False))
    assert site.cookie() == session_id
    assert "expires" not in attributes(response.headers["Set-Cookie"])


def test_a_marked_cookie_is_read_when_refresh_was_turned_off(site: Site) -> None:
    sign_in(site, permanent=True)
    site.app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    with site.recording() as commands:
        assert "Set-Cookie" not in site.visit().headers
    assert commands == []
    assert site.contents()["name"] == "Ada"


def test_an_unmarked_cookie_of_a_permanent_session_gets_its_mark_on_reading(site: Site) -> None:
    site.app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    sign_in(site, permanent=True)
    site.app.config["SESSION_REFRESH_EACH_REQUEST"] = True
    site.visit(lambda: session["name"])
    assert site.cookie() == f"{site.session_id()}.p"


def test_a_mark_that_a_client_made_up_changes_nothing(site: Site) -> None:
    sign_in(site, permanent=False)
    for cookie in (f"{site.cookie()}.p", f"{UNKNOWN}.p"):
        with site.recording() as commands:
            response = site.visit(client=site.client_with(cookie))
        assert (response.status_code, commands) == (200, ["touch"])
        assert "Set-Cookie" not in response.headers


def test_the_cookie_of_an_ended_permanent_session_is_not_refreshed(site: Site) -> None:
    sign_in(site, permanent=True)
    copy = site.client_with(site.cookie())
    site.visit(site.sessions.logout)
    for do in (lambda: None, lambda: session.get("name")):
        assert "Set-Cookie" not in site.visit(do, copy).headers
