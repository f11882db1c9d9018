"""The sessions of a user, as the app asks for them: in a request, which may be one of them, or outside of any."""

from __future__ import annotations

from typing import Final

from flask import current_app, has_request_context, session as current_session

from .exceptions import ConfigurationError
from .flask_interface import ElastiCacheSessionInterface
from .flask_session import FlaskSession
from .index import SessionInfo
from .manager import SessionManager
from .session import Session

_NOT_OURS: Final = (
    "this app's sessions are not kept by ElastiCacheSessions. Call ElastiCacheSessions(app), and set "
    "app.session_interface nowhere else."
)


def current() -> FlaskSession:
    """This request's session."""
    session = current_session._get_current_object()  # type: ignore[attr-defined]  # werkzeug's LocalProxy
    if not isinstance(session, FlaskSession):
        raise ConfigurationError(_NOT_OURS)
    return session


def owner_of(user_id: object) -> str:
    """A user's id as the core knows it."""
    if user_id is None or user_id == "":
        raise ValueError(
            "the id of the user is needed, and there is none. Log in users only once they have one."
        )
    return str(user_id)


def list_of(owner: str) -> list[SessionInfo]:
    if (session := _asking()) is None:
        return _manager().for_user(owner)
    here = _stored(session)
    return session.ask(lambda: session.manager.for_user(owner, here))


def end_one(owner: str, handle: str) -> bool:
    if (session := _asking()) is None:
        return _manager().end_of_user(owner, handle)
    with session.decisive():
        if session.core.handle == handle and _is_of(session, owner):
            session.end()
            return True
        return session.ask(lambda: session.manager.end_of_user(owner, handle))


def end_all(owner: str, keep_current: bool, reason: str) -> int:
    """Ends the others before the request's own, so that after a failure who asked is still there to ask again."""
    if (session := _asking()) is None:
        return _manager().end_all(owner, reason=reason)
    with session.decisive():
        ends_itself = not keep_current and _is_of(session, owner)
        if ends_itself:
            session.in_time()
        here = _stored(session)
        ended = session.ask(lambda: session.manager.end_all(owner, here, reason))
        if ends_itself:
            session.end()
        return ended + ends_itself


def _asking() -> FlaskSession | None:
    """The request's session; None outside of any request."""
    return current() if has_request_context() else None


def _manager() -> SessionManager:
    interface = current_app.session_interface
    if not isinstance(interface, ElastiCacheSessionInterface):
        raise ConfigurationError(_NOT_OURS)
    return interface.manager


def _stored(session: FlaskSession) -> Session | None:
    """The request's session as the store has it. Reads it, if that has not been done."""
    if session.unavailable and session.failure is not None:
        raise session.failure
    return None if session.core.stored is None else session.placed()


def _is_of(session: FlaskSession, owner: str) -> bool:
    """Whether it is that user's, and goes on being so after this request."""
    stored = None if session.core.ending else session.core.stored
    return stored is not None and stored.header.owner == session.manager.rules.owner_hash(owner)
