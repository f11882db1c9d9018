"""A session that had ended before the request came, with our middleware and with Django's: what becomes of the cookie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings

from elasticache_sessions.django import SessionStore

OURS = "elasticache_sessions.django.middleware.SessionMiddleware"
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


def test_what_is_put_in_begins_a_new_session(client: Client) -> None:
    cookie = signed_in(client)
    SessionStore(cookie).flush()
    response = visit(client, lambda request: request.session.update({"b": 2}))
    assert response.cookies["sessionid"].value not in ("", cookie)
    assert dict(SessionStore(response.cookies["sessionid"].value).items()) == {"b": 2}
