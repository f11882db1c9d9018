"""The views of the Django stacks under ASGI: the same as `django_views`, natively asynchronous."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpRequest, HttpResponse
from django.urls import path

from .payloads import NAME, content


async def begin(request: HttpRequest) -> HttpResponse:
    await request.session.aupdate(content(int(request.GET["size"])))
    return HttpResponse("ok")


async def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


async def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await request.session.aget("name"))


async def change(request: HttpRequest) -> HttpResponse:
    visits = await request.session.aget("visits", 0)
    await request.session.aset("visits", visits + 1)
    return HttpResponse("ok")


async def plain_begin(request: HttpRequest) -> HttpResponse:
    int(request.GET["size"])
    response = HttpResponse("ok")
    response.set_cookie("sessionid", "x" * 32)
    return response


async def plain_read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(NAME)


class WithSessions:
    urlpatterns: ClassVar = [path(view.__name__, view) for view in (begin, untouched, read, change)]


class WithoutSessions:
    urlpatterns: ClassVar = [
        path("begin", plain_begin),
        path("read", plain_read),
        path("untouched", untouched),
        path("change", untouched),
    ]
