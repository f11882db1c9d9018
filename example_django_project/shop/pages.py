"""Django's words for what the pages in example_flask_app/templates ask for in Flask's."""

from typing import Any

from django.contrib.messages import get_messages
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import reverse
from django.utils.safestring import mark_safe
from jinja2 import Environment

from example_flask_app import cart
from example_flask_app.catalogue import pounds
from example_flask_app.status import status

from .models import Product
from .requests import Request


def environment(**options: Any) -> Environment:
    """For the Jinja2 engine in settings.py."""
    environment = Environment(**options)  # noqa: S701  # Django asks for autoescape among the options
    environment.filters["pounds"] = pounds
    environment.globals["url_for"] = url_for
    return environment


def url_for(endpoint: str, **values: str) -> str:
    if endpoint == "static":
        return static(values["filename"])
    return reverse(endpoint.replace(".", ":"), kwargs=values)


def cart_lines(request: Request) -> list[cart.Line]:
    return cart.lines(request.session, Product.objects.all())


def what_every_page_shows(request: Request) -> dict[str, Any]:
    # Functions, called by the page that wants them, in its order: the status tells what all the rest has cost.
    return {
        "here": request.resolver_match.view_name.replace(":", ".") if request.resolver_match else "",
        "status": lambda: status(request.session, request.META),
        "cart_items": lambda: cart.items(cart_lines(request)),
        "user_name": request.user.get_username,
        "devices_url": reverse("shop:show_devices"),
        "admin_url": reverse("admin:index") if request.user.is_staff else None,
        "get_flashed_messages": lambda: get_messages(request),
    }


def strip(request: Request) -> dict[str, Any]:
    """The shop's strip, for the admin's pages."""

    # A function, so that it is written last, and tells what all the rest has cost. Jinja2 has escaped what is in it.
    return {"strip": lambda: mark_safe(render_to_string("_strip.html", request=request))}  # noqa: S308
