"""One session, two frameworks: a Flask app and a Django project with one store, prefix and cookie name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from flask import Flask, request as flask_request, session as flask_session
from flask.testing import FlaskClient
from pytest_django import Settings

from elasticache_sessions.flask import ElastiCacheSessions
from tests.support.load import PATIENT, PATIENTLY, at_once
from tests.support.stores import Store

COOKIE = "shop"
TIMES = 50


# The Django project: the test's view is what its page runs.


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(said(request.META["test.view"](request)))


def flask_page() -> str:
    return said(flask_request.environ["test.view"]())


def said(answer: object) -> str:
    return "" if answer is None else str(answer)


urlpatterns = [path("django/", page)]


class Browser:
    """One visitor of both: a cookie that either may set."""

    def __init__(self, flask: FlaskClient) -> None:
        self.flask, self.django = flask, Client()

    @property
    def cookie(self) -> str | None:
        cookie = self.flask.get_cookie(COOKIE)
        return None if cookie is None else cookie.value

    def keep(self, cookie: str | None) -> None:
        """What one framework set, the other is sent."""
        if cookie:
            self.flask.set_cookie(COOKIE, cookie)
            self.django.cookies[COOKIE] = cookie
        else:
            self.flask.delete_cookie(COOKIE)
            self.django.cookies.pop(COOKIE, None)

    def in_flask(self, view: Callable[[], object]) -> str:
        response = self.flask.get("/flask/", environ_overrides={"test.view": view})
        assert response.status_code == 200, response.text
        self.keep(self.cookie)
        return response.text

    def in_django(self, view: Callable[[Any], object]) -> str:
        response = self.django.get("/django/", **{"test.view": view})  # type: ignore[arg-type]  # put into the environ
        assert response.status_code == 200, response.content
        if COOKIE in response.cookies:
            self.keep(response.cookies[COOKIE].value)
        return response.content.decode()

    def copy(self) -> Browser:
        """Another tab."""
        other = Browser(self.flask.application.test_client())
        other.keep(self.cookie)
        return other


@pytest.fixture
def browser(store: Store, settings: Settings) -> Iterator[Browser]:
    settings.ROOT_URLCONF = __name__
    settings.SESSION_COOKIE_NAME = COOKIE
    settings.ELASTICACHE_SESSIONS_URL = store.url
    settings.ELASTICACHE_SESSIONS_TIMEOUT = settings.ELASTICACHE_SESSIONS_CONNECT_TIMEOUT = PATIENT
    app = Flask("shop")
    app.config.update(
        SESSION_COOKIE_NAME=COOKIE,
        ELASTICACHE_SESSIONS_URL=store.url,
        **PATIENTLY,
    )
    ElastiCacheSessions(app)
    app.add_url_rule("/flask/", view_func=flask_page)
    yield Browser(app.test_client())
    app.session_interface.manager.close()  # type: ignore[attr-defined]  # ours


def sign_in(request: Any) -> None:
    user = authenticate(request, username="ada", password="secret")
    assert user is not None
    login(request, user)


def whoever_flask_sees() -> object:
    return flask_session.get("_auth_user_id")


@pytest.mark.django_db
def test_who_signs_in_with_django_is_signed_in_for_flask_until_either_signs_out(browser: Browser) -> None:
    ada = User.objects.create_user("ada", password="secret")
    browser.in_flask(lambda: flask_session.update({"cart:mug": 1}))
    anonymous = browser.cookie
    browser.in_django(sign_in)
    assert browser.cookie != anonymous
    assert browser.in_flask(whoever_flask_sees) == str(ada.pk)
    assert browser.in_flask(lambda: flask_session["cart:mug"]) == "1"
    assert browser.in_django(lambda request: request.user) == "ada"

    other = browser.copy()
    sessions = browser.flask.application.extensions["elasticache_sessions"]
    browser.in_flask(sessions.logout)
    assert browser.cookie is None
    assert other.in_django(lambda request: request.user) == "AnonymousUser"
    assert other.in_django(lambda request: dict(request.session)) == "{}"

    browser.in_django(sign_in)
    other = browser.copy()
    browser.in_django(logout)
    assert browser.cookie is None
    assert other.in_flask(lambda: dict(flask_session)) == "{}"


def test_what_both_change_at_once_is_all_there(browser: Browser) -> None:
    browser.in_flask(lambda: flask_session.update(first=0))
    flask, django = browser.copy(), browser.copy()

    def in_flask() -> None:
        for number in range(TIMES):
            flask.in_flask(lambda number=number: flask_session.update({f"f{number}": number}))  # type: ignore[misc]

    def in_django() -> None:
        for number in range(TIMES):
            django.in_django(lambda request, number=number: request.session.update({f"d{number}": number}))  # type: ignore[misc]

    at_once(in_flask, in_django)
    expected = {"first": 0} | {f"{who}{number}": number for who in "fd" for number in range(TIMES)}
    assert browser.in_flask(lambda: dict(flask_session) == expected) == "True"
    assert browser.in_django(lambda request: dict(request.session.items()) == expected) == "True"


def test_values_come_back_in_the_other_framework_as_they_were(browser: Browser) -> None:
    browser.in_flask(lambda: flask_session.update(pair=(1, {2: "two"}), tags={"a"}))
    view = "{pair}{tags}".format
    assert browser.in_django(lambda request: view(**request.session)) == "(1, {2: 'two'}){'a'}"
    browser.in_django(lambda request: request.session["tags"].add("b"))
    assert browser.in_flask(lambda: sorted(flask_session["tags"])) == "['a', 'b']"


def test_a_permanent_session_of_flask_is_one_for_django(browser: Browser) -> None:
    """Its cookie carries Flask's mark."""
    browser.in_flask(lambda: [flask_session.update(a=1), setattr(flask_session, "permanent", True)])
    assert browser.cookie is not None and browser.cookie.endswith(".p")
    assert browser.in_django(lambda request: request.session["a"]) == "1"
    browser.in_django(lambda request: request.session.update({"a": 2}))
    assert browser.in_flask(lambda: (flask_session["a"], flask_session.permanent)) == "(2, True)"
    assert browser.cookie.endswith(".p")


def test_what_another_serializer_stored_is_no_session_for_flask(browser: Browser, settings: Settings) -> None:
    settings.SESSION_SERIALIZER = "tests.django_site.serializers.Rich"
    browser.in_django(lambda request: request.session.update({"a": 1}))
    assert browser.in_flask(lambda: flask_session.get("a", "nothing")) == "nothing"
    assert browser.in_django(lambda request: request.session["a"]) == "1"


@pytest.mark.django_db
def test_who_signs_in_with_flask_is_nobody_for_django(browser: Browser) -> None:
    """Django wants a hash of the password in the session, which only Django knows to make."""
    ada = User.objects.create_user("ada", password="secret")
    sessions = browser.flask.application.extensions["elasticache_sessions"]
    browser.in_flask(lambda: [flask_session.update(user=ada.pk), sessions.login(ada.pk)])
    assert browser.in_django(lambda request: (request.session["user"], str(request.user))) == (
        f"({ada.pk}, 'AnonymousUser')"
    )


def test_a_lifetime_that_django_gave_stays_when_flask_saves(browser: Browser, store: Store) -> None:
    browser.in_django(lambda request: [request.session.update({"a": 1}), request.session.set_expiry(300)])
    browser.in_flask(lambda: flask_session.update(a=2))
    [key] = store.keys()
    assert 295 <= (store.ttl(key) or 0) <= 300


def test_a_session_that_flask_emptied_has_ended_and_one_that_django_emptied_has_not(browser: Browser) -> None:
    browser.in_django(lambda request: request.session.update({"a": 1}))
    browser.in_django(lambda request: request.session.pop("a"))
    kept = browser.cookie
    assert browser.in_flask(lambda: dict(flask_session)) == "{}"
    assert browser.cookie == kept
    browser.in_flask(lambda: flask_session.update(a=1))
    assert browser.cookie == kept
    browser.in_flask(lambda: flask_session.pop("a") and None)
    assert browser.cookie is None
