"""The pages of the project that the tests serve, and its applications for ASGI and WSGI."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from elasticache_sessions import Fields
from elasticache_sessions.django import SessionStore

hops = 0
"""How often an event loop of this process has called a thread."""


def _count_hops() -> None:
    call = asyncio.BaseEventLoop.run_in_executor

    def counted(loop: asyncio.BaseEventLoop, executor: Any, func: Callable[..., Any], *arguments: Any) -> Any:
        global hops  # noqa: PLW0603 - one process, one number
        hops += 1
        return call(loop, executor, func, *arguments)

    asyncio.BaseEventLoop.run_in_executor = counted  # type: ignore[assignment,method-assign]


def _session(request: HttpRequest) -> SessionStore:
    assert isinstance(request.session, SessionStore)
    return request.session


def _increment(fields: Fields) -> int:
    fields["count"] = fields.get("count", 0) + 1
    return int(fields["count"])


def _answer(**said: object) -> JsonResponse:
    return JsonResponse({"pid": os.getpid(), "thread": threading.current_thread().name, **said})


async def untouched(request: HttpRequest) -> JsonResponse:
    return _answer(hops=hops)


async def count(request: HttpRequest) -> JsonResponse:
    return _answer(count=await _session(request).aapply(_increment))


async def add(request: HttpRequest, name: str) -> JsonResponse:
    before = await request.session.aget("last")
    await request.session.aset(name, 1)
    await request.session.aset("last", name)
    return _answer(before=before)


async def slow(request: HttpRequest, name: str) -> JsonResponse:
    """Asks the store as often as it can before somebody goes away."""
    for number in range(200):
        await request.session.aset(name, number)
        await request.session.asave()
    return _answer()


async def contents(request: HttpRequest) -> JsonResponse:
    return _answer(contents=dict(await request.session.aitems()))


def sync_count(request: HttpRequest) -> JsonResponse:
    return _answer(count=_session(request).apply(_increment))


def sync_add(request: HttpRequest, name: str) -> JsonResponse:
    request.session[name] = 1
    return _answer()


def sync_contents(request: HttpRequest) -> JsonResponse:
    return _answer(contents=dict(request.session.items()))


urlpatterns: Final = [
    path("untouched", untouched),
    path("count", count),
    path("add/<name>", add),
    path("slow/<name>", slow),
    path("contents", contents),
    path("sync/count", sync_count),
    path("sync/add/<name>", sync_add),
    path("sync/contents", sync_contents),
]


def asgi() -> Any:
    _count_hops()
    return get_asgi_application()


def wsgi() -> Any:
    """With a connection that is there before a prefork server forks."""
    application = get_wsgi_application()
    SessionStore("x" * 40).load()
    return application
