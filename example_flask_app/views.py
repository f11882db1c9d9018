"""The pages of the shop."""

import hmac
from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from elasticache_sessions import IndexLost, SessionEnded, StoreUnavailable
from elasticache_sessions.flask import ElastiCacheSessions

from . import cart, csrf
from .cart import Line
from .catalogue import PRODUCTS, Product
from .device_list import devices
from .house import GUARD, PASSWORD
from .status import count_visit, health, status

shop = Blueprint("shop", __name__)
sessions = ElastiCacheSessions()


def product_or_404(slug: str) -> Product:
    return PRODUCTS.get(slug) or abort(404)


def cart_lines() -> list[Line]:
    return cart.lines(session, PRODUCTS.values())


def now() -> dict[str, Any]:
    return status(session, request.environ)


# Nobody's business but that of whoever is signed in.
PRIVATE = {"shop.show_devices", "shop.end_device", "shop.end_others"}


@shop.before_request
def ask_who_it_is() -> ResponseReturnValue | None:
    # Before the form is checked: one that was signed out elsewhere has no token any more.
    if request.endpoint not in PRIVATE or "user" in session:
        return None
    flash("You are not signed in here any more. Please sign in.")
    return redirect(url_for("shop.sign_in_form"), 303)


@shop.before_request
def check_forms() -> None:
    # /status.json changes nothing but a counter, and is called by scripts that never saw a form.
    if request.method == "POST" and request.endpoint != "shop.count":
        csrf.check()


@shop.after_request
def guard(response: Response) -> Response:
    response.headers.update(GUARD)
    return response


@shop.context_processor
def what_every_page_shows() -> dict[str, Any]:
    # Functions, called by the page that wants them: a page for an error must not touch the session.
    return {
        "here": request.endpoint,
        "status": now,
        "cart_items": lambda: cart.items(cart_lines()),
        "user_name": lambda: session.get("user"),
        "devices_url": url_for("shop.show_devices"),
    }


@shop.get("/")
def home() -> str:
    sessions.apply(count_visit)
    return render_template("home.html", products=PRODUCTS.values())


@shop.get("/cart")
def show_cart() -> str:
    lines = cart_lines()
    return render_template("cart.html", lines=lines, total=cart.total(lines), most=cart.MOST)


@shop.post("/cart/<slug>/add")
def add(slug: str) -> ResponseReturnValue:
    product = product_or_404(slug)
    cart.add(session, slug)
    flash(f"{product.name} is in your cart.")
    return redirect(url_for("shop.home", _anchor=slug), 303)


@shop.post("/cart/<slug>")
def change(slug: str) -> ResponseReturnValue:
    product = product_or_404(slug)
    quantity = 0 if "remove" in request.form else request.form.get("quantity", type=int)
    if quantity is None:
        abort(400, "How many? A whole number is needed.")
    held = cart.put(session, slug, quantity)
    flash(f"{product.name}: {held} in your cart." if held else f"{product.name} was taken out.")
    return redirect(url_for("shop.show_cart"), 303)


@shop.post("/order")
def order() -> ResponseReturnValue:
    for line in cart_lines():
        cart.put(session, line.product.slug, 0)
    flash("Thank you! This is a demo, so nothing was charged and nothing will arrive.")
    return redirect(url_for("shop.home"), 303)


@shop.get("/sign-in")
def sign_in_form() -> str:
    return render_template("sign_in.html", password=PASSWORD)


@shop.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    name = request.form.get("name", "").strip()[:40]
    if not name or not hmac.compare_digest(request.form.get("password", "").encode(), PASSWORD.encode()):
        error = "That password is not right." if name else "Please give a name."
        return render_template("sign_in.html", password=PASSWORD, name=name, error=error), 422
    # A new session id, and a new token for the forms: what somebody knew before is worth nothing. The cart stays.
    sessions.login(name)
    session.pop(csrf.FIELD, None)
    session["user"] = name
    flash(f"Welcome, {name}.")
    return redirect(url_for("shop.home"), 303)


@shop.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    sessions.logout()
    flash("You are signed out.")  # In a new, anonymous session.
    return redirect(url_for("shop.home"), 303)


@shop.get("/devices")
def show_devices() -> str:
    return render_template("devices.html", devices=devices(sessions.for_user(session["user"])))


@shop.post("/devices/<handle>/end")
def end_device(handle: str) -> ResponseReturnValue:
    ended = sessions.end(session["user"], handle)
    flash("That device is signed out." if ended else "That device was signed out already.")
    return redirect(url_for("shop.show_devices"), 303)


@shop.post("/devices/end-others")
def end_others() -> ResponseReturnValue:
    number = sessions.end_all(session["user"])
    flash(f"{number} other {'device is' if number == 1 else 'devices are'} signed out.")
    return redirect(url_for("shop.show_devices"), 303)


@shop.get("/status.json")
def tell() -> Response:
    return jsonify(now())


@shop.post("/status.json")
def count() -> Response:
    sessions.apply(count_visit)
    return jsonify(now())


@shop.get("/healthz")
def healthz() -> ResponseReturnValue:
    return health()


@shop.errorhandler(SessionEnded)
def session_ended(_error: SessionEnded) -> ResponseReturnValue:
    """Signed out in another tab, say, while this request was under way."""
    if request.path == url_for("shop.count"):
        return jsonify(error="The session has ended."), 409
    return redirect(url_for("shop.home"), 303)


@shop.errorhandler(StoreUnavailable)
def store_unavailable(error: StoreUnavailable) -> ResponseReturnValue:
    """The cookie is left alone, so everybody is still signed in when the store is back."""
    return error_page(ServiceUnavailable("We will be back in a moment.", retry_after=error.retry_after))


@shop.errorhandler(IndexLost)
def index_lost(_error: IndexLost) -> ResponseReturnValue:
    return error_page(ServiceUnavailable("Your devices cannot be listed just now."))


@shop.app_errorhandler(HTTPException)
def error_page(error: HTTPException) -> ResponseReturnValue:
    """A plain page that needs no session, because the session may be what failed."""
    response = error.get_response()
    if error.response is None:
        response.set_data(render_template("error.html", error=error))
    return response
