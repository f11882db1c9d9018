"""What is true of every answer, whichever view gave it."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse

from elasticache_sessions import SessionEnded
from example_flask_app.house import GUARD
from example_flask_app.status import health

View = Callable[[HttpRequest], HttpResponseBase]


def healthz(get_response: View) -> View:
    """Answers the load balancer before any other middleware could ask for the session or the database."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path != "/healthz":
            return get_response(request)
        text, status = health()
        return HttpResponse(text, status=status, content_type="text/plain")

    return middleware


def guard(get_response: View) -> View:
    """Puts the house's headers on every page, the admin's too.

    Not on Django's pages for developers, which bring styles of their own along.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if not (settings.DEBUG and response.status_code >= 400):
            for name, value in GUARD.items():
                response.headers[name] = value
        return response

    return middleware


class EndedElsewhere:
    """The session was signed out in another tab, say, while a view was using it."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, SessionEnded):
            return None
        if request.path == reverse("shop:tell"):
            return JsonResponse({"error": "The session has ended."}, status=409)
        return redirect("shop:home")
