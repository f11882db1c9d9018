"""Flask: a SessionInterface, and the extension that installs it.

    sessions = ElastiCacheSessions(app)      # or ElastiCacheSessions().init_app(app)
    from flask import session                # the usual one

A request that does not touch `session` costs nothing; the first access reads it. What changed is stored after
the view, before the response goes out; `cycle_id`, `login` and `logout` take effect then, too, so that a
failing store turns the response into a 503 and leaves the cookie alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .exceptions import ConfigurationError, MissingExtra, StoreUnavailable
from .fields import Fields
from .manager import SessionManager, rules_for
from .settings import Settings

try:
    from flask import Flask, session as current_session
    from werkzeug.exceptions import InternalServerError
except ImportError as missing:
    raise MissingExtra("Flask is not installed: pip install 'elasticache-sessions[flask]'") from missing

from .flask_interface import ElastiCacheSessionInterface, lifetime
from .flask_outage import unavailable, unavailable_or
from .flask_session import FlaskSession
from .flask_signals import announcing

__all__ = ["ElastiCacheSessionInterface", "ElastiCacheSessions", "FlaskSession"]

T = TypeVar("T")


class ElastiCacheSessions:
    """The Flask extension. Settings come from `app.config["ELASTICACHE_SESSIONS_*"]`, else from the
    environment.

    `client`: a redis-py or valkey-py client object to use instead of ELASTICACHE_SESSIONS_URL.
    """

    def __init__(self, app: Flask | None = None, *, client: Any = None) -> None:
        self._given_client = client
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Keep `app`'s sessions in the store from now on. Connects on first use.

        While the store is down, requests that need it get a 503 with Retry-After; register an error handler for
        `StoreUnavailable` to answer with a page of your own. With ELASTICACHE_SESSIONS_ON_OUTAGE = "anonymous" they go on
        with an empty session instead (`session.unavailable`), and get a 503 only where they sign in or out.

        Raises:
            ConfigurationError: says what to set.
        """
        settings = Settings.from_mapping(app.config)
        rules = rules_for(settings, idle_timeout=lifetime(app))
        manager = SessionManager.connect(settings, client=self._given_client, rules=rules)
        manager.on_event(announcing(app))
        app.session_interface = ElastiCacheSessionInterface(
            manager, settings.idle_timeout is not None, settings.on_outage == "anonymous"
        )
        app.extensions["elasticache_sessions"] = self
        if StoreUnavailable not in app.error_handler_spec[None][None]:
            app.register_error_handler(StoreUnavailable, unavailable)
        # What touches the session after the view (Flask-Login does) fails where only a handler for any error hears of it.
        if InternalServerError not in app.error_handler_spec[None][500]:
            app.register_error_handler(InternalServerError, unavailable_or)

    def cycle_id(self) -> None:
        """Give this request's session a new id, same content. The old id ends. Do so whenever rights
        change.
        """
        _current().cycle()

    def login(self, user_id: object) -> None:
        """The session is this user's from now on: a new id, same content, and the absolute timeout starts
        anew.

        What tells the app who is signed in, the app stores itself: `session["user_id"] = user.id`.
        """
        if user_id is None or user_id == "":
            raise ValueError(
                "login needs the id of the user, and got none. Log in users only once they have one."
            )
        _current().cycle(str(user_id))

    def logout(self) -> None:
        """End this request's session, for every copy of its cookie. What is put into `session` later begins a
        new one.
        """
        _current().end()

    def apply(self, change: Callable[[Fields], T]) -> T:
        """Run `change(fields)` on the newest state, store it at once, and return what it returned.

        Exact under concurrency, for counters and the like: `change` runs again when another request was
        faster, so it should only compute.

        Raises:
            SessionEnded: the session was ended meanwhile; nothing was stored.
            OutcomeUnknown: nobody can tell whether it was stored.
            StoreUnavailable, EncodeError, ValueTooLarge
        """
        return _current().apply(change)


def _current() -> FlaskSession:
    session = current_session._get_current_object()  # type: ignore[attr-defined]  # werkzeug's LocalProxy
    if not isinstance(session, FlaskSession):
        raise ConfigurationError(
            "this app's sessions are not kept by ElastiCacheSessions. Call ElastiCacheSessions(app), and set "
            "app.session_interface nowhere else."
        )
    return session
