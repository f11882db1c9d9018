"""The shop's page of a visitor's devices: what it says, and what its buttons do. In a real browser: test_demo.py."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from elasticache_sessions import IndexLost, SessionInfo
from example_flask_app import create_app, views
from example_flask_app.device_list import ago, devices
from example_flask_app.house import PASSWORD
from tests.support.stores import MemoryStore

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
PHONE = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/142.0.0.0 Mobile Safari/537.36"
LAPTOP = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"


def session_of(**what: Any) -> SessionInfo:
    known: dict[str, Any] = {
        "handle": "h",
        "created_at": NOW - timedelta(minutes=3),
        "last_seen": NOW - timedelta(seconds=40),
        "last_changed": None,
        "user_agent": LAPTOP,
        "ip": "192.0.2.7",
    }
    return SessionInfo(**(known | what))


# The words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-20, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (7200, "2 hours ago"),
        (86_400, "1 day ago"),
        (31 * 86_400, "31 days ago"),
    ],
)
def test_a_moment_is_said_as_people_say_it(seconds: float, words: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("what", "facts"),
    [
        ({}, ("active now", "signed in 3 minutes ago", "192.0.2.7")),
        (
            {"current": True, "last_seen": NOW - timedelta(hours=1)},
            ("active now", "signed in 3 minutes ago", "192.0.2.7"),
        ),
        (
            {"last_seen": NOW - timedelta(hours=1)},
            ("last active 1 hour ago", "signed in 3 minutes ago", "192.0.2.7"),
        ),
        (
            {"last_seen": None, "last_changed": NOW - timedelta(hours=2)},
            ("last changed 2 hours ago", "signed in 3 minutes ago", "192.0.2.7"),
        ),
        ({"last_seen": None, "ip": ""}, ("signed in 3 minutes ago",)),
    ],
)
def test_a_device_is_told_by_what_is_known_of_it(what: dict[str, Any], facts: tuple[str, ...]) -> None:
    (device,) = devices([session_of(**what)], NOW)
    assert (device.name, device.facts) == ("Firefox on Linux", facts)


def test_what_cannot_be_named_begins_with_a_capital_and_only_a_phone_is_shown_as_one() -> None:
    phone, unknown = devices([session_of(user_agent=PHONE), session_of(user_agent="")], NOW)
    assert (phone.name, phone.in_a_pocket) == ("Chrome on Android", True)
    assert (unknown.name, unknown.in_a_pocket) == ("An unknown device", False)


# The page


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("ELASTICACHE_SESSIONS_URL", MemoryStore().url)
    return create_app()


def csrf(client: FlaskClient, page: str) -> str:
    token = re.search(r'name="csrf" value="([^"]+)"', client.get(page).text)
    assert token
    return token[1]


def signed_in(app: Flask, name: str = "Ada", user_agent: str = LAPTOP) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_USER_AGENT"] = user_agent
    form = {"csrf": csrf(client, "/sign-in"), "name": name, "password": PASSWORD}
    assert client.post("/sign-in", data=form).status_code == 303
    return client


def handles(client: FlaskClient) -> list[str]:
    return re.findall(r'data-handle="([^"]+)"', client.get("/devices").text)


def test_the_page_lists_where_its_user_is_signed_in_and_nobody_else(app: Flask) -> None:
    here = signed_in(app)
    signed_in(app, user_agent=PHONE)
    signed_in(app, name="Grace")
    page = here.get("/devices").text
    assert page.index("Firefox on Linux") < page.index("this device") < page.index("Chrome on Android")
    assert len(handles(here)) == 2
    assert page.count("everywhere else") == 1
    assert here.get("/devices").headers["Cache-Control"] == "no-store"
    assert "nowhere else" in signed_in(app, name="Alan").get("/devices").text
    assert 'href="/devices"' in here.get("/cart").text
    assert 'href="/devices"' not in app.test_client().get("/cart").text


def test_its_buttons_sign_out_one_device_or_all_others(app: Flask) -> None:
    here, phone, other = signed_in(app), signed_in(app, user_agent=PHONE), signed_in(app)
    (handle,) = (
        each for each in handles(phone) if f'data-handle="{each}" class="here"' in phone.get("/devices").text
    )
    token = csrf(here, "/devices")
    for said in ("is signed out.", "was signed out already."):
        answer = here.post(f"/devices/{handle}/end", data={"csrf": token}, follow_redirects=True)
        assert said in answer.text
    assert phone.get("/devices").location == "/sign-in"
    assert other.get("/devices").status_code == 200
    answer = here.post("/devices/end-others", data={"csrf": token}, follow_redirects=True)
    assert "1 other device is signed out." in answer.text
    assert other.get("/devices").location == "/sign-in"
    assert len(handles(here)) == 1


@pytest.mark.parametrize("form", [{}, {"csrf": "made up"}])
def test_a_form_from_elsewhere_ends_nothing(app: Flask, form: dict[str, str]) -> None:
    here, there = signed_in(app), signed_in(app)
    for handle in handles(here):
        assert here.post(f"/devices/{handle}/end", data=form).status_code == 400
    assert here.post("/devices/end-others", data=form).status_code == 400
    assert len(handles(there)) == 2


def test_somebody_elses_device_cannot_be_signed_out(app: Flask) -> None:
    here, grace = signed_in(app), signed_in(app, name="Grace")
    (handle,) = handles(grace)
    here.post(f"/devices/{handle}/end", data={"csrf": csrf(here, "/devices")})
    assert handles(grace) == [handle]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/x/end"), ("POST", "/end-others")])
def test_who_is_not_signed_in_is_sent_to_sign_in(app: Flask, method: str, path: str) -> None:
    answer = app.test_client().open(f"/devices{path}", method=method, follow_redirects=True)
    assert answer.request.path == "/sign-in"
    assert "Please sign in." in answer.text


def test_a_list_that_the_cache_lost_is_said_so(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_user: object) -> None:
        raise IndexLost("lost")

    here = signed_in(app)
    monkeypatch.setattr(views.sessions, "for_user", lost)
    answer = here.get("/devices")
    assert answer.status_code == 503
    assert "cannot be listed" in answer.text
