"""`instances("django-wsgi", …)` and `instances("django-asgi", …)`: Django's own request handlers with our middleware.

Each instance has managers of its own, and under ASGI an event loop of its own. A view stays a plain function there,
too: its `Visit` waits for the session's coroutines, and what asks the store in a thread's way fails.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django.urls import path

from elasticache_sessions import Fields, SessionManager, Settings
from elasticache_sessions.django import SessionStore
from elasticache_sessions.django.managers import Managers, connect
from elasticache_sessions.django.middleware import SessionMiddleware
from tests.support.instances import Answer, Habits, Instance, Recorded, View, Visit
from tests.support.load import OnLoop
from tests.support.loops import LoopThread, wait, waiting

T = TypeVar("T")

_MISSING: Final = object()
_BACKEND: Final = "tests.Backend"

HABITS = Habits(
    cookie="sessionid",
    emptied_ends=False,
    equal_is_written=True,
    refuses_unknown=True,
    takes_any_of_its_name=False,
    ends_at_once=True,
    signed_in=lambda user: {
        SESSION_KEY: user,
        BACKEND_SESSION_KEY: _BACKEND,
        HASH_SESSION_KEY: f"hash of {user}",
    },
)


class DjangoVisit(Visit):
    def __init__(self, session: SessionStore) -> None:
        self._session = session

    @property
    def raw(self) -> SessionStore:
        return self._session

    @abstractmethod
    def _call(self, verb: str, *arguments: Any) -> Any:
        """Call one of Django's verbs, or its twin for event loops."""

    def modify(self) -> None:
        self._session.modified = True

    def cycle(self) -> None:
        self._call("cycle_key")

    def login(self, user: str) -> None:
        """What `django.contrib.auth.login` does to a session."""
        if SESSION_KEY not in self:
            self.cycle()
        elif self[SESSION_KEY] != user:
            self.logout()
        for name, value in HABITS.signed_in(user).items():
            self[name] = value

    def logout(self) -> None:
        self._call("flush")

    def apply(self, change: Callable[[Fields], T]) -> T:
        return cast(T, self._call("apply", change))

    def expire_after(self, seconds: int) -> None:
        self._call("set_expiry", seconds)

    def keep(self) -> None:
        """All are kept."""

    @property
    def handle(self) -> str | None:
        self.get("")
        return self._session.handle


class WsgiVisit(DjangoVisit):
    def _do(self, verb: str, *arguments: Any) -> Any:
        return getattr(self._session, verb)(*arguments)

    _call = _do


class AsgiVisit(DjangoVisit):
    def _do(self, verb: str, *arguments: Any) -> Any:
        if verb == "__getitem__":  # has no twin
            if (value := self._call("get", *arguments, _MISSING)) is _MISSING:
                raise KeyError(*arguments)
            return value
        if verb == "clear":  # asks nothing, so it needs none
            return self._session.clear()
        names = {"__contains__": "has_key", "__setitem__": "set", "__delitem__": "pop"}
        return self._call(names.get(verb, verb), *arguments)

    def _call(self, verb: str, *arguments: Any) -> Any:
        return wait(getattr(self._session, f"a{verb}")(*arguments))

    def meanwhile(self, act: Callable[[], T]) -> T:
        import asyncio

        return wait(asyncio.to_thread(act))


# The site: one page, which does what the request says.


class Middleware(SessionMiddleware):
    """Ours, for several instances in one process: the request says whose sessions it uses."""

    def process_request(self, request: HttpRequest) -> None:
        request.session = _of(request).store(request.COOKIES.get(django_settings.SESSION_COOKIE_NAME))


def page(request: HttpRequest) -> HttpResponse:
    asked = _of(request)
    asked.results.append(asked.view(WsgiVisit(cast(SessionStore, request.session))))
    return HttpResponse("done")


async def async_page(request: HttpRequest) -> HttpResponse:
    asked = _of(request)
    visit = AsgiVisit(cast(SessionStore, request.session))
    asked.results.append(await waiting(lambda: asked.view(visit)))
    return HttpResponse("done")


urlpatterns = [path("wsgi", page), path("asgi", async_page)]


class _Asked:
    """What is asked of one request, and what it came to."""

    def __init__(self, view: View, store: type[SessionStore]) -> None:
        self.view = view
        self.store = store
        self.results: list[object] = []
        self.errors: list[BaseException] = []


def _of(request: HttpRequest) -> _Asked:
    return cast(_Asked, request.asked)  # type: ignore[attr-defined]  # put there by the instance


def _remember(sender: object, request: HttpRequest | None = None, **_: object) -> None:
    error = sys.exc_info()[1]
    if hasattr(request, "asked") and error is not None:
        _of(cast(HttpRequest, request)).errors.append(error)


class DjangoInstance(Instance):
    habits = HABITS

    def __init__(self, managers: Managers) -> None:
        self.commands = []
        self.store = type("SessionStore", (SessionStore,), {"managers": staticmethod(lambda: managers)})

    def send(self, view: View, cookies: str | None) -> Answer:
        asked = _Asked(view, self.store)
        response = self._respond(asked, "" if cookies is None else cookies)
        morsel = response.cookies.get(self.habits.cookie)
        result = asked.results[0] if asked.results else None
        headers = (
            dict(response.headers) | {"Set-Cookie": morsel.OutputString()}
            if morsel
            else dict(response.headers)
        )
        return Answer(
            response.status_code, result, None if morsel is None else morsel.value, headers, asked.errors
        )

    @abstractmethod
    def _respond(self, asked: _Asked, cookies: str) -> HttpResponseBase:
        """Have Django handle a request with that Cookie header."""


class WsgiInstance(DjangoInstance):
    manager: SessionManager

    def __init__(self, handler: WSGIHandler, settings: Settings) -> None:
        made = connect(settings)
        super().__init__(made)
        self._handler = handler
        self.manager = made.sync
        self.manager._client = Recorded(self.manager._client, self.commands)

    def _respond(self, asked: _Asked, cookies: str) -> HttpResponseBase:
        request = RequestFactory().get("/wsgi", HTTP_COOKIE=cookies)
        request.asked, request.urlconf = asked, __name__  # type: ignore[attr-defined]  # see _of; Django looks for it
        return self._handler.get_response(request)

    def close(self) -> None:
        self.manager.close()


class AsgiInstance(DjangoInstance):
    def __init__(self, handler: ASGIHandler, settings: Settings) -> None:
        made = connect(settings)
        super().__init__(replace(made, sync=cast(SessionManager, _Refusing())))
        self._handler = handler
        self._loop = LoopThread()
        self.manager = OnLoop(made.asynchronous, self._loop)
        plain = made.asynchronous._connect
        made.asynchronous._connect = lambda: Recorded(plain(), self.commands)

    def _respond(self, asked: _Asked, cookies: str) -> HttpResponseBase:
        request = AsyncRequestFactory().get("/asgi")
        # As the header comes from a server: the factory would put another one behind it.
        request.META["HTTP_COOKIE"] = cookies
        request.asked, request.urlconf = asked, __name__  # type: ignore[attr-defined]  # see _of; Django looks for it
        return self._loop.run(self._handler.get_response_async(request))

    def close(self) -> None:
        self._loop.close()


class _Refusing:
    """In the place of the manager for threads, where nothing may block the event loop."""

    def run(self, flow: object) -> None:
        raise AssertionError("an event loop was made to wait for the store")


@contextmanager
def site(framework: str, *, refreshing: bool) -> Iterator[Callable[[str, dict[str, object]], Instance]]:
    """Makes instances."""
    with override_settings(MIDDLEWARE=[f"{__name__}.Middleware"], SESSION_SAVE_EVERY_REQUEST=refreshing):
        got_request_exception.connect(_remember)
        try:
            if framework == "django-asgi":
                handler = ASGIHandler()
                yield lambda url, settings: AsgiInstance(handler, _settings(url, settings))
            else:
                wsgi = WSGIHandler()
                yield lambda url, settings: WsgiInstance(wsgi, _settings(url, settings))
        finally:
            got_request_exception.disconnect(_remember)


def _settings(url: str, settings: dict[str, object]) -> Settings:
    return Settings(url=url, **cast(dict[str, Any], settings))
