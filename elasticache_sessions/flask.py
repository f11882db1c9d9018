"""Flask: a SessionInterface, and the extension that installs it.

    sessions = ElastiCacheSessions(app)      # or ElastiCacheSessions().init_app(app)
    from flask import session                # the usual one

A request that does not touch `session` costs nothing; the first access reads it. What changed is stored after
the view, before the response goes out; `cycle_id`, `login` and `logout` take effect then, too, so that a
failing store turns the response into a 503 and leaves the cookie alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any, Final, TypeVar

from .exceptions import ConfigurationError, MissingExtra, SessionEnded, StoreUnavailable
from .fields import Fields
from .manager import SessionManager, rules_for
from .session import as_id
from .settings import Settings

try:
    from flask import Flask, Request, Response, session as current_session
    from flask.sessions import SessionInterface, SessionMixin
    from werkzeug.exceptions import InternalServerError
except ImportError as missing:
    raise MissingExtra("Flask is not installed: pip install 'elasticache-sessions[flask]'") from missing

from .flask_outage import (
    answer_without,
    keep_from_caches,
    rewrite,
    says_what_did_not_happen,
    unavailable,
    unavailable_or,
)
from .flask_session import FlaskSession, logger
from .flask_signals import announcing

# Follows the id in the cookie of a permanent session that Flask is to refresh with each request, so that a
# request that does not touch the session need not ask the store whether it is one.
_PERMANENT_MARK: Final = ".p"

__all__ = ["ElastiCacheSessionInterface", "ElastiCacheSessions", "FlaskSession"]

T = TypeVar("T")


class ElastiCacheSessionInterface(SessionInterface):
    """Opens and saves `FlaskSession`s with a `SessionManager`."""

    def __init__(self, manager: SessionManager, fixed_idle_timeout: bool, anonymous: bool = False) -> None:
        self.manager = manager
        self._fixed_idle_timeout = fixed_idle_timeout
        self._anonymous = anonymous

    def open_session(self, app: Flask, request: Request) -> FlaskSession:
        """Asks the store nothing; the session does when it is touched."""
        self._follow_lifetime(app)
        for value in request.cookies.getlist(self.get_cookie_name(app)):
            session_id = as_id(value.removesuffix(_PERMANENT_MARK))
            if session_id is not None:
                return FlaskSession(self.manager, session_id, session_id != value, self._anonymous)
        return FlaskSession(self.manager, None, False, self._anonymous)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Stores what changed, and sets, refreshes or deletes the cookie as Flask's own interface does.

        Raises:
            EncodeError, ValueTooLarge: a value that cannot be stored; the stored session stays as it was.
        """
        if not isinstance(session, FlaskSession) or session.closed:
            return  # Flask saves again after an error here
        accessed = session.accessed
        if accessed:
            response.vary.add("Cookie")
        try:
            if (error := session.refused or session.failure) is not None:
                answer_without(app, session, error, response)
            elif session.opened:
                self._store(app, session, response)
            elif session.marked_permanent and app.config["SESSION_REFRESH_EACH_REQUEST"]:
                self._refresh(app, session, response)
        finally:
            session.closed, session.accessed = True, accessed

    def _store(self, app: Flask, session: FlaskSession, response: Response) -> None:
        core, modified, decides = session.core, session.modified, session.decides
        known, session.closed = core.stored, True
        if session.lost:
            return
        try:
            session.ask(lambda: self.manager.save(core))
        except SessionEnded as ended:
            logger.warning("%s; its changes are dropped", ended)
            return
        except StoreUnavailable as error:
            if self._anonymous and not (decides or says_what_did_not_happen(modified)):
                logger.warning("a session could not be stored: %s; its changes are dropped", error)
                keep_from_caches(response)
            else:
                rewrite(app, response, error)
            return
        if core.id is None:
            if modified or session.found:
                self._delete_cookie(app, response)
        elif core.stored is not known:
            self._set_cookie(app, session, core.id, response)
        else:
            self._refresh(app, session, response)

    def _refresh(self, app: Flask, session: FlaskSession, response: Response) -> None:
        """Set the cookie, where Flask would, though there was nothing to store."""
        core = session.core
        try:
            if session.failed:
                return  # a second question would take as long as the first
            if not session.opened:
                session.open()
                if session.failure is not None:
                    raise session.failure
                core = session.core
                wanted = core.id is not None and self.should_set_cookie(app, session)
            elif core.id != session.cookie_id:
                wanted = True  # `apply` has created it
            else:
                # Since it was read, another request may have cycled the id; then its cookie is the one to keep.
                wanted = self.should_set_cookie(app, session) and session.lives()
        except StoreUnavailable as error:
            logger.warning("a session's cookie was not refreshed: %s", error)
            return
        if wanted and core.id is not None:
            self._set_cookie(app, session, core.id, response)

    def _set_cookie(self, app: Flask, session: FlaskSession, session_id: str, response: Response) -> None:
        refreshed = session.permanent and app.config["SESSION_REFRESH_EACH_REQUEST"]
        response.set_cookie(
            self.get_cookie_name(app),
            session_id + _PERMANENT_MARK if refreshed else session_id,
            expires=self.get_expiration_time(app, session),
            **self._cookie_options(app),
        )
        response.vary.add("Cookie")

    def _delete_cookie(self, app: Flask, response: Response) -> None:
        response.delete_cookie(self.get_cookie_name(app), **self._cookie_options(app))
        response.vary.add("Cookie")

    def _cookie_options(self, app: Flask) -> dict[str, Any]:
        return {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "httponly": self.get_cookie_httponly(app),
            "samesite": self.get_cookie_samesite(app),
            "partitioned": self.get_cookie_partitioned(app),
        }

    def _follow_lifetime(self, app: Flask) -> None:
        """PERMANENT_SESSION_LIFETIME may be changed while the app runs; every other setting is read once."""
        if self._fixed_idle_timeout:
            return
        lifetime = _lifetime(app)
        if lifetime != self.manager.rules.idle_timeout:
            self.manager.rules = replace(self.manager.rules, idle_timeout=lifetime)


def _lifetime(app: Flask) -> int:
    return ceil(app.permanent_session_lifetime.total_seconds())


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
        rules = rules_for(settings, idle_timeout=_lifetime(app))
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
