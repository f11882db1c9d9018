"""Flask: a SessionInterface, and the extension that installs it.

    sessions = ElastiCacheSessions(app)      # or ElastiCacheSessions().init_app(app)
    from flask import session                # the usual one

A request that does not touch `session` costs nothing; the first access reads it. What changed is stored after
the view, before the response goes out; `cycle_id`, `login` and `logout` take effect then, too, so that a
failing store turns the response into a 503 and leaves the cookie alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from .exceptions import ConfigurationError, MissingExtra
from .fields import Fields
from .hardening import CookieFacts, Finding, findings, misconfigured
from .index import SessionInfo
from .manager import SessionManager, rules_for
from .seen import SIGNED_OUT
from .settings import Settings

try:
    from flask import Flask
except ImportError as missing:
    raise MissingExtra("Flask is not installed: pip install 'elasticache-sessions[flask]'") from missing

from .flask_errors import answer_errors
from .flask_interface import ElastiCacheSessionInterface, lifetime
from .flask_owners import current, end_all, end_one, list_of, owner_of
from .flask_session import FlaskSession
from .flask_signals import announcing
from .flask_users import follow_flask_login

__all__ = ["ElastiCacheSessionInterface", "ElastiCacheSessions", "FlaskSession", "check"]

_EXTENSION: Final = "elasticache_sessions"
T = TypeVar("T")


def check(app: Flask) -> tuple[Finding, ...]:
    """What of `app`'s settings weakens its sessions, to be asked before it is deployed: docs/security.md explains each. Asks no
    store.
    """
    cookies = app.session_interface
    try:
        settings = Settings.from_mapping(app.config)
        if _EXTENSION not in app.extensions:
            _ = settings.endpoint  # which will be needed, unless the app passes a client object
    except ConfigurationError as error:
        return (misconfigured(error),)
    return findings(
        settings,
        CookieFacts(
            name=cookies.get_cookie_name(app),
            secure=bool(cookies.get_cookie_secure(app)),
            http_only=bool(cookies.get_cookie_httponly(app)),
            same_site=cookies.get_cookie_samesite(app) or None,
            domain=cookies.get_cookie_domain(app),
            path=cookies.get_cookie_path(app),
        ),
    )


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

        Where Flask-Login is installed, whom it signs in and out of `app` is signed in and out here: it needs no call of
        `login` and `logout`.

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
        app.extensions[_EXTENSION] = self
        answer_errors(app)
        follow_flask_login(app)

    def cycle_id(self) -> None:
        """Give this request's session a new id, same content. The old id ends. Do so whenever rights
        change.
        """
        current().cycle()

    def login(self, user_id: object) -> None:
        """The session is this user's from now on: a new id, same content, and the absolute timeout starts
        anew.

        What tells the app who is signed in, the app stores itself: `session["user_id"] = user.id`.

        Raises:
            TooManySessions: with ELASTICACHE_SESSIONS_ON_LIMIT = "refuse", where the user is signed in as often as
                MAX_SESSIONS_PER_USER allows. The session stays as it was. Not handled, it is answered with 403.
        """
        session = current()
        session.cycle(owner_of(user_id))
        session.named = True

    def logout(self) -> None:
        """End this request's session, for every copy of its cookie. What is put into `session` later begins a
        new one.
        """
        current().end()

    def apply(self, change: Callable[[Fields], T]) -> T:
        """Run `change(fields)` on the newest state, store it at once, and return what it returned.

        Exact under concurrency, for counters and the like: `change` runs again when another request was
        faster, so it should only compute.

        Raises:
            SessionEnded: the session was ended meanwhile; nothing was stored.
            OutcomeUnknown: nobody can tell whether it was stored.
            StoreUnavailable, EncodeError, ValueTooLarge
        """
        return current().apply(change)

    def for_user(self, user_id: object) -> list[SessionInfo]:
        """Where the user is signed in, for a page that lists it: this session first, else the last used first. One that signs in
        with this very request is listed from the next one on.

        Raises:
            IndexLost: the store has lost the list, and cannot be searched. Not handled, it is answered with 503.
            StoreUnavailable
        """
        return list_of(owner_of(user_id))

    def end(self, user_id: object, handle: str) -> bool:
        """Sign the user out where `handle` says, which the list tells. Returns whether there was one.

        This request's own is ended as `logout` does.
        """
        return end_one(owner_of(user_id), handle)

    def end_all(self, user_id: object, keep_current: bool = True, reason: str = SIGNED_OUT) -> int:
        """Sign the user out everywhere, or, as long as this request's session is theirs, everywhere else. Returns how many
        sessions were ended. `reason`: for the signals that tell of it.

        Raises:
            IndexLost: those that the store still lists were ended, but there may be more. Not handled, it is answered with 503.
            StoreUnavailable: some may live on. The response is a 503, whatever the view answers.
        """
        return end_all(owner_of(user_id), keep_current, reason)
