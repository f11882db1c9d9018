"""A Django project for the tests: its pages do what the test says, behind the whole chain of handler and middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.http.cookie import SimpleCookie
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from elasticache_sessions.django import SessionStore
from tests.support.load import is_read, is_write
from tests.support.proxy import Command

OURS: Final = "elasticache_sessions.django.middleware.SessionMiddleware"
DJANGOS: Final = "django.contrib.sessions.middleware.SessionMiddleware"
CHAIN: Final = (
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
STRICT: Final = (*CHAIN[:3], "django.contrib.auth.middleware.LoginRequiredMiddleware", CHAIN[3])

Do = Callable[[HttpRequest], Any]


class Member(User):
    """A user who needs no database."""

    class Meta:
        app_label = "auth"
        proxy = True

    def save(self, *arguments: Any, **named: Any) -> None:
        pass

    async def asave(self, *arguments: Any, **named: Any) -> None:
        pass


ADA: Final = Member(pk=1, username="ada", password="!1")
GRACE: Final = Member(pk=2, username="grace", password="!2")


class Members:
    """The authentication backend that knows them."""

    def get_user(self, pk: int) -> AbstractBaseUser | None:
        return {1: ADA, 2: GRACE}.get(pk)

    async def aget_user(self, pk: int) -> AbstractBaseUser | None:
        return self.get_user(pk)


class Pages:
    """The pages of all sites; `do` is what the one that is being visited does."""

    do: Do

    @staticmethod
    @login_not_required
    def page(request: HttpRequest) -> HttpResponseBase:
        return _answer(Pages.do(request))

    @staticmethod
    @login_not_required
    async def async_page(request: HttpRequest) -> HttpResponseBase:
        result = Pages.do(request)
        return _answer(await result if isinstance(result, Awaitable) else result)


def _answer(result: object) -> HttpResponseBase:
    return result if isinstance(result, HttpResponseBase) else HttpResponse(str(result))


def members_page(request: HttpRequest) -> HttpResponseBase:
    """For who is signed in, where a middleware asks for that."""
    return HttpResponse("done")


urlpatterns = [
    path("", Pages.page),
    path("async", Pages.async_page),
    path("members", members_page),
    path("logout", members_page, name="logout"),
    path("sign-in", Pages.page, name="sign_in"),
    path("sign-out", Pages.page, name="sign-out"),
]


class Site:
    """A project whose sessions are kept at `url`. `kind`: "wsgi"; "asgi": async views; "asgi, sync views".

    `visit(do)` runs `do(request)` as its view. Under "asgi" it may be a coroutine function.
    """

    def __init__(
        self, kind: str, url: str, chain: tuple[str, ...] = (OURS, *CHAIN), **settings: object
    ) -> None:
        self.kind = kind
        self.path = "/async" if kind == "asgi" else "/"
        self._settings = override_settings(
            ELASTICACHE_SESSIONS_URL=url,
            MIDDLEWARE=list(chain),
            ROOT_URLCONF="tests.support.django_pages",
            AUTHENTICATION_BACKENDS=["tests.support.django_pages.Members"],
            **settings,
        )
        self._runner = asyncio.Runner()
        self.browser: Client | AsyncClient = self.client()

    def client(self, cookie: str | None = None) -> Client | AsyncClient:
        """Another browser (or another copy of the cookie), which brings that."""
        kind = Client if self.kind == "wsgi" else AsyncClient
        client = kind(raise_request_exception=False)
        if cookie is not None:
            client.cookies["sessionid"] = cookie
        return client

    def visit(
        self,
        do: Do = lambda request: "done",
        client: Client | AsyncClient | None = None,
        *,
        path: str | None = None,
        method: str = "get",
        **more: Any,
    ) -> HttpResponse:
        """One request, in which `do` runs; the page is what it returns."""
        client = client or self.browser
        Pages.do = staticmethod(do)
        response = getattr(client, method)(path or self.path, **more)
        if isinstance(response, Awaitable):
            response = self._runner.run(_awaited(response))
        assert isinstance(response, HttpResponse)
        return response

    def ask(self, do: Do, client: Client | AsyncClient | None = None, **more: Any) -> Any:
        """What `do` returns when it runs in a request, which must answer 200."""
        answers: list[Any] = []

        def view(request: HttpRequest) -> None:
            answers.append(do(request))

        async def async_view(request: HttpRequest) -> None:
            result = do(request)
            answers.append(await result if isinstance(result, Awaitable) else result)

        response = self.visit(async_view if self.kind == "asgi" else view, client, **more)
        assert response.status_code == 200, response.content
        return answers[0]

    def cookie(self, client: Client | AsyncClient | None = None) -> str | None:
        """What the browser holds."""
        cookie = (client or self.browser).cookies.get("sessionid")
        return cookie.value if cookie is not None else None

    def contents(self, cookie: str | None = None) -> dict[str, Any]:
        """What the store holds under that cookie, or the browser's."""
        return dict(SessionStore(cookie or self.cookie()).items())

    def __enter__(self) -> Self:
        self._settings.enable()
        return self

    def __exit__(self, *failure: object) -> None:
        self._runner.close()
        self._settings.disable()


async def _awaited(response: Awaitable[HttpResponse]) -> HttpResponse:
    return await response


def set_cookies(response: HttpResponseBase) -> dict[str, str]:
    """Every cookie that the response sets or deletes: its name, and the whole header."""
    cookies: SimpleCookie = response.cookies
    return {name: morsel.OutputString() for name, morsel in cookies.items()}


def asks_for_a_session(command: Command) -> bool:
    """Whether a command that passes a proxy reads or writes one."""
    return is_read(command) or is_write(command)


def session_of(request: HttpRequest) -> SessionStore:
    """The session, with the verbs that are ours."""
    assert isinstance(request.session, SessionStore)
    return request.session
