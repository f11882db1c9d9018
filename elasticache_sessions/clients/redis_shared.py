"""What an event loop's tasks share to ask one server: the connection, and what it takes to make it. Imports redis at once."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import Sequence
from contextvars import Context
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions

from ..exceptions import StoreUnavailable
from ..limit import TimeLimit, Timeouts, running
from .network import open_transport
from .redis_driver import Driver, Redirected
from .redis_stream import Stream
from .redis_wire import Request


@dataclass(frozen=True, slots=True)
class Access:
    """Where a server is, and how to get in."""

    host: str
    port: int
    db: int
    tls: ssl.SSLContext | None
    credentials: Any
    """What redis-py calls a credential provider; None: the server asks nobody who he is."""


class Shared:
    """A connection to one server for all tasks of an event loop, made when it is needed: a `Carrier`."""

    def __init__(self, access: Access, driver: Driver, timeouts: Timeouts) -> None:
        self._access, self._driver, self._timeouts = access, driver, timeouts
        self._stream: Stream | None = None
        self._open: weakref.WeakSet[Stream] = weakref.WeakSet()  # the loop holds them while they are
        self._connecting: asyncio.Task[Stream] | None = None

    async def ask(self, request: Request, *, asking: bool = False) -> object:
        stream = await self._ready()
        question = (request.args, request.fits)
        with self._driver.translated(sent=False):
            replies = stream.put((_ASKING, question) if asking else (question,), running().need())
        answer = self._answered(await replies[-1], stream)
        if isinstance(answer, Redirected):
            raise answer
        return answer

    async def ask_all(self, requests: Sequence[Request]) -> list[object]:
        stream = await self._ready()
        with self._driver.translated(sent=False):
            replies = stream.put([(each.args, each.fits) for each in requests], running().need())
        return [self._answered(await each, stream) for each in replies]

    def _answered(self, reply: object, stream: Stream) -> object:
        """What came of a question: its reply, or what the error says that came instead. Raises StoreUnavailable."""
        if not isinstance(reply, Exception):
            return reply
        try:
            if isinstance(reply, StoreUnavailable):
                raise reply
            return self._driver.said(reply)
        except StoreUnavailable as failure:
            # Late, or a primary that became a replica: whoever asks next connects anew. Not where this command alone was
            # refused: a store that is out of memory refuses every write, and reads would wait for new connections.
            if failure.sent or failure.retry or isinstance(reply, exceptions.AuthenticationError):
                stream.retire()
            raise

    async def _ready(self) -> Stream:
        stream = self._stream
        if stream is not None and stream.takes_more:
            return stream
        connecting = self._connecting
        if connecting is None or connecting.done():
            # Of nobody's context: the connection would keep that of whoever came first, his request and all.
            connecting = self._connecting = asyncio.create_task(self._connect(), context=Context())
            connecting.add_done_callback(_heard)
        try:
            with self._driver.translated(sent=False), running().connecting():
                try:
                    async with asyncio.timeout(running().need()):
                        return await asyncio.shield(connecting)
                except TimeoutError as error:
                    raise exceptions.TimeoutError("Timeout connecting to server") from error
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if not connecting.cancelled() or (task is not None and task.cancelling()):
                        raise
                    # By `aclose`. Nobody cancelled whoever waits here.
                    raise exceptions.ConnectionError("it was closed") from None
        except StoreUnavailable as error:
            # Others may be told the same, and each notes on it what he has sent.
            raise copy(error) from error.__cause__

    async def _connect(self) -> Stream:
        """For whoever waits for it, and within a time limit of its own, as who came first may give up."""
        access = self._access
        with TimeLimit(*self._timeouts), running().connecting():
            try:
                _, stream = await open_transport(access.host, access.port, Stream, access.tls)
            except TimeoutError as error:
                raise exceptions.TimeoutError("Timeout connecting to server") from error
            except OSError as error:
                where = f"{access.host}:{access.port}"
                raise exceptions.ConnectionError(f"Error connecting to {where}: {error}") from error
            self._open.add(stream)
            try:
                if access.credentials is not None:
                    await _greet(stream, "AUTH", *await access.credentials.get_credentials_async())
                if access.db:
                    await _greet(stream, "SELECT", access.db)
            except BaseException:
                stream.abort()
                raise
        self._stream = stream
        return stream

    async def aclose(self) -> None:
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for stream in list(self._open):
            await stream.aclose()


async def _greet(stream: Stream, *words: Any) -> None:
    (reply,) = stream.put([(words, _is_ok)], running().need())
    del words  # the password is among them, and a traceback may show variables
    answer = await reply
    if isinstance(answer, Exception):
        raise answer


def _is_ok(reply: object) -> bool:
    return reply == b"OK"


def _heard(task: asyncio.Task[Stream]) -> None:
    """What became of it is known, even if nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


_ASKING: Final = (("ASKING",), _is_ok)
