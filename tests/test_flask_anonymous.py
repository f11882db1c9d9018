"""ON_OUTAGE = "anonymous" in Flask: pages go on with an empty session; who signs in or out gets a 503. And what a view that
catches a failure may answer, in both modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from flask import Response, flash, get_flashed_messages, request, session, stream_with_context
from werkzeug.test import TestResponse

from elasticache_sessions.exceptions import StoreUnavailable
from elasticache_sessions.flask import FlaskSession
from tests.support.flask_apps import Site, log_lines
from tests.support.proxy import Proxy

pytestmark = pytest.mark.usefixtures("never_left_alone")


@pytest.fixture(params=["anonymous"])
def site(request: pytest.FixtureRequest, single_proxy: Proxy) -> Iterator[Site]:
    """Its browser is signed in and has a cart; `single_proxy.go_down()` is the outage."""
    with Site(single_proxy.url, ELASTICACHE_SESSIONS_ON_OUTAGE=request.param) as site:
        site.visit(lambda: session.update(_flashes=[("message", "welcome")], name="Ada", cart=["tea"]))
        yield site


in_both_modes = pytest.mark.parametrize("site", ["error", "anonymous"], indirect=True)


def unavailable() -> bool:
    ours = session._get_current_object()  # type: ignore[attr-defined]  # werkzeug's LocalProxy
    assert isinstance(ours, FlaskSession)
    return ours.unavailable


def check_served(response: TestResponse, text: str) -> None:
    assert (response.status_code, response.text) == (200, text)
    assert "Set-Cookie" not in response.headers
    assert response.headers["Cache-Control"] == "private, no-store"
    assert response.headers["Vary"] == "Cookie"


def check_refused(response: TestResponse) -> None:
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["Cache-Control"] == "no-store"
    assert not {"Set-Cookie", "Location"} & set(response.headers.keys())
    assert "try again" in response.text


def check_nothing_happened(site: Site, proxy: Proxy, cookie: str | None) -> None:
    assert site.cookie() == cookie
    proxy.heal()
    assert site.contents() == {"name": "Ada", "cart": ["tea"], "_flashes": [("message", "welcome")]}


# What a view does, and whether it may be a sign-in or a sign-out.
HARMLESS: dict[str, Callable[[Site], Any]] = {
    "read": lambda site: session.get("name"),
    "write": lambda site: session.update(a=1),
    "set by default": lambda site: session.setdefault("cart", []).append("mug"),
    "permanent": lambda site: setattr(session, "permanent", True),
    "modified": lambda site: setattr(session, "modified", True),
    "flash": lambda site: flash("bought"),
    "show flashes": lambda site: get_flashed_messages(),
    "pop flashes": lambda site: session.pop("_flashes", None),
}
DECISIVE: dict[str, Callable[[Site], Any]] = {
    "clear": lambda site: session.clear(),
    "pop": lambda site: session.pop("name", None),
    "pop without a default": lambda site: session.pop("name"),
    "delete": lambda site: session.__delitem__("name"),
    "pop any": lambda site: session.popitem(),
    "cycle": lambda site: site.sessions.cycle_id(),
    "login": lambda site: site.sessions.login("ada"),
    "logout": lambda site: site.sessions.logout(),
}


def doing(table: dict[str, Callable[[Site], Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("do", table.values(), ids=table.keys())


def swallowing(do: Callable[[Site], Any], site: Site) -> Callable[[], str]:
    """As an app does that signs out by hand."""

    def view() -> str:
        with suppress(StoreUnavailable, KeyError):
            do(site)
        return "goodbye"

    return view


@doing(HARMLESS)
def test_a_page_is_served_with_an_empty_session(
    site: Site, single_proxy: Proxy, do: Callable[[Site], Any], caplog: pytest.LogCaptureFixture
) -> None:
    def view() -> str:
        do(site)
        return f"{unavailable()} {session.new} {session.get('name')}"

    cookie = site.cookie()
    single_proxy.go_down()
    check_served(site.visit(view), "True False None")
    [line] = log_lines(caplog)
    assert line.startswith("a request went on without its session")
    assert ("its changes are dropped" in line) is (do in list(HARMLESS.values())[1:6])
    check_nothing_happened(site, single_proxy, cookie)
    assert site.ask(unavailable) is False


@doing(DECISIVE | {"apply": lambda site: site.sessions.apply(len)})
@pytest.mark.parametrize("known", [False, True], ids=["at first", "known to be down"])
def test_who_signs_in_or_out_is_refused_though_the_view_swallows_it(
    site: Site, single_proxy: Proxy, do: Callable[[Site], Any], known: bool
) -> None:
    cookie = site.cookie()
    view = swallowing(do, site)
    single_proxy.go_down()
    check_refused(site.visit(lambda: [session.get("name"), do(site)] if known else do(site)))
    check_refused(site.visit(lambda: [session.get("name"), view()][1] if known else view()))
    check_nothing_happened(site, single_proxy, cookie)


@pytest.mark.parametrize("site", ["error"], indirect=True)
@doing(DECISIVE)
def test_so_it_is_where_an_outage_is_an_error(
    site: Site, single_proxy: Proxy, do: Callable[[Site], Any]
) -> None:
    cookie = site.cookie()
    single_proxy.go_down()
    check_refused(site.visit(swallowing(do, site)))
    check_nothing_happened(site, single_proxy, cookie)


@pytest.mark.parametrize("site", ["error"], indirect=True)
@doing(
    {name: HARMLESS[name] for name in ("read", "write")} | {"apply": lambda site: site.sessions.apply(len)}
)
def test_else_a_view_may_catch_the_error_and_go_on(
    site: Site, single_proxy: Proxy, do: Callable[[Site], Any]
) -> None:
    cookie = site.cookie()
    single_proxy.go_down()
    if do is HARMLESS["read"] or do is HARMLESS["write"]:
        check_served(site.visit(swallowing(do, site)), "goodbye")
    else:
        assert site.visit(swallowing(do, site)).text == "goodbye"
    check_nothing_happened(site, single_proxy, cookie)


@in_both_modes
def test_the_store_that_is_back_before_the_response_does_not_make_up_for_it(
    site: Site, single_proxy: Proxy
) -> None:
    def view() -> str:
        with suppress(StoreUnavailable):
            site.sessions.logout()
        single_proxy.heal()
        return "goodbye"

    cookie = site.cookie()
    single_proxy.go_down()
    check_refused(site.visit(view))
    check_nothing_happened(site, single_proxy, cookie)


def test_a_session_that_could_not_be_read_stays_empty_for_this_request(
    site: Site, single_proxy: Proxy
) -> None:
    def view() -> str:
        first = session.get("name")
        single_proxy.heal()
        session["cart"] = ["mug"]
        return f"{first} {session.get('name')}"

    cookie = site.cookie()
    single_proxy.go_down()
    with site.recording() as commands:
        check_served(site.visit(view), "None None")
    assert set(commands) == {"touch"}
    check_nothing_happened(site, single_proxy, cookie)


# A session that was read, and cannot be saved


@doing(
    {name: HARMLESS[name] for name in ("write", "set by default", "permanent", "modified", "show flashes")}
)
def test_a_change_that_cannot_be_saved_is_dropped(
    site: Site, single_proxy: Proxy, do: Callable[[Site], Any], caplog: pytest.LogCaptureFixture
) -> None:
    def view() -> Response:
        name = session["name"]
        single_proxy.go_down()
        do(site)
        headers = {"Cache-Control": "public, max-age=600", "Expires": "Thu, 01 Jan 2099 00:00:00 GMT"}
        return Response(f"{name} {unavailable()}", headers=headers)

    cookie = site.cookie()
    response = site.visit(view)
    check_served(response, "Ada False")
    assert "Expires" not in response.headers
    [line] = log_lines(caplog)
    assert "could not be stored" in line and "its changes are dropped" in line
    check_nothing_happened(site, single_proxy, cookie)


@in_both_modes
@doing(DECISIVE | {"empty": lambda site: [session.pop(name) for name in list(session)]})
def test_but_not_one_that_signs_in_or_out(site: Site, single_proxy: Proxy, do: Callable[[Site], Any]) -> None:
    def view() -> str:
        assert session["name"] == "Ada"
        single_proxy.go_down()
        do(site)
        return "goodbye"

    cookie = site.cookie()
    check_refused(site.visit(view))
    check_nothing_happened(site, single_proxy, cookie)


def test_an_apply_that_failed_after_the_session_was_read_is_refused(site: Site, single_proxy: Proxy) -> None:
    def view() -> str:
        session["name"] = "Grace"
        single_proxy.go_down()
        with suppress(StoreUnavailable):
            site.sessions.apply(len)
        single_proxy.heal()
        return "counted"

    cookie = site.cookie()
    check_refused(site.visit(view))
    check_nothing_happened(site, single_proxy, cookie)


# Visitors without a cookie


def test_a_new_visitor_is_served_and_gets_no_cookie(
    site: Site, single_proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    client = site.client_with(None)
    single_proxy.go_down()
    check_served(site.visit(lambda: [session.update(cart=["mug"]), "added"][1], client), "added")
    assert len(log_lines(caplog)) == 1
    assert site.cookie(client) is None


@pytest.mark.parametrize("by", ["login", "clear and set"])
def test_a_new_visitor_who_signs_in_is_refused(site: Site, single_proxy: Proxy, by: str) -> None:
    client = site.client_with(None)
    single_proxy.go_down()
    view = site.sessions.login if by == "login" else lambda user: [session.clear(), session.update(user=user)]
    check_refused(site.visit(lambda: view("ada") and None, client))
    assert site.cookie(client) is None


# The page


def test_a_view_that_fails_for_want_of_its_session_answers_503(site: Site, single_proxy: Proxy) -> None:
    cookie = site.cookie()
    single_proxy.go_down()
    check_refused(site.visit(lambda: session["name"]))
    assert site.visit(lambda: Response("closed", 502)).status_code == 502
    check_nothing_happened(site, single_proxy, cookie)


def test_the_apps_own_page_is_shown_to_who_signs_out(single_proxy: Proxy) -> None:
    single_proxy.go_down()
    with Site(single_proxy.url, ELASTICACHE_SESSIONS_ON_OUTAGE="anonymous") as site:
        site.app.register_error_handler(StoreUnavailable, lambda error: ("closed", 418, {"X-Own": "1"}))
        for view in (site.sessions.logout, swallowing(DECISIVE["logout"], site)):
            response = site.visit(view, site.client_with("A" * 40))
            assert (response.status_code, response.text, response.headers["X-Own"]) == (418, "closed", "1")
            assert "Set-Cookie" not in response.headers


def sign_in() -> str:
    if request.method == "POST":
        session["user"] = "ada"
    return "hello"


def sign_out() -> str:
    with suppress(StoreUnavailable):
        if "user" in session:
            del session["user"]
    return "goodbye"


@pytest.mark.parametrize("mode", ["error", "anonymous"])
def test_who_signs_in_or_out_by_hand_is_known_by_the_name_of_the_route(
    single_proxy: Proxy, mode: str
) -> None:
    """Nothing else tells a sign-out that finds nobody to sign out, nor a sign-in by a field of the app's own."""
    with Site(single_proxy.url, ELASTICACHE_SESSIONS_ON_OUTAGE=mode) as site:
        site.app.add_url_rule("/sign-in", "auth.sign_in", sign_in, methods=["GET", "POST"])
        site.app.add_url_rule("/sign-out", "logout", sign_out)
        site.visit(lambda: session.update(user="ada", cart=["tea"]))
        single_proxy.go_down()
        check_refused(site.browser.get("/sign-out"))
        check_refused(site.browser.post("/sign-in"))
        check_refused(site.client_with(None).post("/sign-in"))
        assert site.browser.get("/sign-in").text == "hello"
        single_proxy.heal()
        assert site.contents() == {"user": "ada", "cart": ["tea"]}


def test_a_stream_that_reads_the_session_late_goes_on(site: Site, single_proxy: Proxy) -> None:
    def parts() -> Iterator[str]:
        yield "hello "
        yield str(session.get("name", "stranger"))

    cookie = site.cookie()
    single_proxy.go_down()
    response = site.visit(lambda: Response(stream_with_context(parts())))
    assert (response.status_code, response.text) == (200, "hello stranger")
    assert "Set-Cookie" not in response.headers
    check_nothing_happened(site, single_proxy, cookie)
