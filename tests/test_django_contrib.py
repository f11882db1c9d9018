"""Who uses a session in Django and around it: auth, messages, CSRF, the test clients, the admin, allauth, Channels."""

# Some of Django's, asgiref's and Channels' tools come without types:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.sessions import SessionMiddlewareStack
from django.contrib import admin, messages
from django.contrib.auth import (
    SESSION_KEY,
    aauthenticate,
    alogin,
    alogout,
    aupdate_session_auth_hash,
    authenticate,
    get_user,
    login,
    logout,
    update_session_auth_hash,
)
from django.contrib.auth.models import User
from django.contrib.sessions.management.commands import clearsessions
from django.core.management import call_command
from django.http import HttpRequest
from django.test import AsyncClient, Client, override_settings
from pytest_django import Settings

from elasticache_sessions.django import SessionStore
from tests.support.django_browser import DJANGOS, OURS, Browser
from tests.support.stores import Store

TEMPLATES = Path(__file__).parent / "django_site" / "templates"

pytestmark = pytest.mark.django_db(transaction=True)  # what runs on an event loop has connections of its own


@pytest.fixture
def browser(store: Store, settings: Settings) -> Browser:
    """On each store."""
    return begin(store, settings)


@pytest.fixture
def site(give_store: Callable[[str], Store], settings: Settings) -> Browser:
    """On memory://, for what does not depend on the store."""
    return begin(give_store("memory"), settings)


def begin(store: Store, settings: Settings) -> Browser:
    browser = Browser(store, settings)
    settings.ROOT_URLCONF = "tests.django_site.contrib_urls"
    settings.TEMPLATES = [settings.TEMPLATES[0] | {"DIRS": [TEMPLATES]}]
    browser.client.raise_request_exception = True
    return browser


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", password="secret")


@pytest.fixture
def grace() -> User:
    return User.objects.create_user("grace", password="secret")


def sign_in(request: HttpRequest, name: str = "ada") -> None:
    user = authenticate(request, username=name, password="secret")
    assert user is not None
    login(request, user)


async def asign_in(request: HttpRequest) -> None:
    user = await aauthenticate(request, username="ada", password="secret")
    assert user is not None
    await alogin(request, user)


async def aleave(request: HttpRequest) -> None:
    await alogout(request)


async def aname(request: HttpRequest) -> str:
    return (await request.auser()).get_username()


def name(request: HttpRequest) -> str:
    return request.user.get_username()


def put_mug(request: HttpRequest) -> None:
    request.session["cart"] = ["mug"]


def exists(key: str | None) -> bool:
    return SessionStore().exists(key)


# django.contrib.auth


@pytest.fixture(params=["wsgi", "asgi"])
def visit(request: pytest.FixtureRequest, browser: Browser) -> Callable[[Any, Any], Any]:
    """Visits with the first view under WSGI, with the second under ASGI."""
    return lambda view, aview: browser.visit(view) if request.param == "wsgi" else browser.avisit(aview)


@pytest.mark.usefixtures("ada")
def test_signing_in_keeps_the_cart_and_changes_the_key(
    browser: Browser, visit: Callable[[Any, Any], Any]
) -> None:
    browser.visit(put_mug)
    anonymous = browser.session_key
    visit(sign_in, asign_in)
    signed_in = browser.session_key
    assert signed_in != anonymous
    assert (exists(anonymous), exists(signed_in)) == (False, True)
    assert browser.content()["cart"] == ["mug"]
    assert visit(name, aname).content == b"'ada'"
    visit(logout, aleave)
    assert browser.session_key == "", "the cookie was deleted"
    assert not exists(signed_in)
    assert browser.store.keys() != [], "tombstones, so that nothing brings it back"
    browser.client.cookies["sessionid"] = signed_in or ""
    assert visit(name, aname).content == b"''"


def test_another_user_gets_nothing_of_the_one_before(browser: Browser, ada: User, grace: User) -> None:
    browser.visit(sign_in)
    browser.visit(put_mug)
    adas = browser.session_key
    browser.visit(lambda request: sign_in(request, "grace"))
    assert not exists(adas)
    assert browser.session_key != adas
    content = browser.content()
    assert (content[SESSION_KEY], "cart" in content) == (str(grace.pk), False)


def test_signing_in_again_keeps_everything(browser: Browser, ada: User) -> None:
    browser.visit(sign_in)
    browser.visit(put_mug)
    browser.visit(sign_in)
    assert browser.content()["cart"] == ["mug"]
    assert browser.visit(name).content == b"'ada'"


def change_password(request: HttpRequest) -> None:
    user = request.user
    assert isinstance(user, User)
    user.set_password("another")
    user.save()
    update_session_auth_hash(request, user)


async def achange_password(request: HttpRequest) -> None:
    user = await request.auser()
    await sync_to_async(name)(request)  # where Django 5.2 will look for it, in a thread's way
    assert isinstance(user, User)
    user.set_password("another")
    await user.asave()
    await aupdate_session_auth_hash(request, user)


def test_who_changes_the_password_stays_signed_in_and_the_other_sessions_do_not(
    browser: Browser, ada: User, visit: Callable[[Any, Any], Any]
) -> None:
    other = Client()
    other.force_login(ada)
    others = other.cookies["sessionid"].value
    browser.visit(sign_in)
    browser.visit(put_mug)
    before = browser.session_key
    visit(change_password, achange_password)
    assert browser.session_key != before
    assert not exists(before)
    assert browser.visit(name).content == b"'ada'"
    assert browser.content()["cart"] == ["mug"]
    mine, browser.client = browser.client, other
    assert browser.visit(name).content == b"''"
    assert not exists(others), "Django ends it where the password does not fit any more"
    browser.client = mine
    assert browser.visit(name).content == b"'ada'"


# django.contrib.messages


@pytest.mark.parametrize("middleware", [OURS, DJANGOS])
def test_messages_are_kept_until_they_are_shown(site: Browser, settings: Settings, middleware: str) -> None:
    settings.MIDDLEWARE = [middleware, *settings.MIDDLEWARE[1:]]

    def shown(request: HttpRequest) -> list[tuple[int, str, str]]:
        return [(one.level, one.message, one.extra_tags) for one in messages.get_messages(request)]

    def add(request: HttpRequest) -> None:
        messages.success(request, "Stored: <ü>", extra_tags="wide")
        messages.error(request, "Not sent")

    site.visit(add)
    site.visit(lambda request: messages.info(request, "One more"))
    expected = [(25, "Stored: <ü>", "wide"), (40, "Not sent", ""), (20, "One more", "")]
    assert site.visit(shown).content == repr(expected).encode()
    assert site.visit(shown).content == b"[]"


# CSRF_USE_SESSIONS


@pytest.mark.parametrize("middleware", [OURS, DJANGOS])
@pytest.mark.usefixtures("ada")
def test_csrf_tokens_live_in_the_session_and_rotate_with_the_sign_in(
    site: Browser, settings: Settings, middleware: str
) -> None:
    settings.CSRF_USE_SESSIONS = True
    settings.MIDDLEWARE = [middleware, *settings.MIDDLEWARE[1:]]
    site.client = Client(enforce_csrf_checks=True)
    secret = {"username": "ada", "password": "secret"}
    assert site.client.post("/sign-in", secret).status_code == 403
    token = form_token(site.client, "/sign-in")
    before, key = site.content()["_csrftoken"], site.session_key
    assert "csrftoken" not in site.client.cookies
    assert site.client.post("/sign-in", secret | {"csrfmiddlewaretoken": token}).status_code == 302
    assert site.visit(name).content == b"'ada'"
    assert site.session_key != key
    assert site.content()["_csrftoken"] != before
    assert site.client.post("/sign-out", {"csrfmiddlewaretoken": token}).status_code == 403
    token = form_token(site.client, "/password")
    assert site.client.post("/sign-out", {"csrfmiddlewaretoken": token}).status_code == 302
    assert site.visit(name).content == b"''"


def form_token(client: Client, where: str) -> str:
    page = client.get(where).content.decode()
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found, page
    return found[1]


# The test clients


def test_the_test_clients_session_is_the_one_that_the_views_see(site: Browser, ada: User) -> None:
    client = site.client
    session = client.session
    session["a"] = 1
    session.save()
    assert site.content() == {"a": 1}
    site.visit(lambda request: request.session.update({"b": 2}))
    assert dict(client.session.items()) == {"a": 1, "b": 2}
    assert client.login(username="ada", password="secret")
    assert site.visit(name).content == b"'ada'"
    assert client.session["a"] == 1
    key = site.session_key
    client.logout()
    assert not exists(key)
    assert site.visit(name).content == b"''"
    client.force_login(ada)
    assert site.visit(name).content == b"'ada'"


def test_the_asynchronous_test_clients_session_is_the_one_that_the_views_see(
    site: Browser, ada: User
) -> None:
    async def use(client: AsyncClient) -> None:
        session = await client.asession()
        await session.aset("a", 1)
        await session.asave()
        assert await client.alogin(username="ada", password="secret")
        session = await client.asession()
        assert (await session.aget("a"), await session.aget(SESSION_KEY)) == (1, str(ada.pk))
        key = session.session_key or ""
        assert await session.aexists(key)
        await client.alogout()
        assert not await session.aexists(key)
        await client.aforce_login(ada)

    client = AsyncClient()
    asyncio.run(use(client))
    site.client.cookies = client.cookies
    assert site.visit(name).content == b"'ada'"


# The admin, and pages that want a user


@pytest.mark.parametrize("middleware", [OURS, DJANGOS])
@pytest.mark.usefixtures("grace")
def test_the_admin_works_as_ever(site: Browser, settings: Settings, middleware: str, grace: User) -> None:
    settings.MIDDLEWARE = [middleware, *settings.MIDDLEWARE[1:]]
    User.objects.create_superuser("ada", password="secret")
    client = site.client
    response = client.get("/admin/auth/user/")
    assert (response.status_code, response.headers["Location"]) == (
        302,
        "/admin/login/?next=/admin/auth/user/",
    )
    response = client.post("/admin/login/?next=/admin/", {"username": "ada", "password": "wrong"})
    assert b"Please enter the correct username" in response.content
    response = client.post("/admin/login/?next=/admin/", {"username": "ada", "password": "secret"})
    assert (response.status_code, response.headers["Location"]) == (302, "/admin/")
    signed_in = site.session_key
    where = f"/admin/auth/user/{grace.pk}/change/"
    form = client.get(where).context["adminform"].form
    values = {field.html_name: field.value() for field in form if field.value() is not None}
    joined = values.pop("date_joined")
    values |= {
        "date_joined_0": f"{joined:%Y-%m-%d}",
        "date_joined_1": f"{joined:%H:%M:%S}",
        "first_name": "Grace",
    }
    response = client.post(where, values, follow=True)
    assert b"was changed successfully" in response.content, "a message that was kept in the session"
    grace.refresh_from_db()
    assert grace.first_name == "Grace"
    assert client.post("/admin/logout/").status_code == 200
    assert not exists(signed_in)
    assert client.get("/admin/").status_code == 302


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize("middleware", [OURS, DJANGOS])
def test_pages_that_want_a_user_send_others_to_sign_in(
    site: Browser, settings: Settings, middleware: str
) -> None:
    required = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    settings.MIDDLEWARE = [middleware, *settings.MIDDLEWARE[1:], required]
    settings.LOGIN_URL = "sign-in"
    for visit in (lambda: site.visit(name), lambda: site.avisit(aname)):
        response = visit()
        assert response.status_code == 302
        assert response.headers["Location"].startswith("/sign-in?next=/")
    site.client.post("/sign-in", {"username": "ada", "password": "secret"})
    for visit in (lambda: site.visit(name), lambda: site.avisit(aname)):
        assert visit().content == b"'ada'"
    site.client.post("/sign-out")
    assert site.visit(name).status_code == 302


def test_clearsessions_has_nothing_to_do(browser: Browser) -> None:
    browser.visit(put_mug)
    stored = browser.stored()
    call_command(clearsessions.Command())
    async_to_sync(SessionStore.aclear_expired)()
    assert browser.stored() == stored


# allauth


@pytest.fixture
def allauth(site: Browser, settings: Settings) -> Iterator[Browser]:
    """A site with allauth's user sessions, and its tables."""
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "allauth.account.middleware.AccountMiddleware",
        "allauth.usersessions.middleware.UserSessionsMiddleware",
    ]
    settings.ROOT_URLCONF = "tests.django_site.allauth_urls"
    settings.USERSESSIONS_TRACK_ACTIVITY = True
    settings.AUTHENTICATION_BACKENDS = [
        "django.contrib.auth.backends.ModelBackend",
        "allauth.account.auth_backends.AuthenticationBackend",
    ]
    apps = [
        *settings.INSTALLED_APPS,
        "allauth",
        "allauth.account",
        "allauth.usersessions",
        "django.contrib.humanize",
    ]
    with override_settings(INSTALLED_APPS=apps):
        call_command("migrate", verbosity=0)
        yield site
        call_command("migrate", "usersessions", "zero", verbosity=0)
        call_command("migrate", "account", "zero", verbosity=0)
        for model in [
            model for model in admin.site._registry if model._meta.app_label in ("account", "usersessions")
        ]:
            admin.site.unregister(model)


def test_allauth_lists_a_users_sessions_and_ends_the_others(allauth: Browser, ada: User) -> None:
    from allauth.usersessions.models import UserSession

    def sign_in() -> Client:
        client = Client()
        client.get("/")
        response = client.post("/accounts/login/", {"login": "ada", "password": "secret"})
        assert response.status_code == 302, response.content
        return client

    def kept(client: Client) -> str:
        return client.cookies["sessionid"].value

    clients = [sign_in() for _ in range(3)]
    listed = clients[0].get("/accounts/sessions/")
    assert listed.status_code == 200
    assert {session.session_key for session in listed.context["sessions"]} == {kept(one) for one in clients}
    UserSession.objects.get(session_key=kept(clients[2])).end()
    assert [exists(kept(client)) for client in clients] == [True, True, False]
    assert len(clients[0].get("/accounts/sessions/").context["sessions"]) == 2
    assert clients[2].get("/accounts/sessions/").status_code == 302
    assert clients[0].post("/accounts/sessions/").status_code == 302, "end all the others"
    assert [exists(kept(client)) for client in clients] == [True, False, False]
    assert clients[1].get("/accounts/sessions/").status_code == 302
    [session] = clients[0].get("/accounts/sessions/").context["sessions"]
    assert session.session_key == kept(clients[0])


# Channels


def test_channels_gives_a_websocket_the_session_of_its_cookie(browser: Browser) -> None:
    class Consumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # comes without types
        async def receive_json(self, content: Any, **named: Any) -> None:
            session = self.scope["session"]
            cart = await session.aget("cart")
            cart.append(content)
            if content == "pen":
                await session.asave()
            else:
                session.save()
            await self.send_json([session.get("cart"), await session.aapply(visits)])

    def visits(fields: Any) -> int:
        fields["visits"] = count = fields.get("visits", 0) + 1
        return int(count)

    async def talk(cookie: str) -> list[Any]:
        scope = {"type": "websocket", "path": "/", "headers": [(b"cookie", f"sessionid={cookie}".encode())]}
        socket = ApplicationCommunicator(SessionMiddlewareStack(Consumer.as_asgi()), scope)
        await socket.send_input({"type": "websocket.connect"})
        assert (await socket.receive_output())["type"] == "websocket.accept"
        answers = []
        for thing in ("pen", "cup"):
            await socket.send_input({"type": "websocket.receive", "text": json.dumps(thing)})
            answers.append(json.loads((await socket.receive_output(10))["text"]))
        await socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await socket.wait()
        return answers

    browser.visit(put_mug)
    assert asyncio.run(talk(browser.session_key or "")) == [[["mug", "pen"], 1], [["mug", "pen", "cup"], 2]]
    assert browser.content() == {"cart": ["mug", "pen", "cup"], "visits": 2}


def test_channels_saves_the_session_of_a_request_and_sets_its_cookie(browser: Browser) -> None:
    class Consumer(AsyncHttpConsumer):  # type: ignore[misc]  # as above
        async def handle(self, body: bytes) -> None:
            await self.scope["session"].aset("seen", 1)
            await self.send_response(200, b"done")

    async def ask() -> dict[bytes, bytes]:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        request = ApplicationCommunicator(SessionMiddlewareStack(Consumer.as_asgi()), scope)
        await request.send_input({"type": "http.request"})
        response = await request.receive_output(10)
        assert response["status"] == 200
        await request.wait()
        return dict(response["headers"])

    cookie = asyncio.run(ask())[b"Set-Cookie"].decode()
    key = cookie.partition(";")[0].removeprefix("sessionid=")
    assert exists(key)
    browser.client.cookies["sessionid"] = key
    assert browser.content() == {"seen": 1}


def test_whoever_looks_a_session_up_by_its_key_finds_its_user(browser: Browser, ada: User) -> None:
    """As management commands and other processes do."""
    browser.visit(sign_in)
    request = HttpRequest()
    request.session = SessionStore(browser.session_key)
    assert get_user(request) == ada
