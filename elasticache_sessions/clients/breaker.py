"""Circuit breakers: a node that does not answer is left alone for a while, so that nobody waits for it in vain."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from math import ceil
from typing import Final

from ..exceptions import StoreUnavailable
from ..limit import Timeouts
from ..session import logger

# Failures in a row after which a node is left alone, where nobody says another number.
FAILURES: Final = 5
# Seconds until somebody may try again: the first time, and at most. Doubled each time; a quarter more or less, so that the
# instances of a fleet do not come back all at once.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 2.0
_JITTER: Final = 0.25
FAIL_AT_ONCE: Final = "requests that need it fail at once"


class LeftAlone(StoreUnavailable):
    """A breaker says so, in the place of its node, which was not asked."""


class Breaker:
    """One node's, for threads and tasks. A context manager around each question to it.

    After so many failures in a row it answers in the node's place, at once, with StoreUnavailable. After a pause it lets one
    question through, to see; when that one fails as well, after a longer pause another.

    A failure is what `StoreUnavailable.silent` says is one. Whatever the node answers shows that it is there, errors among
    it: a primary that has become a replica refuses every question on each connection that it had, and must not be left
    alone for each.
    """

    def __init__(
        self,
        node: str,
        longest: float,
        clock: Callable[[], float] = time.monotonic,
        failures: int = FAILURES,
        meanwhile: str = FAIL_AT_ONCE,
    ) -> None:
        """`longest`: the seconds that a question may take; `failures`: after how many the node is left alone; `meanwhile`:
        what the log says of that.
        """
        self._meanwhile = meanwhile
        self._node, self._longest, self._clock, self._most = node, longest, clock, failures
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._trying = False
        self._next_try = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the node is left alone, but for who sees whether it is back."""
        return self._failures >= self._most

    def __enter__(self) -> None:
        if not self.is_open:
            return
        with self._lock:
            left = self._next_try - self._clock()
            if self._failures < self._most:
                return
            if left > 0:
                raise LeftAlone(
                    f"{self._node} did not answer {self._most} times in a row and is left alone for a moment. See whether it is "
                    "up and whether this machine may connect to it.",
                    sent=False,
                    retry_after=ceil(left),
                )
            self._trying = True
            # Who tries may be killed before there is an answer; then it is somebody else's turn.
            self._next_try = self._clock() + self._longest

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        silent: bool | None = False
        if isinstance(error, StoreUnavailable):
            silent = error.silent
        elif error is not None and not isinstance(error, Exception):
            return  # somebody gave up, or was killed
        if silent:
            self._failed()
        elif silent is None:
            self._learned_nothing()
        elif self._failures:
            self._answered()

    def _answered(self) -> None:
        with self._lock:
            was_open = self.is_open
            self._failures, self._pause, self._trying = 0, FIRST_PAUSE, False
        if was_open:
            logger.warning("%s answers again", self._node)

    def _learned_nothing(self) -> None:
        with self._lock:
            if self._trying:
                self._next_try, self._trying = self._clock(), False  # the next question tries

    def _failed(self) -> None:
        with self._lock:
            opens = self._failures + 1 == self._most
            if opens or (self.is_open and self._trying):
                pause = self._pause * random.uniform(1 - _JITTER, 1 + _JITTER)
                self._next_try, self._trying = self._clock() + pause, False
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._failures = min(self._most, self._failures + 1)
        if opens:
            logger.error("%s does not answer; until it does, %s", self._node, self._meanwhile)


class Breakers:
    """One for each node, by name; a forked child begins anew."""

    def __init__(self, timeouts: Timeouts, failures: int = FAILURES, meanwhile: str = FAIL_AT_ONCE) -> None:
        self._longest, self._failures, self._meanwhile = sum(timeouts), failures, meanwhile
        self._pid = os.getpid()
        self._of: dict[str, Breaker] = {}

    def of(self, node: str) -> Breaker:
        if self._pid != (pid := os.getpid()):
            self._pid, self._of = pid, {}
        found = self._of.get(node)
        return found or self._of.setdefault(
            node, Breaker(node, self._longest, failures=self._failures, meanwhile=self._meanwhile)
        )
