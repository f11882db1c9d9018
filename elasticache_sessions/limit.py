"""How long an operation may still wait for the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from typing import Final, NamedTuple

from .exceptions import StoreUnavailable


class TimeIsUp(TimeoutError):
    """The limit was over before anything was waited for, which says nothing of whom it would have been."""


class TimeLimit:
    """What is left of TIMEOUT, for one operation, and of CONNECT_TIMEOUT on top of it. All in seconds.

    Entered around each wait for the store: only there does time run. It is found by `running`, since drivers stand
    between whoever sets it and the sockets that keep it.
    """

    __slots__ = ("_connecting", "_connects", "_end", "_left", "_timeout", "_token")

    def __init__(self, timeout: float, connect_timeout: float) -> None:
        self._timeout = self._left = timeout
        self._connecting, self._connects = connect_timeout, False
        self._end = 0.0
        self._token: Token[TimeLimit] | None = None

    def __enter__(self) -> None:
        self._end = time.monotonic() + self._left
        self._token = _running.set(self)

    def __exit__(self, *failure: object) -> None:
        self._left = self._end - time.monotonic()
        if self._token is not None:
            _running.reset(self._token)

    def left(self) -> float:
        """0.0 when it is over."""
        return max(0.0, self._end - time.monotonic())

    def need(self) -> float:
        """As `left`, for whoever is about to wait. Raises TimeIsUp when it is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeIsUp("no time was left")
        return left

    def renew(self) -> None:
        """All of TIMEOUT again: the store answers, and what keeps the operation waiting is that others were faster."""
        self._end = time.monotonic() + self._timeout

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """The block makes a connection: within CONNECT_TIMEOUT, and not at the cost of TIMEOUT. So may a part of it do."""
        if self._connects:
            yield
            return
        began, end = time.monotonic(), self._end
        self._end, self._connects = began + self._connecting, True
        try:
            yield
        finally:
            took = time.monotonic() - began
            self._connecting = max(0.0, self._connecting - took)
            self._end, self._connects = end + took, False

    def half(self) -> Half:
        """The block may take half of what is left, as there is another way if it fails."""
        return Half(self)


class Half:
    """What `TimeLimit.half` returns. A class: two copies of a session enter four of them a read."""

    __slots__ = ("_connecting", "_limit", "_time")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit

    def __enter__(self) -> None:
        limit = self._limit
        self._time, self._connecting = limit.left() / 2, limit._connecting / 2
        limit._end -= self._time
        limit._connecting -= self._connecting

    def __exit__(self, *failure: object) -> None:
        self._limit._end += self._time
        self._limit._connecting += self._connecting


class EachWait(TimeLimit):
    """For a search among nodes, which nobody waits for: each wait may take TIMEOUT, or CONNECT_TIMEOUT where it connects."""

    __slots__ = ("_each",)

    def __init__(self, timeout: float, connect_timeout: float) -> None:
        super().__init__(timeout, connect_timeout)
        self._each = timeout

    def left(self) -> float:
        return self._each

    need = left

    @contextmanager
    def connecting(self) -> Iterator[None]:
        self._each = self._connecting
        try:
            yield
        finally:
            self._each = self._timeout


_running: Final[ContextVar[TimeLimit]] = ContextVar("the running operation's time limit")
_NOTHING: Final = nullcontext()


def running() -> TimeLimit:
    """That of the operation that this thread or task carries out, which there must be (LookupError)."""
    return _running.get()


class Timeouts(NamedTuple):
    """TIMEOUT and CONNECT_TIMEOUT, in seconds."""

    timeout: float
    connect_timeout: float

    def limited(self) -> AbstractContextManager[None]:
        """For a block that waits for the store: a limit of its own, unless it is part of an operation, which has one."""
        return TimeLimit(*self) if _running.get(None) is None else _NOTHING


def exhausted() -> StoreUnavailable:
    """What to raise where somebody waited for a free connection in vain."""
    return StoreUnavailable(
        "every connection that this process may have is busy. Raise ELASTICACHE_SESSIONS_MAX_CONNECTIONS, or find out what "
        "keeps the store from answering.",
        sent=False,
        silent=None,
    )
