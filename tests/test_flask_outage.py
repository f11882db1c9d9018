"""A store that is down: 503, before or after the view; the cookie is left alone; what needs no session goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, redirect, request, send_file, session, stream_with_context
from flask_login import LoginManager, UserMixin, login_user
from werkzeug.test import TestResponse

from elasticache_sessions.exceptions import StoreUnavailable
from elasticache_sessions.flask import ElastiCacheSessions
from tests.support.flask_apps import Site, attributes, log_lines
from tests.support.load import PATIENT
from tests.support.proxy import Proxy
from tests.support.servers import Server

pytestmark = pytest.mark.usefixtures("never_left_alone")


@pytest.fixture
def site(proxy: Proxy) -> Iterator[Site]:
    """Its browser is signed in; `proxy.go_down()` is the outage."""
    with Site(proxy.url) as site:
        site.visit(lambda: session.update(name="Ada"))
        yield site


@pytest.fixture
def permanent(site: Site) -> Site:
    """The same with a permanent session, whose cookie is refreshed with every request."""
    site.visit(lambda: setattr(session, "permanent", True))
    return site


def check_unavailable(response: TestResponse) -> None:
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers
    assert "try again" in response.text
    assert int(response.headers["Content-Length"]) == len(response.data)


def check_it_still_works(site: Site, proxy: Proxy, cookie: str | None) -> None:
    """The store is back, and so is the session, by the cookie from before."""
    assert site.cookie() == cookie
    proxy.heal()
    assert site.ask(lambda: session["name"]) == "Ada"


# In the view


VERBS: dict[str, Callable[[Site], Any]] = {
    "read": lambda site: session["name"],
    "write": lambda site: session.update(a=1),
    "clear": lambda site: session.clear(),
    "permanent": lambda site: setattr(session, "permanent", True),
    "modified": lambda site: setattr(session, "modified", True),
    "cycle": lambda site: site.sessions.cycle_id(),
    "login": lambda site: site.sessions.login("ada"),
    "logout": lambda site: site.sessions.logout(),
    "apply": lambda site: site.sessions.apply(lambda fields: fields.update(a=1)),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
@pytest.mark.parametrize("kind", ["site", "permanent"])
def test_a_view_that_uses_the_session_in_an_outage_answers_503(
    proxy: Proxy, verb: Callable[[Site], Any], kind: str, request: pytest.FixtureRequest
) -> None:
    site: Site = request.getfixturevalue(kind)
    cookie = site.cookie()
    proxy.go_down()
    check_unavailable(site.visit(lambda: verb(site) and None))
    check_it_still_works(site, proxy, cookie)
    assert site.contents().keys() - {"_permanent"} == {"name"}


@pytest.mark.parametrize(
    "verb", [name for name in VERBS if name not in ("read", "clear", "modified", "cycle", "logout")]
)
def test_without_a_cookie_what_cannot_be_stored_answers_503(site: Site, proxy: Proxy, verb: str) -> None:
    client = site.client_with(None)
    proxy.go_down()
    check_unavailable(site.visit(lambda: VERBS[verb](site) and None, client))
    assert site.cookie(client) is None


@pytest.mark.parametrize("kind", ["site", "permanent"])
def test_a_view_that_does_not_touch_the_session_answers_200(
    proxy: Proxy, kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    site: Site = request.getfixturevalue(kind)
    cookie = site.cookie()
    proxy.go_down()
    response = site.visit()
    assert (response.status_code, response.text) == (200, "done")
    assert "Set-Cookie" not in response.headers
    # With two copies three failures are enough for a line of its own, from each node.
    lines = [line for line in log_lines(caplog) if "does not answer; until it does" not in line]
    assert len(lines) == (1 if kind == "permanent" else 0)
    assert site.visit(lambda: session.get("name", "nobody"), site.client_with(None)).text == "nobody"
    check_it_still_works(site, proxy, cookie)


def test_a_view_that_failed_does_not_ask_the_store_again_to_refresh_the_cookie(proxy: Proxy) -> None:
    """In an outage that hangs, it would wait twice as long as TIMEOUT says."""
    with Site(proxy.url, ELASTICACHE_SESSIONS_TIMEOUT=1.5) as site:
        site.visit(lambda: [session.update(name="Ada"), setattr(session, "permanent", True)])
        proxy.hold_replies()
        with site.recording() as commands:
            check_unavailable(site.visit(lambda: session["name"]))
        proxy.release_replies()
        assert commands == ["touch"]


def test_a_view_may_go_on_without_the_session(site: Site, proxy: Proxy) -> None:
    def view() -> str:
        try:
            return str(session["name"])
        except StoreUnavailable:
            return "somebody"

    cookie = site.cookie()
    proxy.go_down()
    assert (site.visit(view).status_code, site.visit(view).text) == (200, "somebody")
    check_it_still_works(site, proxy, cookie)


@pytest.mark.parametrize("where", ["app, before us", "app, after us", "blueprint"])
@pytest.mark.parametrize("when", ["in the view", "after the view"])
def test_the_apps_own_handler_wins(own_server: Server, where: str, when: str) -> None:
    def sorry(error: StoreUnavailable) -> tuple[str, int]:
        return f"closed for {error.retry_after} s", 418

    def view() -> Response:
        own_server.stop()
        session["in the view"] if when == "in the view" else session.update(a=1)
        return Response("paid", headers={"Location": "/thanks", "Set-Cookie": "theme=dark"})

    app, shop = Flask("own handler"), Blueprint("shop", "shop")
    shop.add_url_rule("/", "page", view)
    app.config["ELASTICACHE_SESSIONS_URL"] = own_server.url
    if where == "app, before us":
        app.register_error_handler(StoreUnavailable, sorry)
    ElastiCacheSessions(app)
    if where == "app, after us":
        app.register_error_handler(StoreUnavailable, sorry)
    if where == "blueprint":
        shop.register_error_handler(StoreUnavailable, sorry)
    app.register_blueprint(shop)
    client = app.test_client()
    if when == "in the view":
        client.set_cookie("session", "A" * 40)
    response = client.get("/")
    assert (response.status_code, response.text) == (418, "closed for 1 s")
    assert not {"Set-Cookie", "Location"} & set(response.headers.keys())


def test_a_server_that_hangs_costs_no_longer_than_timeout(own_server: Server) -> None:
    """Drivers left to themselves wait for most of a minute; what is asserted leaves a busy machine its time."""
    limits = {"ELASTICACHE_SESSIONS_TIMEOUT": 0.5, "ELASTICACHE_SESSIONS_CONNECT_TIMEOUT": 1}
    with Site(own_server.url) as patient, Site(own_server.url, **limits) as site:
        patient.visit(lambda: session.update(name="Ada"))
        client = site.client_with(patient.cookie())
        own_server.pause()
        for do in (lambda: session["name"], site.sessions.logout):
            began = time.monotonic()
            check_unavailable(site.visit(do, client))
            assert time.monotonic() - began < PATIENT / 4
        own_server.resume()
        assert patient.contents() == {"name": "Ada"}


# After the view


def failing_save(site: Site, proxy: Proxy, answer: Callable[[], Any]) -> TestResponse:
    """The response to a view that reads and changes the session; before it is saved, the store goes down."""

    def view() -> Any:
        session["name"] += "!"
        proxy.go_down()
        return answer()

    return site.visit(view, buffered=True)


def everything_about_a_body() -> Response:
    headers = {
        "ETag": '"1"',
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        "Content-Encoding": "br",
        "Content-Language": "de",
        "Content-Disposition": "attachment; filename=bill.pdf",
        "Cache-Control": "public, max-age=3600",
        "Expires": "Thu, 01 Jan 2099 00:00:00 GMT",
        "Clear-Site-Data": '"cookies"',
        "Refresh": "0; url=/thanks",
    }
    return Response("paid", 201, headers, content_type="application/pdf")


def with_other_cookies() -> Response:
    response = redirect("/thanks")
    response.set_cookie("remember_token", "1|abc")
    response.set_cookie("theme", "dark")
    response.delete_cookie("session")
    return response  # type: ignore[return-value]  # werkzeug's, which Flask makes its own


ANSWERS: dict[str, Callable[[], Any]] = {
    "text": lambda: "saved",
    "redirect with cookies": with_other_cookies,
    "headers about the body": everything_about_a_body,
    "stream": lambda: Response(iter(["sav", "ed"])),
    "stream with context": lambda: Response(stream_with_context(iter(["sav", "ed"]))),
    "file": lambda: send_file(Path(__file__), conditional=True),
    "error": lambda: Response("not found", "404 Nowhere"),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("kind", ["site", "permanent"])
def test_a_save_that_fails_turns_the_response_into_503(
    proxy: Proxy, answer: Callable[[], Any], kind: str, request: pytest.FixtureRequest
) -> None:
    site: Site = request.getfixturevalue(kind)
    cookie = site.cookie()
    response = failing_save(site, proxy, answer)
    check_unavailable(response)
    assert response.content_type == "text/plain; charset=utf-8"
    assert response.headers["Vary"] == "Cookie"
    allowed = {"Retry-After", "Cache-Control", "Vary", "Content-Type", "Content-Length", "Date"}
    assert set(response.headers.keys()) <= allowed
    check_it_still_works(site, proxy, cookie)


@pytest.mark.parametrize("in_context", [True, False], ids=["with context", "plain"])
def test_a_stream_that_is_not_sent_is_closed(site: Site, proxy: Proxy, in_context: bool) -> None:
    closed: list[str] = []

    class Parts:
        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            return "part"

        def close(self) -> None:
            closed.append(request.path)

    def answer() -> Response:
        return Response(stream_with_context(Parts()) if in_context else Parts())

    check_unavailable(failing_save(site, proxy, answer))
    # Since 3.1.3 Flask starts a generator with a context only when it is sent, so there is nothing to close before.
    assert in_context or closed == ["/"]
    proxy.heal()
    assert site.contents() == {"name": "Ada"}


def test_a_head_request_is_answered_without_a_body(site: Site, proxy: Proxy) -> None:
    proxy.go_down()
    response = site.browser.head("/", environ_overrides={"test.do": lambda: session["name"]})
    assert (response.status_code, response.data) == (503, b"")
    assert "Retry-After" in response.headers


def test_the_change_of_a_failed_save_is_not_half_stored(site: Site, proxy: Proxy) -> None:
    check_unavailable(failing_save(site, proxy, lambda: "saved"))
    proxy.heal()
    assert site.contents() == {"name": "Ada"}
    site.visit(lambda: session.update(name="Grace"))
    assert site.contents() == {"name": "Grace"}


def test_a_cookie_is_set_as_ever_after_an_outage(permanent: Site, proxy: Proxy) -> None:
    cookie = permanent.cookie()
    proxy.go_down()
    assert "Set-Cookie" not in permanent.visit().headers
    proxy.heal()
    made = attributes(permanent.visit().headers["Set-Cookie"])
    assert made[""] == f"session={cookie}"


def _shown(view: Callable[[], object]) -> str:
    return str(view())


@pytest.mark.parametrize("mode", ["error", "anonymous"])
def test_what_touches_the_session_after_the_view_is_refused_as_well(proxy: Proxy, mode: str) -> None:
    """Flask-Login does, with each response."""

    class User(UserMixin):  # type: ignore[misc]  # untyped
        id = "7"

    with Site(proxy.url, ELASTICACHE_SESSIONS_ON_OUTAGE=mode, SECRET_KEY="x") as site:
        login = LoginManager(site.app)
        login.user_loader(lambda user_id: User())
        site.visit(lambda: session.update(name="Ada"))
        proxy.go_down()
        views: list[Callable[[], object]] = [
            lambda: session.get("name"),
            lambda: "page",
            lambda: login_user(User(), remember=True),
        ]
        for view in views:
            response = site.visit(partial(_shown, view))
            served = mode == "anonymous" and view is not views[-1]
            assert response.status_code == (200 if served else 503)
            assert served or int(response.headers["Retry-After"]) >= 1
            assert not response.headers.getlist("Set-Cookie")
