"""The object behind `flask.session`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from weakref import proxy

from flask import current_app, has_request_context, request
from flask.sessions import SessionMixin

from .exceptions import DecodeError, OutcomeUnknown, SessionEnded, StoreUnavailable, TooManySessions
from .fields import Fields
from .index import Origin
from .manager import SessionManager
from .reading import heard_by, load
from .session import Session

logger: Final = logging.getLogger("elasticache_sessions.flask")

# What Flask itself takes out with every page that shows it. To take out anything else may be to sign somebody out.
_BOOKKEEPING: Final = frozenset({"_flashes"})

T = TypeVar("T")


class FlaskSession(Fields, SessionMixin):
    """What `flask.session` is. A dict that loads itself on first access; safe to share by copied contexts."""

    # Set by Flask's request context since 3.1.3, and by every access that reads the session.
    accessed = False

    found = False
    """Whether the store had it when it was read."""
    lost = failed = closed = False
    """Whether it had ended meanwhile; whether the store failed when it was asked; whether the response is on its way."""
    failure: StoreUnavailable | None = None
    """Why it could not be read."""
    refused: StoreUnavailable | None = None
    """Why a sign-in, a sign-out or the like was refused: the response must not say that it happened."""
    signed_in: str | None = None
    """Who was signed in at once, as ON_LIMIT may refuse it. The browser must get the new id, whatever follows."""
    named = False
    """Whether the app said itself who signs in."""
    store_seconds = 0.0
    """How long this request has waited for the store, in seconds."""
    _opening = _assigned = _declared = False

    def __init__(
        self,
        manager: SessionManager,
        cookie_id: str | None,
        marked_permanent: bool,
        anonymous: bool = False,
        origin: Callable[[], Origin] = Origin,
    ) -> None:
        self.opened = True  # until the dict beneath is made
        super().__init__()
        self.manager = manager
        self._itself: Fields = proxy(self)  # for the core, which would else hold whoever holds it
        self.core = Session(fields=self._itself)
        self.cookie_id = cookie_id
        self.marked_permanent = marked_permanent
        self._anonymous = anonymous
        self._origin = origin
        self._lock = threading.RLock()
        self.opened = cookie_id is None
        if not self.opened:
            self._look_full()

    def _look_full(self) -> None:
        """C code that asks a dict for its size before it asks for its items (json) must not find it empty."""
        dict.__setitem__(self, "", None)

    @property
    def handle(self) -> str | None:
        """The session's public name, for logs and lists; None while it is not stored. Tells nobody its id."""
        self._load()
        return self.core.handle

    @property
    def new(self) -> bool:  # type: ignore[override]  # an attribute in Flask, which only reads it
        """Whether the store does not have this session yet."""
        self._load()
        return self.core.stored is None and not self.unavailable

    @property
    def unavailable(self) -> bool:
        """Whether the store is down, so that this request has to do without its session: with ON_OUTAGE = "anonymous"
        it looks empty, and nothing of it will be saved. Reads it, if that has not been done.
        """
        try:
            self._load()
        except StoreUnavailable:
            return True
        return self.failure is not None

    def fresh(self, seconds: float) -> bool:
        """Whether the user signed in less than so many seconds ago, so that what is delicate needs no password anew. No user is
        fresh whom Flask-Login has from its cookie, or takes for somebody on another device.
        """
        self._load()
        return self.get("_fresh") is not False and self.core.fresh(seconds, self.manager.rules)

    @property
    def modified(self) -> bool:
        """Whether this request changed the session, in place too. Set it to True to store it in any case.

        Assigning an equal value counts, as in Flask: the cookie is set again, though nothing has to be stored.
        """
        return self.opened and (self._declared or self._assigned or self.changed())

    @modified.setter
    def modified(self, value: bool) -> None:
        self._load()
        self._declared = self.core.forced = bool(value)
        self._assigned = self._assigned and bool(value)

    def _load(self) -> None:
        self.accessed = True
        if not self.opened:
            self.open()

    def open(self) -> None:
        """Read the session, once. One round trip.

        A log filter may look at the session while it is being read, in this very thread; it sees an empty one.
        """

        def held(stored: Mapping[str, bytes]) -> Fields:
            self._take(stored)
            self.on_unreadable = heard_by(self)
            return self._itself

        with self._lock:
            if self.opened or self._opening:
                return
            self._opening = True
            dict.clear(self)
            try:
                manager = self.manager
                found = self.ask(lambda: manager.run(load(self.cookie_id, manager.rules, held)))
                if found is not None:
                    self.core, self.found = found, True
                self.opened, self.failure = True, None
            except StoreUnavailable as error:
                self.failure = error
                if not self._anonymous:
                    raise
                self.opened = True  # for good, also if the store comes back before the response
            finally:
                self._opening = False
                if not self.opened:
                    self._look_full()

    def placed(self) -> Session:
        """What the manager is given where the session may get on its user's list: it says where the request comes from."""
        self.core.origin = self._origin()
        return self.core

    def lives(self) -> bool:
        """Whether the store still has it: asks again. One round trip."""
        return self.ask(lambda: self.manager.load(self.core.id)) is not None

    def _changing(self) -> None:
        self._assigned = True
        if self.closed:
            logger.warning(
                "session %s was changed after it was saved; the change is lost. "
                "Change it before the response is returned.",
                self.core.handle,
            )

    def give_up(self, error: DecodeError) -> None:
        self.core.give_up(error)
        self.found = False

    def ask(self, ask: Callable[[], T]) -> T:
        started = time.monotonic()
        try:
            return ask()
        except SessionEnded:
            self.lost = True
            raise
        except StoreUnavailable:
            self.failed = True
            raise
        finally:
            self.store_seconds += time.monotonic() - started

    # What may sign somebody out. `pop` and `del` as well, where an app keeps its user in a field.

    def clear(self) -> None:
        with self.decisive():
            super().clear()

    def pop(self, name: str, *default: Any) -> Any:
        if name in _BOOKKEEPING:
            return super().pop(name, *default)
        with self.decisive():
            return super().pop(name, *default)

    def popitem(self) -> tuple[str, Any]:
        with self.decisive():
            return super().popitem()

    def __delitem__(self, name: str) -> None:
        with self.decisive():
            super().__delitem__(name)

    @contextmanager
    def decisive(self) -> Iterator[None]:
        """Whoever catches the failure of the block must not answer as if it had happened. In no block without the session
        is anything done.
        """
        try:
            self._load()
            if self.failure is not None:
                raise self.failure
            yield
        except OutcomeUnknown:
            raise  # whoever catches it reads the session again, and decides
        except StoreUnavailable as error:
            self.refused = error
            raise

    @property
    def decides(self) -> bool:
        """Whether what is to be saved signs somebody in or out, or may."""
        core = self.core
        ends = core.ending or self.cleared or (core.stored is not None and not self)
        signs_in = core.cycling or core.owner is not None or self.signed_in is not None
        return ends or signs_in or bool(self.taken_out() - _BOOKKEEPING)

    # The extension's verbs.

    def cycle(self, owner: str | None = None) -> None:
        self.in_time()
        with self.decisive():
            if self.lost:
                raise SessionEnded(
                    f"session {self.core.handle} had ended; nobody can be signed in to it. Try again."
                )
            if owner is not None and owner == self.signed_in:
                return
            core = self.core
            before = core.cycling, core.owner, self._assigned
            self._changing()
            core.cycling = True
            if owner is None:
                return
            core.owner = owner
            if self.manager.rules.on_limit == "refuse":
                try:
                    self.ask(lambda: self.manager.save(self.placed()))
                except TooManySessions:
                    core.cycling, core.owner, self._assigned = before
                    raise
                self.signed_in = owner

    def end(self, keep: Collection[str] = ()) -> None:
        """`keep`: fields that the new session begins with."""
        self.in_time()
        with self.decisive():
            kept = {name: self[name] for name in keep if name in self}
            # Flask-Login is yet to delete its cookie, or the user would be back with the next request.
            if self.get("_remember") == "clear" or _is_remembered():
                kept["_remember"] = "clear"
        self.clear()
        self.core.ending, self.core.cycling, self.core.owner = True, False, None
        self.signed_in, self.named = None, False
        self.update(kept)

    def in_time(self) -> None:
        if self.closed:
            raise RuntimeError(
                "the session was saved already, and its cookie is on its way. Sign in or out, and change the session's id, "
                "before the response is returned, not while it is streamed."
            )

    def apply(self, change: Callable[[Fields], T]) -> T:
        if not self._anonymous:
            return self._apply(change)  # whoever catches its failure goes on without it
        with self.decisive():
            return self._apply(change)

    def _apply(self, change: Callable[[Fields], T]) -> T:
        self._load()
        known = self.core.id
        if self.core.ending:
            self.ask(lambda: self.manager.save(self.placed()))
        result = self.ask(lambda: self.manager.apply(self.placed(), change))
        self._declared = False
        if self.closed and self.core.id != known:
            logger.warning(
                "session %s began after the response was on its way, so its cookie was not sent. "
                "Call apply before the response is returned.",
                self.core.handle,
            )
        return result


def _is_remembered() -> bool:
    """Whether the browser has Flask-Login's cookie, which it deletes where `_remember` says so."""
    if not has_request_context() or not hasattr(current_app, "login_manager"):
        return False
    return current_app.config.get("REMEMBER_COOKIE_NAME", "remember_token") in request.cookies
