"""Opens and saves Flask's sessions."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any, Final

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.sansio.http import parse_cookie

from .exceptions import SessionEnded, StoreUnavailable
from .flask_outage import answer_without, keep_from_caches, rewrite, says_what_did_not_happen
from .flask_session import FlaskSession, logger
from .index import Origin
from .manager import SessionManager
from .session import as_id

# Follows the id in the cookie of a permanent session that Flask is to refresh with each request, so that a
# request that does not touch the session need not ask the store whether it is one.
_PERMANENT_MARK: Final = ".p"


class ElastiCacheSessionInterface(SessionInterface):
    """Opens and saves `FlaskSession`s with a `SessionManager`."""

    def __init__(self, manager: SessionManager, fixed_idle_timeout: bool, anonymous: bool = False) -> None:
        self.manager = manager
        self._fixed_idle_timeout = fixed_idle_timeout
        self._anonymous = anonymous

    def open_session(self, app: Flask, request: Request) -> FlaskSession:
        """Asks the store nothing; the session does when it is touched."""
        self._follow_lifetime(app)

        def origin() -> Origin:
            return Origin(request.headers.get("User-Agent", ""), request.remote_addr or "")

        # Not of `request.cookies`, which looks through all headers before.
        cookies = parse_cookie(request.environ.get("HTTP_COOKIE"))
        for value in cookies.getlist(self.get_cookie_name(app)):
            session_id = as_id(value.removesuffix(_PERMANENT_MARK))
            if session_id is not None:
                return FlaskSession(self.manager, session_id, session_id != value, self._anonymous, origin)
        return FlaskSession(self.manager, None, False, self._anonymous, origin)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Stores what changed, and sets, refreshes or deletes the cookie as Flask's own interface does.

        Raises:
            EncodeError, ValueTooLarge: a value that cannot be stored; the stored session stays as it was.
        """
        if not isinstance(session, FlaskSession) or session.closed:
            return  # Flask saves again after an error here
        accessed = session.accessed
        if accessed:
            _vary_on_cookie(response)
        try:
            if (error := session.refused or session.failure) is not None:
                answer_without(app, session, error, response)
                self._hand_over(app, session, response)
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
            if modified or decides:
                session.ask(lambda: self.manager.save(session.placed()))
        except SessionEnded as ended:
            logger.warning("%s; its changes are dropped", ended)
            return
        except StoreUnavailable as error:
            if self._anonymous and not (decides or says_what_did_not_happen(modified)):
                logger.warning("a session could not be stored: %s; its changes are dropped", error)
                keep_from_caches(response)
            else:
                rewrite(app, response, error)
            self._hand_over(app, session, response)
            return
        if core.id is None:
            if modified or session.found:
                self._delete_cookie(app, response)
        elif core.stored is not known:
            self._set_cookie(app, session, core.id, response)
        else:
            self._refresh(app, session, response)

    def _hand_over(self, app: Flask, session: FlaskSession, response: Response) -> None:
        """Nothing more could be stored, but the id that the browser has is dead, as its user was signed in at once."""
        if session.signed_in is not None and session.core.id is not None:
            self._set_cookie(app, session, session.core.id, response)

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
        _vary_on_cookie(response)

    def _delete_cookie(self, app: Flask, response: Response) -> None:
        response.delete_cookie(self.get_cookie_name(app), **self._cookie_options(app))
        _vary_on_cookie(response)

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
        idle = lifetime(app)
        if idle != self.manager.rules.idle_timeout:
            self.manager.rules = replace(self.manager.rules, idle_timeout=idle)


def lifetime(app: Flask) -> int:
    return ceil(app.permanent_session_lifetime.total_seconds())


def _vary_on_cookie(response: Response) -> None:
    vary = response.headers.get("Vary")
    if vary is None:
        response.headers["Vary"] = "Cookie"
    elif vary != "Cookie":  # else there is nothing to be taken apart
        response.vary.add("Cookie")
