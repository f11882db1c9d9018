"""Flask-Login: whom it signs in and out is signed in and out of the session, too. Its signals tell."""

from __future__ import annotations

from typing import Any, Final

from flask import Flask, g, session as current_session

from .exceptions import SessionEnded, TooManySessions
from .flask_session import FlaskSession

# What it keeps in the session about who is signed in.
_FIELDS: Final = ("_user_id", "_fresh", "_id", "_remember", "_remember_seconds")


def follow_flask_login(app: Flask) -> None:
    """Where Flask-Login is installed, hear from it what it does in `app`."""
    try:
        from flask_login import signals
    except ImportError:
        return
    signals.user_logged_in.connect(_signed_in, app)
    signals.user_login_confirmed.connect(_signed_in, app)
    signals.user_loaded_from_cookie.connect(_remembered, app)
    signals.user_logged_out.connect(_signed_out, app)
    signals.session_protected.connect(_protected, app)


def _signed_in(_app: Flask, **_: Any) -> None:
    session = _changeable()
    if session is None or session.named:
        return
    owner = session.get("_user_id")
    if owner is None or owner == "":
        return
    try:
        session.cycle(str(owner))
    except (TooManySessions, SessionEnded):
        _undo(session)
        raise


def _remembered(app: Flask, **_: Any) -> None:
    """Whoever comes with its cookie only is in a new session of theirs, which Flask-Login has marked as not fresh."""
    session = _changeable()
    if session is None or session.unavailable:
        return  # as without the session: a page may be shown, and nothing is stored
    try:
        _signed_in(app)
    except TooManySessions:
        # The cookie would have each page refused, the one to sign in as well.
        session["_remember"] = "clear"
        raise
    except SessionEnded:
        pass  # another request was faster: this page is shown, and what the browser has from that one stays


def _signed_out(_app: Flask, **_: Any) -> None:
    session = _changeable()
    if session is not None:
        session.end(keep=("_flashes",))


def _protected(_app: Flask, **_: Any) -> None:
    """It may have signed out somebody whose cookie is used by another browser. It says so of visitors as well, and where it
    signs out nobody; and whom the app signed in by another id than Flask-Login's is not for it to sign out.
    """
    session = _changeable()
    if (
        session is None
        or session.core.stored is None
        or session.core.ending
        or session.named
        or "_user_id" in session
    ):
        return
    stored, rules = session.core.stored, session.manager.rules
    user_id = rules.fields(stored.fields).get("_user_id")
    if user_id is not None and stored.header.owner == rules.owner_hash(str(user_id)):
        session.end(keep=("_flashes",))


def _changeable() -> FlaskSession | None:
    session = current_session._get_current_object()  # type: ignore[attr-defined]  # werkzeug's LocalProxy
    return session if isinstance(session, FlaskSession) and not session.closed else None


def _undo(session: FlaskSession) -> None:
    """Nobody was signed in, though Flask-Login has written it down by now."""
    stored = session.core.stored
    before = session.manager.rules.fields({} if stored is None else stored.fields)
    for name in _FIELDS:
        if name in before:
            session[name] = before[name]
        else:
            session.pop(name, None)
    g.pop("_login_user", None)
