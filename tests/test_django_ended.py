"""A session that had ended before the request came, with our middleware and with Django's: what becomes of the cookie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings

from elasticache_sessions.django import SessionStore, user_sessions
from tests.support.django_pages import ADA, GRACE

OURS = "elasticache_sessions.django.middleware.SessionMiddleware"
BACKEND = "tests.support.django_pages.Members"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


def page(request: HttpRequest) -> HttpResponse:
    request.META["test.view"](request)
    return HttpResponse("done")


urlpatterns = [path("", page)]


@pytest.fixture(params=[OURS, DJANGOS], ids=["ours", "Django's"])
def client(request: pytest.FixtureRequest, settings: Settings) -> Client:
    settings.MIDDLEWARE = [request.param]
    settings.ROOT_URLCONF = __name__
    return Client()


def visit(client: Client, view: Callable[[Any], object]) -> Any:
    return client.get("/", **{"test.view": view})  # type: ignore[arg-type]  # put into the environ


def signed_in(client: Client) -> str:
    visit(client, lambda request: request.session.update({"a": 1}))
    return client.cookies["sessionid"].value


VIEWS: dict[str, Callable[[Any], object]] = {
    "touches nothing": lambda request: None,
    "reads": lambda request: request.session.get("a"),
    "signs out": logout,
    "flushes": lambda request: request.session.flush(),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_the_response_goes_out_and_nothing_is_stored(client: Client, view: Callable[[Any], object]) -> None:
    cookie = signed_in(client)
    SessionStore(cookie).flush()
    response = visit(client, view)
    assert (response.status_code, response.content) == (200, b"done")
    assert not any(morsel.value for morsel in response.cookies.values())
    assert not SessionStore().exists(cookie)


@pytest.mark.parametrize("view", [VIEWS["touches nothing"], VIEWS["reads"]], ids=["touches nothing", "reads"])
def test_the_cookie_stays_since_the_browser_may_have_a_newer_one(
    client: Client, view: Callable[[Any], object]
) -> None:
    SessionStore(signed_in(client)).flush()
    assert visit(client, view).cookies == {}


def test_who_signs_out_of_it_loses_the_cookie_with_djangos_middleware_only(
    client: Client, settings: Settings
) -> None:
    """Ours cannot know whether the cookie is still the one that it was sent; Django's convention is to delete it."""
    SessionStore(signed_in(client)).flush()
    response = visit(client, logout)
    assert ("sessionid" in response.cookies) == (settings.MIDDLEWARE == [DJANGOS])


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_where_every_request_saves_the_response_goes_out_as_well(
    client: Client, settings: Settings, view: Callable[[Any], object]
) -> None:
    cookie = signed_in(client)
    SessionStore(cookie).flush()
    settings.SESSION_SAVE_EVERY_REQUEST = True
    response = visit(client, view)
    assert (response.status_code, response.content) == (200, b"done")
    assert not SessionStore().exists(cookie)
    if settings.MIDDLEWARE == [OURS]:
        assert response.cookies == {}


def test_who_deletes_the_session_may_sign_in_all_the_same(client: Client) -> None:
    cookie = signed_in(client)

    def view(request: HttpRequest) -> None:
        assert request.session["a"] == 1
        request.session.delete()
        request.session.cycle_key()
        request.session["b"] = 2

    new = visit(client, view).cookies["sessionid"].value
    assert new != cookie
    assert dict(SessionStore(new).items()) == {"a": 1, "b": 2}
    assert not SessionStore().exists(cookie)


def test_a_cookie_that_the_store_never_knew_is_deleted(client: Client) -> None:
    client.cookies["sessionid"] = "x" * 40
    assert visit(client, VIEWS["reads"]).cookies["sessionid"].value == ""


# A view that cannot go on without it.


def ended_meanwhile(cookie: str, then: Callable[[Any], object]) -> Callable[[Any], object]:
    """Reads the session, which another request ends then."""

    def view(request: HttpRequest) -> None:
        assert request.session["a"] == 1
        SessionStore(cookie).flush()
        then(request)

    return view


def test_a_change_that_must_be_stored_at_once_is_asked_for_again(
    client: Client, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    client.raise_request_exception = False
    cookie = signed_in(client)
    change = ended_meanwhile(cookie, lambda request: request.session.apply(lambda fields: None))
    response = visit(client, change)
    assert response.cookies == {}, "the browser may have a newer one"
    assert not SessionStore().exists(cookie)
    if settings.MIDDLEWARE == [DJANGOS]:
        assert response.status_code == 500
        return
    assert (response.status_code, response["Cache-Control"]) == (409, "no-store")
    assert response.content == b"Your session ended meanwhile. Please try again.\n"
    [line] = [message for message in caplog.messages if message.startswith("a request was given up: ")]
    assert cookie not in line


def test_whatever_else_the_view_changed_is_dropped_as_with_any_error(
    client: Client, settings: Settings
) -> None:
    client.raise_request_exception = False
    cookie, other = signed_in(client), SessionStore()
    other.create()

    def view(request: HttpRequest) -> None:
        request.session["b"] = 2
        SessionStore(other.session_key).flush()
        other.apply(lambda fields: None)

    response = visit(client, view)
    assert response.status_code == (409 if settings.MIDDLEWARE == [OURS] else 500)
    assert response.cookies == {}
    assert dict(SessionStore(cookie).items()) == {"a": 1}


def test_a_key_that_the_session_was_given_before_is_sent_to_the_browser(
    client: Client, settings: Settings
) -> None:
    client.raise_request_exception = False
    cookie, other = signed_in(client), SessionStore()
    visit(client, lambda request: request.session.update({"_auth_user_id": str(GRACE.pk)}))
    other.create()

    def view(request: HttpRequest) -> None:
        request.session.cycle_key()
        SessionStore(other.session_key).flush()
        other.apply(lambda fields: None)

    response = visit(client, view)
    if settings.MIDDLEWARE == [DJANGOS]:
        assert response.status_code == 500  # whose session it was signs in again
        return
    assert response.status_code == 409
    new = response.cookies["sessionid"].value
    assert new not in ("", cookie)
    assert SessionStore(new)["a"] == 1


@pytest.mark.parametrize("policy", ["end_oldest", "refuse"])
def test_the_second_of_two_clicks_on_sign_in_leaves_what_the_first_brought_alone(
    client: Client, settings: Settings, policy: str
) -> None:
    """Where the sign-in is stored at once, it fails at once; else it is dropped with the save."""
    settings.ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER = 5
    settings.ELASTICACHE_SESSIONS_ON_LIMIT = policy
    client.raise_request_exception = False
    cookie = signed_in(client)
    response = visit(client, ended_meanwhile(cookie, lambda request: login(request, ADA, BACKEND)))
    refused = {OURS: 409, DJANGOS: 500}[settings.MIDDLEWARE[0]]
    saved = {OURS: 200, DJANGOS: 400}[settings.MIDDLEWARE[0]]
    assert response.status_code == (refused if policy == "refuse" else saved)
    assert "sessionid" not in response.cookies
    assert user_sessions.for_user(ADA) == []


def test_what_is_put_in_begins_a_new_session(client: Client) -> None:
    cookie = signed_in(client)
    SessionStore(cookie).flush()
    response = visit(client, lambda request: request.session.update({"b": 2}))
    assert response.cookies["sessionid"].value not in ("", cookie)
    assert dict(SessionStore(response.cookies["sessionid"].value).items()) == {"b": 2}
