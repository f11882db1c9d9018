"""A visitor of a Django project whose one page does what the test says, and a look at what is stored of the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.test import AsyncClient, Client
from django.urls import path
from pytest_django import Settings

from elasticache_sessions.record import Header, unpack
from elasticache_sessions.session import handle_of
from tests.support.load import PATIENT
from tests.support.stores import Store

OURS: Final = "elasticache_sessions.django.middleware.SessionMiddleware"
DJANGOS: Final = "django.contrib.sessions.middleware.SessionMiddleware"

View = Callable[[HttpRequest], Any]


class _Asked:
    """What the page is to do now."""

    view: View = staticmethod(lambda request: "nothing")


def page(request: HttpRequest) -> HttpResponseBase:
    return _answer(_Asked.view(request))


async def async_page(request: HttpRequest) -> HttpResponseBase:
    return _answer(await _Asked.view(request))


def _answer(result: object) -> HttpResponseBase:
    return result if isinstance(result, HttpResponseBase) else HttpResponse(repr(result))


urlpatterns = [path("", page), path("async", async_page)]


class Browser:
    """`visit(view)` runs `view(request)` as the page: what it returns is shown, in `repr` unless it is a response.

    `avisit` does so under ASGI, where `view` is a coroutine function.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        settings.ELASTICACHE_SESSIONS_URL = store.url
        settings.ELASTICACHE_SESSIONS_TIMEOUT = settings.ELASTICACHE_SESSIONS_CONNECT_TIMEOUT = PATIENT
        settings.ROOT_URLCONF = __name__
        self.store = store
        self.client = Client(raise_request_exception=False)

    def visit(
        self, view: View = lambda request: None, path: str = "/", headers: dict[str, str] | None = None
    ) -> Any:
        _Asked.view = staticmethod(view)
        return self.client.get(path, headers=headers)

    def avisit(self, view: View, path: str = "/async", headers: dict[str, str] | None = None) -> Any:
        _Asked.view = staticmethod(view)
        client = AsyncClient(raise_request_exception=self.client.raise_request_exception)
        client.cookies = self.client.cookies
        return asyncio.run(client.get(path, headers=headers))

    def content(self) -> dict[str, Any]:
        """What the session holds in the next request."""
        held: list[dict[str, Any]] = []
        response = self.visit(lambda request: held.append(dict(request.session.items())))
        assert response.status_code == 200
        return held[0]

    # What the browser holds, and what is stored of it.

    @property
    def session_key(self) -> str | None:
        cookie = self.client.cookies.get("sessionid")
        return cookie.value if cookie else None  # a deleted one is empty

    @property
    def key(self) -> bytes:
        assert self.session_key, "the browser holds no cookie"
        return f"sess:{handle_of(self.session_key)}".encode()

    def stored(self) -> bytes:
        data = self.store.get(self.key)
        assert data is not None, "the store holds no such session"
        return data

    def fields(self) -> dict[str, bytes]:
        return dict(unpack(self.stored()).fields)

    def header(self) -> Header:
        return unpack(self.stored()).header

    def ttl(self) -> int:
        ttl = self.store.ttl(self.key)
        assert ttl is not None
        return ttl
