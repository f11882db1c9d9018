"""One connection to a server that all tasks of an event loop share. Imports hiredis and redis at once.

Replies come in the order of the questions, so nobody has to have a connection for himself: what is asked in one turn of
the loop goes out in one piece, and what arrives together is read together. A pool would send and receive for each task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final

import hiredis
from redis import exceptions
from redis.connection import DefaultParser

from .redis_transport import misfit

_NOTHING_YET: Final = object()

Fits = Callable[[object], bool]
Question = tuple[tuple[Any, ...], Fits]


class Stream(asyncio.Protocol):
    """A connection. What is put on it is answered in a while: by the reply, or by the error that came instead.

    Somebody who gives up leaves his question where it is, for its reply is still to come. When one does not come in time, or
    is an error that says something of the connection, nobody else puts anything on it (`retire`): those who wait go on
    waiting, and with the last of them it is closed. A reply that does not fit closes it at once, as what comes next would
    be somebody else's.
    """

    def __init__(self) -> None:
        self.takes_more = True
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._reader = hiredis.Reader(replyError=DefaultParser.parse_error, notEnoughData=_NOTHING_YET)
        self._waiting: deque[tuple[asyncio.Future[object], float, Fits]] = deque()
        self._leaving: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._nobodys = Context()  # else what waits here would keep the request of whoever asked

    def put(self, questions: Sequence[Question], seconds: float) -> list[asyncio.Future[object]]:
        """Ask them together, right after each other; an answer may take so long. They are replies, or exceptions."""
        replies = []
        deadline = self._loop.time() + seconds
        for arguments, fits in questions:
            reply: asyncio.Future[object] = self._loop.create_future()
            replies.append(reply)
            if self._closed.done():
                reply.set_result(_broken())
                continue
            if not self._leaving:
                self._loop.call_soon(self._send, context=self._nobodys)
            self._leaving.append(hiredis.pack_command(arguments))
            self._waiting.append((reply, deadline, fits))
        if self._waiting and (self._timer is None or deadline < self._timer.when()):
            self._watch_until(deadline)
        return replies

    def _send(self) -> None:
        leaving, self._leaving = self._leaving, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(leaving))

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (said := self._reader.gets()) is not _NOTHING_YET:
                if not self._waiting:  # it speaks without being asked
                    self._break(_broken())
                    return
                reply, _, fits = self._waiting.popleft()
                fitting = isinstance(said, Exception) or fits(said)
                if not reply.done():
                    reply.set_result(said if fitting else misfit())
                if not fitting:
                    self._break(_broken())
                    return
        except (hiredis.HiredisError, ValueError) as error:  # the latter for a MOVED without an address
            self._break(exceptions.InvalidResponse(str(error)))
            return
        if not self.takes_more:
            self.retire()

    def eof_received(self) -> None:
        self.takes_more = False

    def connection_lost(self, error: Exception | None) -> None:
        self._break(_broken(error))
        if not self._closed.done():
            self._closed.set_result(None)

    # Ends.

    def retire(self) -> None:
        """Nobody is to put anything on it any more; it is closed once nobody waits."""
        self.takes_more = False
        if all(reply.done() for reply, *_ in self._waiting):
            self._transport.abort()

    def _break(self, first: Exception) -> None:
        """Close it at once. `first`: what whoever waits for the next reply hears."""
        self.takes_more = False
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, deque()
        answer = first
        for reply, *_ in waiting:
            if not reply.done():
                reply.set_result(answer)
            answer = _broken()

    def abort(self) -> None:
        """Close it at once."""
        self._break(_broken())

    async def aclose(self) -> None:
        self.abort()
        await self._closed

    # Time. One timer for all who wait, who mostly began in the order in which they end.

    def _watch_until(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look_at_time, deadline, context=self._nobodys)

    def _look_at_time(self, now: float) -> None:
        self._timer = None
        later = [deadline for _, deadline, _ in self._waiting if deadline > now]
        if len(later) < len(self._waiting):
            for reply, deadline, _ in self._waiting:
                if deadline <= now and not reply.done():
                    reply.set_result(exceptions.TimeoutError("Timeout reading from server"))
            self.retire()
        if later:
            self._watch_until(min(later))


def _broken(cause: Exception | None = None) -> Exception:
    """One for each who hears of it: an exception belongs to whoever raises it."""
    error = exceptions.ConnectionError(f"Connection closed by server{'' if cause is None else f': {cause}'}")
    error.__cause__ = cause
    return error
