"""What `request.session` knows of its key and its content: asks the store when it is first touched, and may go without it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from ..exceptions import StoreUnavailable
from ..fields import Fields
from ..index import Origin
from ..session import Rules, SessionId
from ..settle import Flow
from .asking import Asking
from .content import BOOKKEEPING, OWNER
from .managers import Managers, managers
from .state import State

logger: Final = logging.getLogger("elasticache_sessions.django")

# What a Flask app that shares the session puts behind the id (a permanent session, see `flask`).
_FLASKS_MARK: Final = ".p"

T = TypeVar("T")


class LazySession(SessionBase):
    """The content, and where it comes from. `SessionStore` adds Django's verbs."""

    managers: Callable[[], Managers] = staticmethod(managers)
    """Where its sessions are kept: what the settings say. A subclass may keep its own elsewhere."""

    tolerant = False
    """Whether whoever makes the response knows what may be said where there was no session: our middleware does."""

    def __init__(self, session_key: str | None = None) -> None:
        self._state = State()
        self._asking = Asking(self._state)
        super().__init__(session_key)

    @property
    def failure(self) -> StoreUnavailable | None:
        """What the store failed with when it was last asked: nothing is known of the session then."""
        return self._asking.failure

    @property
    def unavailable(self) -> bool:
        """Whether the store is down, so that this request has to do without its session: with ON_OUTAGE = "anonymous"
        it looks empty, and nothing of it will be saved. Reads it, if that has not been done.
        """
        try:
            self._get_session()
        except StoreUnavailable:
            return True
        return self._state.without

    @property
    def anonymous(self) -> bool:
        """Whether this request may go on without its session, if it must."""
        return self.tolerant and self.managers().anonymous

    @property
    def went_without(self) -> bool:
        """Whether it did."""
        return self._state.without

    @property
    def decides(self) -> bool:
        """Whether this request signs somebody in or out, or may, so that a failure must not look like success."""
        return self._asking.refused or self._state.decides

    @property
    def moved_to(self) -> str | None:
        """The key that this request has given it already, whatever became of the rest."""
        return self._state.moved_to

    @property
    def store_seconds(self) -> float:
        """How long this object has waited for the store, in seconds."""
        return self._asking.seconds

    @property
    def handle(self) -> str | None:
        """The session's public name, for logs and lists; None while it is not stored. Tells nobody its id."""
        self._get_session()
        return None if self._state.core is None else self._state.core.handle

    @property
    def owner(self) -> str | None:
        """The user who is signed in with it, as the store knows users; None: nobody."""
        user = self._get_session().get(OWNER)
        return None if user is None else str(user)

    def comes_with(self, request: HttpRequest) -> None:
        """It is that request's: for the list of its user's sessions, which says where each was signed in from."""
        meta = request.META
        self._state.origin = lambda: Origin(meta.get("HTTP_USER_AGENT", ""), meta.get("REMOTE_ADDR", ""))

    # Asking the store.

    @property
    def _rules(self) -> Rules:
        try:
            return self.managers().rules
        except StoreUnavailable as error:  # AWS did not say where the store is
            with self._asking.question():
                raise error

    def _run(self, flow: Flow[T], *, decisive: bool = False) -> T:
        with self._asking.question(decisive=decisive):
            return self.managers().sync.run(flow)

    async def _arun(self, flow: Flow[T], *, decisive: bool = False) -> T:
        async with self._asking.turn():
            with self._asking.question(decisive=decisive):
                return await self.managers().asynchronous.run(flow)

    # The key and the content, where Django's own methods look for them.

    def _get_session_key(self) -> str | None:
        return None if self._state.key is None else str(self._state.key)

    def _set_session_key(self, value: object) -> None:
        key = value.removesuffix(_FLASKS_MARK) if isinstance(value, str) else None
        valid = key is not None and self._validate_session_key(key)  # type: ignore[attr-defined]  # the stubs forgot it
        self._state.key = SessionId(key) if key is not None and valid else None

    session_key = property(_get_session_key)
    _session_key = property(_get_session_key, _set_session_key)

    @property
    def _session_cache(self) -> Fields:
        if self._state.core is None:
            raise AttributeError("the session has not been read yet")
        return self._state.core.fields

    @_session_cache.setter
    def _session_cache(self, content: dict[str, Any]) -> None:
        fields = (self._state.core or self._state.begin_unread(self._rules)).fields
        if content is not fields:
            fields.clear()
            fields.update(content)

    @_session_cache.deleter
    def _session_cache(self) -> None:
        """Read it anew when it is next touched."""
        if self._state.core is None:
            raise AttributeError("the session has not been read yet")
        self._state.core, self._state.unread = None, False

    def _get_session(self, no_load: bool = False, decisive: bool = False) -> Fields:
        self.accessed, self._state.just_read = True, False
        if self._is_wanting(decisive):
            rules = self._rules
            if self._state.key is None or no_load:
                self._state.begin_unread(rules)
            else:
                with _Reading(self, rules):
                    self._run(self._state.read(rules), decisive=decisive)
        return self._session_cache

    async def _aget_session(self, no_load: bool = False, decisive: bool = False) -> Fields:
        self.accessed = True
        async with self._asking.turn():
            if self._is_wanting(decisive) and self._state.key is not None and not no_load:
                rules = self._rules
                with _Reading(self, rules), self._asking.question(decisive=decisive):
                    await self.managers().asynchronous.run(self._state.read(rules))
            return self._get_session(no_load)

    def _is_wanting(self, decisive: bool) -> bool:
        """Whether the store must be asked. What decides (see `decides`) is not done to a session that went without it."""
        return self._state.core is None or (decisive and self._state.without)

    def _goes_without(self, rules: Rules) -> bool:
        """The store has just failed to give it. Whether the request goes on with an empty one, as it may unless it is about to
        sign somebody in or out.
        """
        goes = self.anonymous and not self._asking.refused
        if goes:
            self._state.go_without(rules)
        return goes

    _session = property(_get_session)

    # Taking something out may be to sign somebody out by hand.

    def __delitem__(self, key: str) -> None:
        self._get_session(decisive=key not in BOOKKEEPING)
        super().__delitem__(key)

    def pop(self, key: str, *default: Any, **named: Any) -> Any:
        self._get_session(decisive=key not in BOOKKEEPING)
        return super().pop(key, *default, **named)

    async def apop(self, key: str, *default: Any, **named: Any) -> Any:
        await self._aget_session(decisive=key not in BOOKKEEPING)
        return await super().apop(key, *default, **named)

    @property
    def modified(self) -> bool:
        """Whether this request changed the session, in place too. Setting it to False takes what is there now as
        unmodified.
        """
        return self._state.is_modified()

    @modified.setter
    def modified(self, value: bool) -> None:
        self._state.declare(bool(value))

    def is_empty(self) -> bool:
        """Whether there is neither a key nor content, so that the cookie can be deleted.

        Not while the store fails, and not for a session that ended, or got another id, elsewhere just now: the cookie
        that the browser holds by then may be a newer one. (Under SESSION_SAVE_EVERY_REQUEST Django's own middleware would
        begin a new session instead; it is better to delete the cookie. Ours leaves it alone.)
        """
        newer = self._state.ended and not self._state.flushed and not settings.SESSION_SAVE_EVERY_REQUEST
        return self.failure is None and not newer and self.is_blank

    @property
    def is_blank(self) -> bool:
        """Whether there is neither a key nor content."""
        return bool(super().is_empty())

    @property
    def ended_elsewhere(self) -> bool:
        """Whether this request found that the session had ended, or got another id. It is nobody's business to delete
        the cookie then, not even for a sign-out.
        """
        return self._state.ended

    def clear(self) -> None:
        """Forget the content; the session stays, under its key. Asks the store nothing."""
        self._state.clear(self._rules)
        self.accessed = True


class _Reading(AbstractContextManager[None]):
    """The block reads a session, which may turn out to go without it. A class, as each request has some of these."""

    __slots__ = ("_rules", "_session")

    def __init__(self, session: LazySession, rules: Rules) -> None:
        self._session, self._rules = session, rules

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return isinstance(error, StoreUnavailable) and self._session._goes_without(self._rules)
