"""How one request's session asks the store: a failure costs its time once, and one task waits for the other."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.contrib.sessions.backends.base import UpdateError

from ..exceptions import OutcomeUnknown, SessionEnded, StoreUnavailable
from ..session import Rules
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

    @contextmanager
    def question(self, *, decisive: bool = False) -> Iterator[None]:
        """The block asks the store. `decisive`: whoever catches its failure must not answer as if it had happened.

        Raises:
            StoreUnavailable: also without asking, where it failed just now.
            SessionGone
        """
        started = time.monotonic()
        try:
            if self.failure is not None and (self._state.without or started < self._fails_until):
                raise self.failure  # a second question would take as long as the first
            yield
        except StoreUnavailable as error:
            if error is not self.failure:
                self.failure, self._fails_until = error, time.monotonic() + error.retry_after
            # Whoever catches that nobody knows the outcome reads the session again, and decides.
            if (decisive and not isinstance(error, OutcomeUnknown)) or _signs_in_or_out():
                self.refused = True
                self._fails_until = time.monotonic() + _UNDECIDED
                self._state.declare(True)  # so that the middleware saves, which fails, too
            raise
        except SessionEnded as error:
            raise SessionGone(str(error)) from error
        else:
            self.failure = None
        finally:
            self.seconds += time.monotonic() - started

    @contextmanager
    def reading(self, rules: Rules, *, or_without: bool) -> Iterator[None]:
        """The block reads the session. `or_without`: where the store fails, the request goes on with an empty one, unless it
        is about to sign somebody in or out.
        """
        try:
            yield
        except StoreUnavailable:
            if self.refused or not or_without:
                raise
            self._state.go_without(rules)

    def turn(self) -> asyncio.Lock:
        """One task of a request after the other: the first loads the session, and none changes it while another's change
        is on its way.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock


def _signs_in_or_out() -> bool:
    """Whether `django.contrib.auth` is about to sign somebody in or out, somewhere up the stack."""
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        if frame.f_code.co_name in _DECISIVE and frame.f_globals.get("__name__") == "django.contrib.auth":
            return True
    return False
