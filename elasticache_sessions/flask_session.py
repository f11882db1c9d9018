"""The object behind `flask.session`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from flask.sessions import SessionMixin

from .exceptions import DecodeError, SessionEnded, StoreUnavailable
from .fields import Fields
from .manager import SessionManager
from .session import Session

logger: Final = logging.getLogger("elasticache_sessions.flask")

T = TypeVar("T")


class FlaskSession(Fields, SessionMixin):
    """What `flask.session` is. A dict that loads itself on first access; safe to share by copied contexts."""

    # Set by Flask's request context since 3.1.3, and by every access that reads the session.
    accessed = False

    def __init__(self, manager: SessionManager, cookie_id: str | None, marked_permanent: bool) -> None:
        self.opened = True  # until the dict beneath is made
        super().__init__()
        self.manager = manager
        self.core = Session(fields=self)
        self.cookie_id = cookie_id
        self.marked_permanent = marked_permanent
        self._lock = threading.RLock()
        self._opening = False
        self._assigned = self._declared = False
        self.found = False
        """Whether the store had it when it was read."""
        self.lost = self.failed = self.closed = False
        """Whether it had ended meanwhile; whether the store failed to give it; whether the response is on its way."""
        self.store_seconds = 0.0
        """How long this request has waited for the store, in seconds."""
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
        return self.core.stored is None

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
        with self._lock:
            if self.opened or self._opening:
                return
            self._opening = True
            self._take({})
            try:
                found = self.ask(lambda: self.manager.load(self.cookie_id))
                if found is not None:
                    self.core, self.found = found, True
                    self._take(found.stored.fields if found.stored else {})
                    self.on_unreadable, found.fields = self._unreadable, self
                self.opened = True
            finally:
                self._opening = False
                if not self.opened:
                    self._look_full()

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

    def _unreadable(self, error: DecodeError) -> None:
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

    # The extension's verbs.

    def cycle(self, owner: str | None = None) -> None:
        self._in_time()
        self._load()
        if self.lost:
            raise SessionEnded(
                f"session {self.core.handle} had ended; nobody can be signed in to it. Try again."
            )
        self._changing()
        self.core.cycling = True
        if owner is not None:
            self.core.owner = owner

    def end(self) -> None:
        self._in_time()
        self.clear()
        self.core.ending, self.core.cycling, self.core.owner = True, False, None

    def _in_time(self) -> None:
        if self.closed:
            raise RuntimeError(
                "the session was saved already, and its cookie is on its way. Sign in or out, and change the session's id, "
                "before the response is returned, not while it is streamed."
            )

    def apply(self, change: Callable[[Fields], T]) -> T:
        self._load()
        known = self.core.id
        if self.core.ending:
            self.ask(lambda: self.manager.save(self.core))
        result = self.ask(lambda: self.manager.apply(self.core, change))
        self._declared = False
        if self.closed and self.core.id != known:
            logger.warning(
                "session %s began after the response was on its way, so its cookie was not sent. "
                "Call apply before the response is returned.",
                self.core.handle,
            )
        return result
