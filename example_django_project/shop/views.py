"""The pages of the shop."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

from django.contrib import messages
from django.contrib.auth.views import LoginView, LogoutView, redirect_to_login
from django.contrib.messages.views import SuccessMessageMixin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from elasticache_sessions.django import user_sessions
from example_flask_app import cart
from example_flask_app.device_list import devices
from example_flask_app.status import count_visit, status

from .models import Product
from .pages import cart_lines
from .requests import Request


@require_GET
def home(request: Request) -> HttpResponse:
    request.session.apply(count_visit)
    return render(request, "home.html", {"products": Product.objects.all()})


@require_GET
def show_cart(request: Request) -> HttpResponse:
    lines = cart_lines(request)
    return render(request, "cart.html", {"lines": lines, "total": cart.total(lines), "most": cart.MOST})


@require_POST
def add(request: Request, slug: str) -> HttpResponse:
    product = get_object_or_404(Product, slug=slug)
    cart.add(request.session, slug)
    messages.success(request, f"{product.name} is in your cart.")
    return redirect(f"{reverse('shop:home')}#{slug}")


@require_POST
def change(request: Request, slug: str) -> HttpResponse:
    product = get_object_or_404(Product, slug=slug)
    try:
        quantity = 0 if "remove" in request.POST else int(request.POST.get("quantity", ""))
    except ValueError:
        return error_page(400, "How many? A whole number is needed.")
    held = cart.put(request.session, slug, quantity)
    messages.success(
        request, f"{product.name}: {held} in your cart." if held else f"{product.name} was taken out."
    )
    return redirect("shop:show_cart")


@require_POST
def order(request: Request) -> HttpResponse:
    for line in cart_lines(request):
        cart.put(request.session, line.product.slug, 0)
    messages.success(request, "Thank you! This is a demo, so nothing was charged and nothing will arrive.")
    return redirect("shop:home")


class SignIn(SuccessMessageMixin, LoginView):  # type: ignore[type-arg]  # generic in the stubs only
    template_name = "shop/sign_in.html"
    success_message = "Welcome, %(username)s."


class SignOut(LogoutView):
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().post(request, *args, **kwargs)
        messages.success(request, "You are signed out.")  # In a new, anonymous session.
        return response


def members_only(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """For whoever is signed in."""

    @wraps(view)
    def guarded(request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        return view(request, *args, **kwargs) if request.user.is_authenticated else ask_who_it_is(request)

    return guarded


def ask_who_it_is(request: HttpRequest) -> HttpResponse:
    messages.info(request, "You are not signed in here any more. Please sign in.")
    return redirect_to_login(reverse("shop:show_devices"))


@require_GET
@members_only
def show_devices(request: Request) -> HttpResponse:
    return render(request, "devices.html", {"devices": devices(user_sessions.for_user(request.user))})


@require_POST
@members_only
def end_device(request: Request, handle: str) -> HttpResponse:
    ended = user_sessions.end(request.user, handle)
    messages.success(
        request, "That device is signed out." if ended else "That device was signed out already."
    )
    return redirect("shop:show_devices")


@require_POST
@members_only
def end_others(request: Request) -> HttpResponse:
    number = user_sessions.end_all(request.user)
    messages.success(request, f"{number} other {'device is' if number == 1 else 'devices are'} signed out.")
    return redirect("shop:show_devices")


PRIVATE = {"shop:end_device", "shop:end_others"}


@csrf_exempt  # It changes nothing but a counter, and is called by scripts that never saw a form.
@require_http_methods(["GET", "POST"])
def tell(request: Request) -> JsonResponse:
    if request.method == "POST":
        request.session.apply(count_visit)
    return JsonResponse(status(request.session, request.META))


def error_page(code: int, description: str) -> HttpResponse:
    """A plain page that needs no session, because the session may be what failed."""
    error = {"code": code, "name": HTTPStatus(code).phrase, "description": description}
    return HttpResponse(render_to_string("error.html", {"error": error}), status=code)


def page_for(code: int, description: str) -> Callable[..., HttpResponse]:
    """The view for an error, as the root URLconf names it."""
    return lambda request, exception=None: error_page(code, description)


def form_refused(request: Request, reason: str = "") -> HttpResponse:
    match = request.resolver_match
    if match and match.view_name in PRIVATE and not request.user.is_authenticated:
        return ask_who_it_is(request)  # Signed out elsewhere, so there is no token to compare with any more.
    return error_page(403, "This form is out of date: the session it belongs to has ended.")
