"""Flask-Login drives the sessions by its signals: it alone, and where the app calls the extension's verbs as well."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask, flash, session, stream_with_context
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, confirm_login, current_user, login_user, logout_user

from elasticache_sessions import StoreUnavailable, TooManySessions
from elasticache_sessions.flask import FlaskSession
from tests.support.flask_apps import Site, log_lines
from tests.support.stores import MemoryStore


class User(UserMixin):  # type: ignore[misc]  # untyped
    def __init__(self, user_id: str) -> None:
        self.id = user_id


def site_with_login(**config: object) -> Site:
    site = Site(MemoryStore().url, SECRET_KEY="for the remember cookie", **config)
    LoginManager(site.app).user_loader(User)
    return site


@pytest.fixture
def site() -> Iterator[Site]:
    with site_with_login() as site:
        yield site


@pytest.fixture
def refusing() -> Iterator[Site]:
    """One session of a user is enough."""
    with site_with_login(
        ELASTICACHE_SESSIONS_ON_LIMIT="refuse", ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER=1
    ) as site:
        yield site


ADA = User("ada")


def who(site: Site, client: FlaskClient | None = None) -> Any:
    return site.ask(lambda: current_user.get_id(), client)


def fresh() -> bool:
    this = session._get_current_object()  # type: ignore[attr-defined]  # werkzeug's LocalProxy
    assert isinstance(this, FlaskSession)
    return this.fresh(300)


def listed(site: Site, user: str = "ada") -> int:
    with site.app.app_context():
        return len(site.sessions.for_user(user))


def remembered(site: Site) -> FlaskClient:
    """A browser that comes back with nothing but the cookie by which Flask-Login remembers."""
    client = site.client_with(None)
    site.visit(lambda: login_user(ADA, remember=True), client)
    with site.app.app_context():
        site.sessions.end_all("ada")
    client.delete_cookie("session")
    return client


# In and out


def test_whom_it_signs_in_has_a_new_id_and_is_listed(site: Site) -> None:
    site.visit(lambda: session.update(cart=["tea"]))
    old = site.cookie()
    site.visit(lambda: login_user(ADA))
    assert site.cookie() not in (None, old)
    assert site.contents(site.client_with(old)) == {}
    assert (who(site), listed(site), site.contents()["cart"]) == ("ada", 1, ["tea"])
    assert site.ask(fresh) is True


def test_a_device_that_is_signed_out_elsewhere_is_so_for_it_too(site: Site) -> None:
    here, there = site.client_with(None), site.client_with(None)
    for client in (here, there):
        site.visit(lambda: login_user(ADA), client)
    assert site.ask(lambda: site.sessions.end_all(current_user.get_id()), here) == 1
    assert [who(site, client) for client in (here, there)] == ["ada", None]


@pytest.mark.parametrize("extension", ["alone", "first", "second"])
def test_whom_it_signs_out_has_no_session_any_more_nor_a_cookie_to_come_back(
    site: Site, extension: str
) -> None:
    site.visit(lambda: (login_user(ADA, remember=True), session.update(cart=["tea"])))
    assert site.browser.get_cookie("remember_token")
    copy = site.client_with(site.cookie())

    def leave() -> None:
        flash("early")
        if extension == "first":
            site.sessions.logout()
        logout_user()
        if extension == "second":
            site.sessions.logout()
        flash("late")

    site.visit(leave)
    assert not site.browser.get_cookie("remember_token")
    flashes = {"alone": ["early", "late"], "first": ["late"], "second": ["late"]}[extension]
    assert site.contents() == {"_flashes": [("message", flash) for flash in flashes]}
    assert (who(site), who(site, copy), listed(site)) == (None, None, 0)


OWN_ENDS: dict[str, Callable[[Site, str], Any]] = {
    "logout": lambda site, _: site.sessions.logout(),
    "end": lambda site, handle: site.sessions.end("ada", handle),
    "end_all": lambda site, _: site.sessions.end_all("ada", keep_current=False),
}


@pytest.mark.parametrize("asked", [True, False], ids=["who it is is known", "not yet"])
@pytest.mark.parametrize("verb", OWN_ENDS)
def test_who_ends_the_session_they_have_is_not_remembered_in_that_browser(
    site: Site, verb: str, asked: bool
) -> None:
    site.app.config["REMEMBER_COOKIE_NAME"] = "me"
    here, there = site.client_with(None), site.client_with(None)
    for client in (here, there):
        site.visit(lambda: (login_user(ADA, remember=True), session.update(cart=["tea"])), client)
    handle = site.handle_in(here)

    def leave() -> None:
        if asked:
            current_user.get_id()
        OWN_ENDS[verb](site, handle)

    site.visit(leave, here)
    assert not here.get_cookie("me")
    assert not here.get_cookie("session")
    assert (who(site, here), who(site, there)) == (None, "ada")


@pytest.mark.usefixtures("site")
def test_where_it_is_not_in_use_its_cookie_is_nothing_to_us() -> None:
    with Site(MemoryStore().url) as bare:
        bare.browser.set_cookie("remember_token", "of another app")
        bare.visit(lambda: session.update(user="ada"))
        bare.visit(lambda: (bare.sessions.logout(), session.update(cart=["tea"])))
        assert bare.contents() == {"cart": ["tea"]}
        assert bare.browser.get_cookie("remember_token")


def test_who_signs_out_and_leaves_nothing_has_no_session(site: Site) -> None:
    site.visit(lambda: login_user(ADA, remember=True))
    site.visit(logout_user)
    assert site.cookie() is None


def test_an_app_that_signs_in_by_both_pays_once(site: Site) -> None:
    costs = []
    for sign_in in (
        lambda: login_user(ADA),
        lambda: (login_user(ADA), site.sessions.login("ada")),
        lambda: (site.sessions.login("ada"), login_user(ADA)),
    ):
        client = site.client_with(None)
        site.visit(lambda: session.update(cart=["tea"]), client)
        with site.recording() as names:
            site.visit(sign_in, client)
        costs.append(names)
        with site.recording() as names:
            site.visit(lambda: (logout_user(), site.sessions.logout()), client)
        costs[-1] += names
    assert costs[0] == costs[1] == costs[2]


@pytest.mark.parametrize("first", [True, False])
def test_what_the_app_says_of_who_signs_in_counts(site: Site, first: bool) -> None:
    """Flask-Login's ids may be tokens that stand for a user."""
    token = User("token of ada")
    verbs: list[Callable[[], Any]] = [lambda: site.sessions.login("ada"), lambda: login_user(token)]
    site.visit(lambda: [verb() for verb in (verbs if first else reversed(verbs))])
    assert (listed(site, "ada"), listed(site, "token of ada")) == (1, 0)


def test_an_app_without_our_sessions_is_left_alone(site: Site) -> None:
    other = Flask("other")
    other.secret_key = "x"
    LoginManager(other).user_loader(User)
    with other.test_request_context():
        login_user(ADA)
        logout_user()
    site.app.session_interface = other.session_interface
    assert site.visit(lambda: login_user(ADA)).status_code == 200


# Whom it protects


@pytest.fixture
def strict() -> Iterator[Site]:
    with site_with_login(SESSION_PROTECTION="strong") as site:
        yield site


ELSEWHERE = {"User-Agent": "another browser"}


def test_a_session_that_another_browser_has_copied_ends(strict: Site) -> None:
    strict.visit(lambda: (login_user(ADA, remember=True), session.update(cart=["tea"])))
    remember = strict.browser.get_cookie("remember_token")
    assert remember
    copy = strict.client_with(strict.cookie())
    copy.set_cookie("remember_token", remember.value)

    def look() -> str:
        flash("early")
        return f"{current_user.get_id()} {fresh()}"

    assert strict.visit(look, copy, headers=ELSEWHERE).text == "None False"
    assert not copy.get_cookie("remember_token")
    assert strict.contents(copy) == {"_flashes": [("message", "early")]}
    assert listed(strict) == 0
    assert who(strict, strict.client_with(strict.cookie())) is None


@pytest.mark.parametrize("protection", ["strong", "basic"])
def test_it_ends_nobody_s_session_nor_one_that_the_app_signed_in_itself(protection: str) -> None:
    def page() -> None:
        current_user.get_id()
        session["seen"] = True

    with site_with_login(SESSION_PROTECTION=protection) as site:
        arrivals: list[Callable[[], Any]] = [
            lambda: session.update(cart=["tea"]),  # a visitor
            lambda: (site.sessions.login("grace"), session.update(cart=["tea"])),
            lambda: (login_user(ADA), site.sessions.login("grace"), session.update(cart=["tea"])),
        ]
        for arrive in arrivals:
            client = site.client_with(None)
            site.visit(arrive, client)
            cookie = site.cookie(client)
            site.visit(page, client, headers=ELSEWHERE)
            assert site.cookie(client) == cookie
            assert site.contents(client)["cart"] == ["tea"]
        assert listed(site, "grace") == 2

        site.visit(lambda: login_user(ADA), client := site.client_with(None))
        site.visit(lambda: (site.sessions.login("grace"), page()), client, headers=ELSEWHERE)
        assert listed(site, "grace") == 3


def test_whom_it_only_takes_for_less_fresh_goes_on(site: Site) -> None:
    site.visit(lambda: login_user(ADA))
    assert site.ask(lambda: (current_user.get_id(), fresh()), headers=ELSEWHERE) == ("ada", False)
    assert (listed(site), who(site)) == (1, "ada")


# Whom it remembers


def test_whom_it_remembers_is_listed_and_not_fresh(site: Site) -> None:
    client = remembered(site)
    assert listed(site) == 0
    assert who(site, client) == "ada"
    assert listed(site) == 1
    assert site.ask(fresh, client) is False
    site.visit(confirm_login, client)  # it asked for the password
    assert site.ask(fresh, client) is True
    assert listed(site) == 1


def test_who_confirms_a_password_is_fresh_again_and_has_a_new_id(site: Site) -> None:
    site.visit(lambda: login_user(ADA))
    old = site.cookie()
    site.manager.rules = replace(site.manager.rules, clock=lambda: time.time() + 400)
    assert site.ask(fresh) is False
    site.visit(confirm_login)
    assert site.ask(fresh) is True
    assert site.cookie() != old
    assert who(site, site.client_with(old)) is None


def test_without_the_store_a_page_is_shown_to_whom_it_remembers(caplog: pytest.LogCaptureFixture) -> None:
    with site_with_login(ELASTICACHE_SESSIONS_ON_OUTAGE="anonymous") as site:
        client = remembered(site)
        client.set_cookie("session", "x" * 40)

        def fail(_question: object) -> None:
            raise StoreUnavailable("down")

        site.store.before = fail
        assert who(site, client) == "ada"
        site.store.before = lambda _: None
        assert listed(site) == 0
        assert client.get_cookie("session")
    assert any("went on without its session" in line for line in log_lines(caplog))


def test_while_a_response_is_streamed_it_may_sign_in_nobody_but_breaks_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def stream() -> Iterator[str]:
        login_user(ADA)
        yield "a"
        logout_user()
        yield "b"

    assert site.visit(lambda: site.app.response_class(stream_with_context(stream()))).text == "ab"
    assert listed(site) == 0
    assert any("the change is lost" in line for line in log_lines(caplog))


# Whom the limit refuses


def test_whom_the_limit_refuses_it_has_not_signed_in(refusing: Site) -> None:
    refusing.visit(lambda: login_user(ADA), refusing.client_with(None))
    refusing.visit(lambda: (login_user(User("grace")), session.update(cart=["tea"])))
    before = refusing.contents()

    def refused() -> str:
        with pytest.raises(TooManySessions):
            login_user(ADA, remember=True)
        return str(current_user.get_id())

    assert refusing.visit(refused).text == "grace"
    assert refusing.contents() == before
    assert refusing.visit(lambda: login_user(ADA)).status_code == 403
    assert who(refusing) == "grace"
    assert not refusing.browser.get_cookie("remember_token")

    client = refusing.client_with(None)
    assert refusing.visit(lambda: login_user(ADA, remember=True), client).status_code == 403
    assert who(refusing, client) is None
    assert not client.get_cookie("remember_token")


def test_whom_it_remembers_and_the_limit_refuses_is_forgotten(refusing: Site) -> None:
    client = remembered(refusing)
    refusing.visit(lambda: login_user(ADA))
    assert refusing.visit(lambda: str(current_user.get_id()), client).status_code == 403
    assert not client.get_cookie("remember_token")
    assert who(refusing, client) is None
    assert who(refusing) == "ada"


# Where another request was faster


@pytest.fixture
def two() -> Iterator[Site]:
    with site_with_login(
        ELASTICACHE_SESSIONS_ON_LIMIT="refuse", ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER=2
    ) as site:
        yield site


def meanwhile(do: Callable[[], Any]) -> Any:
    """`do` knows nothing of this request, whose `g` another request in the same context would share."""
    return Context().run(do)


def test_of_two_clicks_on_sign_in_the_slower_is_told_and_leaves_every_cookie_alone(two: Site) -> None:
    two.visit(lambda: session.update(cart=["tea"]))
    slower = two.client_with(two.cookie())

    def second_click() -> None:
        session.get("cart")
        meanwhile(lambda: two.visit(lambda: login_user(ADA)))
        login_user(ADA, remember=True)

    answer = two.visit(second_click, slower)
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (409, False)
    assert answer.text == "Your session ended meanwhile. Please try again.\n"
    assert (who(two), listed(two)) == ("ada", 1)


def test_a_page_is_shown_to_whom_it_remembers_where_another_request_was_faster(two: Site) -> None:
    client = remembered(two)
    two.visit(lambda: session.update(cart=["tea"]), client)
    cookie, remember = two.cookie(client), client.get_cookie("remember_token")
    assert remember
    faster = two.client_with(cookie)
    faster.set_cookie("remember_token", remember.value)

    def page() -> str:
        session.get("cart")
        assert meanwhile(lambda: who(two, faster)) == "ada"
        return str(current_user.get_id())

    answer = two.visit(page, client)
    assert (answer.status_code, answer.text, "Set-Cookie" in answer.headers) == (200, "ada", False)
    assert (who(two, faster), listed(two)) == ("ada", 1)
