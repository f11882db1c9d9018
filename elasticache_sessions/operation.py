"""One run of a flow on a client: the time it has, and what becomes of a command that failed."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final, TypeVar

from .clients.base import AsyncCacheClient, CacheClient, Command, Conflict, Look, Page, Scan
from .exceptions import StoreUnavailable
from .limit import TimeLimit, Timeouts

# How often a command that failed at once is sent again, while TIMEOUT allows; and the longest pauses between, in seconds. A
# primary that just became a replica, or a slot that moves, is somewhere else by then.
_PAUSES: Final = (0.0, 0.05, 0.15)


_WITH_MORE_TO_ASK: Final = (Conflict, Page, tuple, bool)

R = TypeVar("R")
Question = Command | Look | Scan


def put(client: CacheClient | AsyncCacheClient, question: Question) -> Any:
    """Ask it what it answers by one method or the other; a client for an event loop gives an awaitable."""
    if isinstance(question, Look):
        return client.look(question)
    if isinstance(question, Scan):
        return client.scan(question)  # type: ignore[union-attr]  # nobody asks one that cannot (`Rules.can_scan`)
    return client.perform(question)


class Operation:
    """One run of a flow: the time it has, and what becomes of a command that failed."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.limit = TimeLimit(*timeouts)
        self._begin()

    def _begin(self) -> None:
        self._sendings = 0
        self._sent = False

    def pause_after(self, error: StoreUnavailable) -> float:
        """Seconds to wait before the command is sent again; raises `error` where that is not to be."""
        self._sendings += 1
        self._sent = error.sent = self._sent or error.sent
        if error.retry and self._sendings <= len(_PAUSES):
            pause = _PAUSES[self._sendings - 1] * random.uniform(0.5, 1)
            if pause < self.limit.left():
                return pause
        self._sendings = (
            0  # should the flow itself send it again, as it may be told then that it was sent before
        )
        raise error

    def told(self, reply: R) -> R:
        """`reply`, as the flow is to have it. The next command is a new one."""
        if isinstance(reply, Conflict):
            reply = replace(reply, resent=reply.resent or self._sent)
        if isinstance(reply, _WITH_MORE_TO_ASK):
            self.limit.renew()  # the store answers, and there is more to ask
        self._begin()
        return reply
