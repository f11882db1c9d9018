"""What becomes of a Flask response while the store is down."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, request

from .exceptions import StoreUnavailable
from .flask_session import FlaskSession, logger
from .outage import signs_in_or_out


def answer_without(app: Flask, session: FlaskSession, error: StoreUnavailable, response: Response) -> None:
    """The request could not have its session. Its page stays, unless it says that something happened which was refused,
    or the view failed for want of the session.
    """
    status, modified = response.status_code, session.modified
    refused = session.refused is not None or says_what_did_not_happen(modified)
    if status == 500 or (status < 500 and refused):
        rewrite(app, response, error)
    elif status < 500:
        changes = "; its changes are dropped" if modified else ""
        logger.warning("a request went on without its session: %s%s", error, changes)
        keep_from_caches(response)


def says_what_did_not_happen(modified: bool) -> bool:
    """Whether the page of this request cannot be true, by what the request was for."""
    return signs_in_or_out(request.endpoint, request.method, modified)


def keep_from_caches(response: Response) -> None:
    """Nobody else is to get this page, nor the user once the store is back."""
    response.headers.pop("Expires", None)
    response.headers["Cache-Control"] = "private, no-store"


def rewrite(app: Flask, response: Response, error: StoreUnavailable) -> None:
    """Turn `response` into a 503, in place: what the view answered is not true, since its session was not stored."""
    answer = app.make_response(app.handle_user_exception(error))
    stream = response.response
    for name in _OF_THE_CONTENT:
        response.headers.pop(name, None)
    response.headers.update(answer.headers)
    response.status = answer.status
    response.direct_passthrough = False
    response.set_data(answer.get_data())
    if hasattr(stream, "close"):
        try:
            stream.close()  # nobody reads it any more
        except Exception:  # noqa: BLE001 - it is the app's, and the answer stands whatever it does
            logger.exception("the stream of a response that became a 503 failed to close")


# What speaks of a body that is gone, or of a success that was none (a redirect, a "remember me" cookie).
_OF_THE_CONTENT: Final = (
    "Accept-Ranges",
    "Clear-Site-Data",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-Range",
    "ETag",
    "HX-Location",
    "HX-Redirect",
    "Expires",
    "Last-Modified",
    "Location",
    "Refresh",
    "Set-Cookie",
    "Transfer-Encoding",
)
