"""ON_OUTAGE = "anonymous" behind Django's whole chain: pages go on with an empty session and nobody signed in; whoever signs in
or out gets a 503. And what a new key comes to that only the save after it failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.contrib import auth, messages
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.template import engines
from django.test import Client
from pytest_django import Settings

from elasticache_sessions.django import SessionStore
from elasticache_sessions.exceptions import StoreUnavailable
from tests.support.django_pages import (
    ADA,
    CHAIN,
    DJANGOS,
    GRACE,
    OURS,
    STRICT,
    Do,
    Site,
    session_of,
    set_cookies,
)
from tests.support.flask_apps import log_lines
from tests.support.load import PATIENTLY
from tests.support.proxy import Proxy

pytestmark = pytest.mark.usefixtures("never_left_alone")

ANONYMOUS = PATIENTLY | {"ELASTICACHE_SESSIONS_ON_OUTAGE": "anonymous"}
MEMBERS = "tests.support.django_pages.Members"


class Shop:
    """A site whose browser is signed in as Ada and has a cart."""

    def __init__(self, site: Site, proxy: Proxy) -> None:
        self.site, self.proxy = site, proxy
        self.is_async = site.kind == "asgi"
        site.visit(self._begin)
        self.cookie, self.contents = site.cookie() or "", site.contents()
        assert self.contents["cart"] == ["tea"]

    @staticmethod
    def _begin(request: HttpRequest) -> None:
        auth.login(request, ADA, MEMBERS)
        request.session["cart"] = ["tea"]

    def serves(self, do: Do, content: str, status: int = 200) -> HttpResponse:
        response = self.site.visit(do)
        assert (response.status_code, response.content.decode()) == (status, content)
        assert set_cookies(response) == {}
        assert {"private", "no-store"} <= set(response["Cache-Control"].split(", "))
        assert response["Vary"] == "Cookie"
        return response

    def refuses(self, do: Do, **how: Any) -> None:
        self.check_refused(self.site.visit(do, **how))

    def check_refused(self, response: HttpResponse) -> None:
        assert (response.status_code, set_cookies(response)) == (503, {})
        assert int(response["Retry-After"]) >= 1
        assert response["Cache-Control"] == "no-store"

    def is_as_it_was(self) -> None:
        assert self.site.cookie() == self.cookie
        self.proxy.heal()
        assert self.site.contents() == self.contents
        assert self.site.ask(lambda request: request.user.get_username()) == "ada"


@pytest.fixture
def shop(request: pytest.FixtureRequest, single_proxy: Proxy) -> Iterator[Shop]:
    """Parametrised by kind, chain, and more settings."""
    kind, chain, settings = request.param
    with Site(kind, single_proxy.url, chain, **(ANONYMOUS | settings)) as site:
        yield Shop(site, single_proxy)


def over(*kinds: str, chain: tuple[str, ...] = (OURS, *CHAIN), **settings: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "shop", [(kind, chain, settings) for kind in kinds], ids=kinds, indirect=True
    )


everywhere = over("wsgi", "asgi", "asgi, sync views")


# Pages


def user_name(request: HttpRequest) -> str:
    return (
        f"{request.user.is_authenticated} {request.user.get_username()!r} {session_of(request).unavailable}"
    )


async def auser_name(request: HttpRequest) -> str:
    user = await request.auser()
    return f"{user.is_authenticated} {user.get_username()!r} {session_of(request).unavailable}"


@everywhere
def test_nobody_is_signed_in_and_the_page_is_served(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.proxy.go_down()
    shop.serves(auser_name if shop.is_async else user_name, "False '' True")
    [line] = log_lines(caplog)
    assert line.startswith("a request went on without its session") and "dropped" not in line
    if shop.is_async:
        shop.serves(user_name, "False '' True")
    shop.is_as_it_was()


PAGE = "{% for m in messages %}{{ m }}{% empty %}none{% endfor %} {{ user.is_authenticated }}{% if token %}{% endif %}"


@everywhere
def test_messages_and_forms_are_part_of_a_page(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    template = engines["django"].from_string(PAGE)

    def view(request: HttpRequest) -> HttpResponse:
        messages.success(request, "bought")
        return HttpResponse(template.render({"token": get_token(request)}, request))

    async def async_view(request: HttpRequest) -> HttpResponse:
        return view(request)

    shop.proxy.go_down()
    response = shop.site.visit(async_view if shop.is_async else view)
    assert (response.status_code, response.content) == (200, b"bought False")
    assert "sessionid" not in set_cookies(response)
    messages_kept: Do = lambda request: messages.success(request, "bought")  # noqa: E731 - a view
    if not shop.is_async:
        shop.serves(messages_kept, "None")
        assert "its changes are dropped" in log_lines(caplog)[-1]
    shop.is_as_it_was()


@over("wsgi", "asgi", chain=(OURS, *STRICT), CSRF_USE_SESSIONS=True)
def test_who_must_be_signed_in_is_sent_to_do_so(shop: Shop) -> None:
    """LoginRequiredMiddleware does not know better; no cache may keep that."""
    shop.proxy.go_down()
    response = shop.site.visit(path="/members")
    assert (response.status_code, set_cookies(response)) == (302, {})
    assert "no-store" in response["Cache-Control"]
    shop.refuses(done, path="/logout")  # who was sent there after a sign-out would believe it
    shop.is_as_it_was()


@over("wsgi", "asgi", chain=(OURS, *STRICT), CSRF_USE_SESSIONS=True)
@pytest.mark.parametrize("mode", ["error", "anonymous"])
def test_a_form_whose_token_is_in_the_session_is_not_called_forged(
    shop: Shop, settings: Settings, mode: str
) -> None:
    settings.ELASTICACHE_SESSIONS_ON_OUTAGE = mode
    shop.site.browser.handler.enforce_csrf_checks = True
    shop.proxy.go_down()
    shop.refuses(lambda request: "bought", method="post")
    shop.proxy.heal()
    response = shop.site.visit(lambda request: "bought", method="post")
    assert response.status_code == 403, "without a token it is forged"
    shop.is_as_it_was()


@over("wsgi", "asgi", SESSION_SAVE_EVERY_REQUEST=True)
def test_no_cookie_is_refreshed_where_every_request_saves(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.proxy.go_down()
    response = shop.site.visit(adone if shop.is_async else done)
    assert (response.status_code, response.content, set_cookies(response)) == (200, b"done", {})
    assert "Cache-Control" not in response
    assert ["was not refreshed" in line for line in log_lines(caplog)] == [True]
    shop.serves(auser_name if shop.is_async else user_name, "False '' True")
    shop.is_as_it_was()


def done(request: HttpRequest) -> str:
    return "done"


async def adone(request: HttpRequest) -> str:
    return "done"


@everywhere
def test_a_view_that_fails_for_want_of_its_session_answers_503(shop: Shop) -> None:
    async def async_view(request: HttpRequest) -> str:
        return str((await session_of(request).aitems())["cart"])  # type: ignore[index]  # that is the failure

    shop.proxy.go_down()
    shop.refuses(async_view if shop.is_async else lambda request: request.session["cart"])
    shop.is_as_it_was()


@over("wsgi", "asgi", chain=(DJANGOS, *CHAIN))
def test_with_djangos_own_middleware_it_is_an_error(shop: Shop) -> None:
    shop.proxy.go_down()
    for do in (auser_name, adone) if shop.is_async else (user_name, done):
        response = shop.site.visit(do)
        assert response.status_code == (200 if do in (done, adone) else 500)
        assert set_cookies(response) == {}
    shop.is_as_it_was()


# Signing in and out


def put_user(request: HttpRequest) -> None:
    auth.login(request, GRACE, MEMBERS)


async def aput_user(request: HttpRequest) -> None:
    await auth.alogin(request, GRACE, MEMBERS)


def put_same_user(request: HttpRequest) -> None:
    auth.login(request, ADA, MEMBERS)


async def aput_same_user(request: HttpRequest) -> None:
    await auth.alogin(request, ADA, MEMBERS)


def remove_user(request: HttpRequest) -> None:
    """As Django's documentation signs out by hand."""
    with suppress(KeyError):
        del request.session["_auth_user_id"]


async def aremove_user(request: HttpRequest) -> None:
    await request.session.apop("_auth_user_id", None)


DECISIVE: dict[str, tuple[Do, Do]] = {
    "login": (put_user, aput_user),
    "login again": (put_same_user, aput_same_user),
    "logout": (auth.logout, auth.alogout),
    "remove the user": (remove_user, aremove_user),
    "cycle": (lambda r: r.session.cycle_key(), lambda r: r.session.acycle_key()),
    "flush": (lambda r: r.session.flush(), lambda r: r.session.aflush()),
    "delete": (lambda r: r.session.delete(), lambda r: r.session.adelete()),
    "apply": (lambda r: session_of(r).apply(len), lambda r: session_of(r).aapply(len)),
}
# What a view asks of the store in so many words.
EXPLICIT: dict[str, tuple[Do, Do]] = {
    "save": (lambda r: r.session.save(), lambda r: r.session.asave()),
    "create": (lambda r: r.session.create(), lambda r: r.session.acreate()),
    "load": (lambda r: r.session.load(), lambda r: r.session.aload()),
    "exists": (lambda r: r.session.exists("A" * 40), lambda r: r.session.aexists("A" * 40)),
}


def careless(shop: Shop, pair: tuple[Do, Do], *, reads: bool) -> Do:
    """A view that does that, takes no notice of its failure, and says goodbye."""

    def view(request: HttpRequest) -> HttpResponse:
        if reads:
            assert not request.user.is_authenticated
        with suppress(StoreUnavailable):
            pair[0](request)
        return HttpResponseRedirect("/goodbye")

    async def async_view(request: HttpRequest) -> HttpResponse:
        if reads:
            assert not (await request.auser()).is_authenticated
        with suppress(StoreUnavailable):
            await pair[1](request)
        return HttpResponseRedirect("/goodbye")

    return async_view if shop.is_async else view


@everywhere
@pytest.mark.parametrize("pair", DECISIVE.values(), ids=DECISIVE.keys())
def test_who_signs_in_or_out_is_refused_though_the_view_swallows_it(shop: Shop, pair: tuple[Do, Do]) -> None:
    shop.proxy.go_down()
    shop.refuses(pair[shop.is_async])
    shop.refuses(careless(shop, pair, reads=False))
    shop.refuses(careless(shop, pair, reads=True))
    shop.is_as_it_was()


@over("wsgi", "asgi")
@pytest.mark.parametrize("pair", EXPLICIT.values(), ids=EXPLICIT.keys())
def test_what_asks_the_store_outright_is_told(shop: Shop, pair: tuple[Do, Do]) -> None:
    def view(request: HttpRequest) -> None:
        assert request.session.get("cart") is None
        pair[0](request)

    async def async_view(request: HttpRequest) -> None:
        assert await request.session.aget("cart") is None
        await pair[1](request)

    shop.proxy.go_down()
    shop.refuses(pair[shop.is_async])
    shop.refuses(async_view if shop.is_async else view)
    shop.is_as_it_was()


@over("wsgi", "asgi")
@pytest.mark.parametrize("pair", [DECISIVE["logout"], DECISIVE["cycle"]], ids=["logout", "cycle"])
def test_the_store_that_is_back_before_the_response_does_not_make_up_for_it(
    shop: Shop, pair: tuple[Do, Do]
) -> None:
    def view(request: HttpRequest) -> None:
        with suppress(StoreUnavailable):
            pair[0](request)
        shop.proxy.heal()

    async def async_view(request: HttpRequest) -> None:
        assert await request.session.aget("cart") is None
        with suppress(StoreUnavailable):
            await pair[1](request)
        shop.proxy.heal()

    shop.proxy.go_down()
    shop.refuses(async_view if shop.is_async else view)
    shop.is_as_it_was()


def sign_out_by_hand(request: HttpRequest) -> str:
    with suppress(StoreUnavailable):
        if request.user.is_authenticated:
            request.session.flush()
    return "goodbye"


def sign_in_by_hand(request: HttpRequest) -> str:
    if request.method == "POST":
        request.session["_auth_user_id"] = "2"
    return "hello"


@over("wsgi", "asgi, sync views")
@pytest.mark.parametrize("mode", ["error", "anonymous"])
def test_who_signs_in_or_out_by_hand_is_known_by_the_name_of_the_route(
    shop: Shop, settings: Settings, mode: str
) -> None:
    """A sign-out that found nobody, or whose first read failed, is none; no other trace of it is left."""
    settings.ELASTICACHE_SESSIONS_ON_OUTAGE = mode
    shop.proxy.go_down()
    shop.refuses(sign_out_by_hand, path="/sign-out")
    shop.refuses(sign_in_by_hand, path="/sign-in", method="post")
    assert shop.site.visit(sign_in_by_hand, path="/sign-in").content == b"hello"
    shop.is_as_it_was()


@over("wsgi", "asgi")
def test_nobody_hears_of_a_sign_out_that_did_not_happen(shop: Shop) -> None:
    """Django sends its signal before it ends the session."""
    heard: list[object] = []

    def hear(sender: object, **named: object) -> None:
        heard.append(named["user"])

    user_logged_out.connect(hear)
    try:
        shop.proxy.go_down()
        shop.refuses(DECISIVE["logout"][shop.is_async])
    finally:
        user_logged_out.disconnect(hear)
    assert heard == []
    shop.is_as_it_was()


@over("wsgi", "asgi")
def test_a_session_that_looked_empty_is_not_stored_though_the_store_is_back(shop: Shop) -> None:
    def back() -> None:
        shop.proxy.heal()
        time.sleep(1.05)  # past Retry-After

    def view(request: HttpRequest) -> None:
        request.session["cart"] = ["mug"]
        back()
        request.session.save()

    async def async_view(request: HttpRequest) -> None:
        await request.session.aset("cart", ["mug"])
        back()
        await request.session.asave()

    shop.proxy.go_down()
    shop.refuses(async_view if shop.is_async else view)
    shop.is_as_it_was()


@pytest.mark.django_db(transaction=True)
def test_the_admin_sends_to_its_login_which_is_refused(single_proxy: Proxy, settings: Settings) -> None:
    for name, value in ANONYMOUS.items():
        setattr(settings, name, value)
    settings.ELASTICACHE_SESSIONS_URL = single_proxy.url
    settings.ROOT_URLCONF = "tests.django_site.contrib_urls"
    User.objects.create_superuser("ada", password="secret")
    client, credentials = Client(), {"username": "ada", "password": "secret"}
    assert client.post("/admin/login/", credentials).status_code == 302
    assert client.get("/admin/").status_code == 200
    cookie = client.cookies["sessionid"].value
    single_proxy.go_down()
    response = client.get("/admin/")
    assert (response.status_code, response["Location"]) == (302, "/admin/login/?next=/admin/")
    assert "sessionid" not in response.cookies
    assert client.get("/admin/login/").status_code == 200
    for path in ("/admin/login/", "/admin/logout/"):
        response = client.post(path, credentials)
        assert (response.status_code, list(response.cookies)) == (503, [])
    single_proxy.heal()
    assert client.cookies["sessionid"].value == cookie
    assert client.get("/admin/").status_code == 200


# A new key, and a save that fails after it


@over("wsgi", "asgi")
@pytest.mark.parametrize("mode", ["error", "anonymous"])
@pytest.mark.parametrize("then", ["save", "view"])
def test_who_got_a_new_key_stays_signed_in_whatever_fails_after_it(
    shop: Shop, settings: Settings, mode: str, then: str
) -> None:
    """The old key ended at once, so the browser needs the new one."""
    settings.ELASTICACHE_SESSIONS_ON_OUTAGE = mode

    def goes_wrong() -> None:
        if then == "view":
            raise RuntimeError("the view failed")
        shop.proxy.go_down()

    def view(request: HttpRequest) -> None:
        request.session.cycle_key()
        request.session["cart"] = ["mug"]
        goes_wrong()

    async def async_view(request: HttpRequest) -> None:
        await request.session.acycle_key()
        await request.session.aset("cart", ["mug"])
        goes_wrong()

    response = shop.site.visit(async_view if shop.is_async else view)
    assert response.status_code == (503 if then == "save" else 500)
    assert list(set_cookies(response)) == ["sessionid"]
    assert response["Vary"] == "Cookie"
    shop.proxy.heal()
    assert not SessionStore().exists(shop.cookie)
    assert shop.site.cookie() != shop.cookie
    assert shop.site.contents() == shop.contents
    assert shop.site.ask(lambda request: request.user.get_username()) == "ada"


@over("wsgi")
def test_a_second_new_key_that_could_not_be_stored_is_given_to_nobody(shop: Shop) -> None:
    def twice(request: HttpRequest) -> None:
        request.session.cycle_key()
        shop.proxy.go_down()
        request.session.cycle_key()

    assert shop.site.visit(twice).status_code == 503
    shop.proxy.heal()
    assert shop.site.contents() == shop.contents


@over("wsgi")
@pytest.mark.parametrize(
    ("verbs", "cookie"),
    [(["flush"], ""), (["flush", "cycle_key"], None), (["delete"], None)],
    ids=["flushed", "flushed and cycled", "deleted"],
)
def test_nor_is_a_new_key_that_has_ended_since(shop: Shop, verbs: list[str], cookie: str | None) -> None:
    def view(request: HttpRequest) -> None:
        request.session.cycle_key()
        for verb in verbs:
            getattr(request.session, verb)()
        raise RuntimeError("the view failed")

    response = shop.site.visit(view)
    assert response.status_code == 500
    assert (response.cookies["sessionid"].value if set_cookies(response) else None) == cookie
    assert not SessionStore().exists(shop.cookie)
