"""One run of a flow on a client: the time it has, and what becomes of a command that failed."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from .clients.base import Conflict, Reply
from .exceptions import StoreUnavailable
from .limit import TimeLimit, Timeouts

# How often a command that failed at once is sent again, while TIMEOUT allows; and the longest pauses between, in seconds. A
# primary that just became a replica, or a slot that moves, is somewhere else by then.
_PAUSES: Final = (0.0, 0.05, 0.15)


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

    def told(self, reply: Reply) -> Reply:
        """`reply`, as the flow is to have it. The next command is a new one."""
        if isinstance(reply, Conflict):
            reply = replace(reply, resent=reply.resent or self._sent)
            self.limit.renew()
        self._begin()
        return reply
