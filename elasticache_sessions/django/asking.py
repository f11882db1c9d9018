"""How one request's session asks the store: a failure costs its time once, and one task waits for the other."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AbstractContextManager
from typing import Final

from django.contrib.sessions.backends.base import UpdateError

from ..exceptions import OutcomeUnknown, SessionEnded, StoreUnavailable
from .state import State

# What may not seem to have happened when it failed, wherever in it the store was asked first.
_DECISIVE: Final = frozenset({"login", "alogin", "logout", "alogout"})
# Seconds for which they go on failing: for the rest of a request, but not for ever in an object that outlives one.
_UNDECIDED: Final = 30.0


class SessionGone(SessionEnded, UpdateError):
    """The session was ended or got another id since this request read it: the change was not stored."""


class Asking:
    """What the store answered to the questions of one request."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.failure: StoreUnavailable | None = None
        self.refused = False
        """Whether what failed must not seem to have happened: a sign-in, a sign-out or the like."""
        self.seconds = 0.0
        self._fails_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def question(self, *, decisive: bool = False) -> AbstractContextManager[None]:
        """The block asks the store. `decisive`: whoever catches its failure must not answer as if it had happened.

        Raises:
            StoreUnavailable: also without asking, where it failed just now.
            SessionGone
        """
        return _Question(self, decisive)

    def failure_of_just_now(self) -> StoreUnavailable | None:
        """What to fail with without asking: a second question would take as long as the first."""
        if self.failure is not None and (self._state.without or time.monotonic() < self._fails_until):
            return self.failure
        return None

    def failed(self, error: StoreUnavailable, decisive: bool) -> None:
        """A question did, or would have."""
        if error is not self.failure:
            self.failure, self._fails_until = error, time.monotonic() + error.retry_after
        # Whoever catches that nobody knows the outcome reads the session again, and decides.
        if (decisive and not isinstance(error, OutcomeUnknown)) or _signs_in_or_out():
            self.refused = True
            self._fails_until = time.monotonic() + _UNDECIDED
            self._state.declare(True)  # so that the middleware saves, which fails, too

    def turn(self) -> asyncio.Lock:
        """One task of a request after the other: the first loads the session, and none changes it while another's change
        is on its way.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock


class _Question(AbstractContextManager[None]):
    """A class, as each request has some of these."""

    __slots__ = ("_asking", "_decisive", "_started")

    def __init__(self, asking: Asking, decisive: bool) -> None:
        self._asking, self._decisive, self._started = asking, decisive, time.monotonic()

    def __enter__(self) -> None:
        if (error := self._asking.failure_of_just_now()) is not None:
            self._asking.failed(error, self._decisive)
            raise error

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        asking = self._asking
        asking.seconds += time.monotonic() - self._started
        if error is None:
            asking.failure = None
        elif isinstance(error, StoreUnavailable):
            asking.failed(error, self._decisive)
        elif isinstance(error, SessionEnded):
            raise SessionGone(str(error)) from error


def _signs_in_or_out() -> bool:
    """Whether `django.contrib.auth` is about to sign somebody in or out, somewhere up the stack."""
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        if frame.f_code.co_name in _DECISIVE and frame.f_globals.get("__name__") == "django.contrib.auth":
            return True
    return False
