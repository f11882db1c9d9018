"""The views of the Django stacks, and the same for the one without sessions."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpRequest, HttpResponse
from django.urls import path

from .payloads import NAME, content


def begin(request: HttpRequest) -> HttpResponse:
    request.session.update(content(int(request.GET["size"])))
    return HttpResponse("ok")


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.session["name"])


def change(request: HttpRequest) -> HttpResponse:
    request.session["visits"] += 1
    return HttpResponse("ok")


def new_id(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return HttpResponse("ok")


def login(request: HttpRequest) -> HttpResponse:
    """What django.contrib.auth does to a session, without its database."""
    user = request.GET["user"]
    request.session.cycle_key()
    request.session["_auth_user_id"] = user
    request.session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
    request.session["_auth_user_hash"] = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
    return HttpResponse("ok")


def logout(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse("ok")


def plain_begin(request: HttpRequest) -> HttpResponse:
    int(request.GET["size"])
    response = HttpResponse("ok")
    response.set_cookie("sessionid", "x" * 32)
    return response


def plain_read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(NAME)


def plain_login(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok" if request.GET["user"] else "nobody")


class WithSessions:
    urlpatterns: ClassVar = [
        path(view.__name__.replace("_", "-"), view)
        for view in (begin, untouched, read, change, new_id, login, logout)
    ]


class WithoutSessions:
    urlpatterns: ClassVar = [
        path("begin", plain_begin),
        path("read", plain_read),
        path("login", plain_login),
        *(path(name, untouched) for name in ("untouched", "change", "new-id", "logout")),
    ]
