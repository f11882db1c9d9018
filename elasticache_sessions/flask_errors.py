"""What is answered to this package's exceptions where the app has no error handler of its own for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Flask, Response
from werkzeug.exceptions import InternalServerError

from .exceptions import IndexLost, SessionEnded, StoreUnavailable, TooManySessions
from .flask_session import logger
from .outage import SORRY

TOO_MANY: Final = (
    "You are signed in on too many devices. Please sign out on one of them, then sign in here.\n"
)
LOST: Final = "The list of your devices is not available. We are looking into it.\n"
ENDED: Final = "Your session ended meanwhile. Please try again.\n"
_KEPT_FROM_CACHES: Final = {"Cache-Control": "no-store"}


def answer_errors(app: Flask) -> None:
    """Register the handlers that `app` does not have."""
    for kind, handler in _HANDLERS.items():
        if kind not in app.error_handler_spec[None][None]:
            app.register_error_handler(kind, handler)
    # What touches the session after the view (Flask-Login does) fails where only a handler for any error hears of it.
    if InternalServerError not in app.error_handler_spec[None][500]:
        app.register_error_handler(InternalServerError, _whatever_it_was)


def unavailable(error: StoreUnavailable) -> Response:
    logger.error("a request could not have its session: %s", error)
    headers = {"Retry-After": str(error.retry_after), **_KEPT_FROM_CACHES}
    return Response(SORRY, 503, headers, mimetype="text/plain")


def index_lost(error: IndexLost) -> Response:
    """Whoever runs the app can help, so the log says how. No Retry-After: waiting does not."""
    logger.error("the sessions of a user could not be listed: %s", error)
    return Response(LOST, 503, _KEPT_FROM_CACHES, mimetype="text/plain")


def too_many(error: TooManySessions) -> Response:
    logger.info("a sign-in was refused: %s", error)
    return Response(TOO_MANY, 403, _KEPT_FROM_CACHES, mimetype="text/plain")


def ended(error: SessionEnded) -> Response:
    """Somebody clicked twice on "Sign in", say. The browser keeps the cookie that it has from the faster request."""
    logger.warning("a request was given up: %s", error)
    return Response(ENDED, 409, _KEPT_FROM_CACHES, mimetype="text/plain")


_HANDLERS: Final[dict[type[Exception], Callable[[Any], Response]]] = {
    StoreUnavailable: unavailable,
    IndexLost: index_lost,
    TooManySessions: too_many,
    SessionEnded: ended,
}


def _whatever_it_was(error: InternalServerError) -> Response | InternalServerError:
    cause = error.original_exception
    handler = next((handler for kind, handler in _HANDLERS.items() if isinstance(cause, kind)), None)
    return error if handler is None else handler(cause)
