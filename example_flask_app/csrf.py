"""Forms are only taken from pages of this very session: its token must come back with the form."""

import hmac
import secrets

from flask import abort, request, session
from markupsafe import Markup

FIELD = "csrf"


class Input:
    """Written into a form, it is the hidden field with this session's token; a page without forms needs none."""

    def __html__(self) -> str:
        return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, token())


def token() -> str:
    """This session's token, for the form that is being written."""
    if FIELD not in session:
        session[FIELD] = secrets.token_urlsafe(16)
    return str(session[FIELD])


def check() -> None:
    """Refuse (400) a form that does not carry this session's token."""
    sent = request.form.get(FIELD, "")
    # Bytes, because compare_digest refuses text that is not ASCII, and a form may send anything.
    if not hmac.compare_digest(sent.encode(), str(session.get(FIELD, "")).encode()) or not sent:
        abort(400, "This form is out of date: the session it belongs to has ended.")
