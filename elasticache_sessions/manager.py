"""The managers: they run the flows on a cache client. One for threads, one for event loops.

What they add: the time limit of an operation (a command that failed at once is sent again while it allows, and the flow
is told), one client a process or event loop, and events, which they log.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Self, TypeVar

from . import flows, owners
from .clients.base import AsyncCacheClient, CacheClient
from .clients.choice import async_clients_for, client_for, rules_on
from .drive import drive, drive_async
from .events import Listener
from .exceptions import StoreUnavailable
from .fields import Fields
from .index import SessionInfo
from .limit import Timeouts
from .loops import LoopClient
from .operation import Operation, Question, put
from .seen import SIGNED_OUT
from .session import Rules, Session, SessionId, as_id
from .settings import Settings
from .settle import Event, Flow, Sleep

# The core's idle timeout where neither the settings nor a framework says one: Django's two weeks.
_IDLE_TIMEOUT: Final = 14 * 86_400
_TIMEOUTS: Final = Settings().timeouts

T = TypeVar("T")


def rules_for(settings: Settings, *, idle_timeout: int | None = None, sliding: bool = True) -> Rules:
    """The rules that `settings` mean. `idle_timeout` (seconds) and `sliding`: what the framework says where
    they do not.
    """
    if settings.idle_timeout is not None:
        idle_timeout = settings.idle_timeout
    return Rules(
        prefix=settings.prefix,
        idle_timeout=_IDLE_TIMEOUT if idle_timeout is None else idle_timeout,
        absolute_timeout=settings.absolute_timeout,
        sliding=sliding,
        owner_key=settings.owner_key,
        max_sessions=settings.max_sessions_per_user,
        on_limit=settings.on_limit,
        anonymous_idle_timeout=settings.anonymous_idle_timeout,
        max_bytes=settings.max_bytes,
        box=settings.box,
    )


class SessionManager:
    """Sessions by their ids, for threads. The frameworks' classes are built on it; use it for anything else.

    Every method raises StoreUnavailable when the store does not answer within TIMEOUT.
    """

    def __init__(self, client: CacheClient, rules: Rules, timeouts: Timeouts = _TIMEOUTS) -> None:
        self.rules = rules_on(client, rules)
        self._client = client
        self._timeouts = timeouts
        self._listener = Listener()
        self._listener.listen_to(client)

    @classmethod
    def connect(
        cls,
        settings: Settings,
        *,
        client: Any = None,
        rules: Rules | None = None,
    ) -> Self:
        """A manager for what `settings` name; the first connection is made on first use.

        `client`: a redis-py or valkey-py client object to use instead of the URL. `rules`: to use instead of
        `rules_for(settings)`.

        Raises:
            ConfigurationError, MissingExtra
        """
        manager = cls(client_for(settings, client), rules or rules_for(settings), settings.timeouts)
        if client is None:
            # Also runs when the process ends. What the app made, the app closes.
            weakref.finalize(manager, manager._client.close)
        return manager

    @property
    def counts(self) -> Counter[str]:
        """How often what happened since the manager was made, in this process: "created", "cycled", "ended", "conflict",
        "unreadable", "missing": an id that the store does not know, any more or at all; "unavailable": an operation that failed
        for want of the store. Of Memcached's nodes: "alone" (one
        served for two, as the other is down), "repaired" (a copy), "moved" (a session, to another).
        """
        return self._listener.counts

    def on_event(self, callback: Callable[[Event], None]) -> None:
        """Have `callback` called with each event, where it happens; it is waited for. When it raises, a log line says so."""
        self._listener.subscribe(callback)

    def load(self, session_id: object) -> Session | None:
        """The session with that id; None if there is none, whatever `session_id` is. Slides its idle
        timeout.
        """
        session_id = as_id(session_id)
        return self.run(flows.load(session_id, self.rules))

    def save(self, session: Session) -> None:
        """Store what changed, merged with what others changed meanwhile; create `session` if it is new.

        What `session` wishes for (`ending`, `cycling`, `owner`, `idle_ttl`, `expires_at`) is carried out, too.

        Raises:
            SessionEnded, EncodeError, ValueTooLarge
        """
        self.run(flows.commit(session, self.rules))

    def apply(self, session: Session, change: Callable[[Fields], T]) -> T:
        """Run `change` on the newest fields, store them, and return what it returned. Exact under concurrency.

        `change` may run more than once. Raises as `save`, and OutcomeUnknown.
        """
        return self.run(flows.apply(session, change, self.rules))

    def cycle(self, session: Session, owner: str | None = None) -> None:
        """Give `session` a new id and end the old one; with `owner`, it is theirs from now on. Raises as
        `save`.
        """
        self.run(flows.cycle(session, self.rules, owner))

    def end(self, session: Session | str) -> bool:
        """End the session, or the one with that id. Returns whether this call did it."""
        if isinstance(session, Session):
            return self.run(flows.end(session, self.rules))
        session = SessionId(session)
        return self.run(flows.end_id(session, self.rules))

    def for_user(self, owner: str, current: Session | None = None) -> list[SessionInfo]:
        """The sessions that `owner` is signed in with, `current` first, else the last used first.

        Raises:
            IndexLost: the store has lost the list, and cannot be searched.
        """
        return self.run(owners.for_user(self.rules.owner_hash(owner), self.rules, current))

    def end_of_user(self, owner: str, handle: str, reason: str = SIGNED_OUT) -> bool:
        """End the session of `owner` that has that public name. Returns whether there was one."""
        return self.run(owners.end_one(self.rules.owner_hash(owner), handle, self.rules, reason))

    def end_all(self, owner: str, keep: Session | None = None, reason: str = SIGNED_OUT) -> int:
        """End all sessions of `owner`, or all but `keep`. Returns how many.

        Raises:
            IndexLost: those that the store still lists were ended, but there may be more.
        """
        return self.run(owners.end_all(self.rules.owner_hash(owner), self.rules, reason, keep))

    def close(self) -> None:
        """Close the connections. Happens by itself when the process ends."""
        self._client.close()

    def run(self, flow: Flow[T]) -> T:
        """Run any flow (`flows`) on the store, and return what it returns."""
        with self._listener.operation():
            return drive(flow, partial(self._answer, Operation(self._timeouts)))

    def _answer(self, operation: Operation, question: Question | Sleep | Event) -> object:
        if isinstance(question, Event):
            self._listener.hear(question)
            return None
        if isinstance(question, Sleep):
            time.sleep(question.seconds)
            return None
        return self._perform(operation, question)

    def _perform(self, operation: Operation, question: Question) -> object:
        with operation.limit:
            while True:
                try:
                    return operation.told(put(self._client, question))
                except StoreUnavailable as error:
                    time.sleep(operation.pause_after(error))


class AsyncSessionManager:
    """The same for event loops. One manager serves any number of them, each with a client of its own.

    A loop's connections are closed when it ends (`asyncio.run`, uvicorn) or by `aclose` on it.
    """

    def __init__(
        self, connect: Callable[[], AsyncCacheClient], rules: Rules, timeouts: Timeouts = _TIMEOUTS
    ) -> None:
        self.rules = rules
        self._connect = connect
        self._timeouts = timeouts
        self._listener = Listener()
        self._closes = True
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClient] = (
            weakref.WeakKeyDictionary()
        )

    @classmethod
    def connect(
        cls,
        settings: Settings,
        *,
        client: Any = None,
        rules: Rules | None = None,
    ) -> Self:
        """As `SessionManager.connect`. A `client` object of redis.asyncio or valkey.asyncio belongs to one
        event loop.
        """
        clients = async_clients_for(settings, client)
        rules = clients.rules_on(rules or rules_for(settings))
        manager = cls(clients.make, rules, settings.timeouts)
        manager._closes = client is None  # what the app made, the app closes
        return manager

    @property
    def counts(self) -> Counter[str]:
        """As `SessionManager.counts`."""
        return self._listener.counts

    def on_event(self, callback: Callable[[Event], None]) -> None:
        """As `SessionManager.on_event`; `callback` is a plain function, and must not block the event loop."""
        self._listener.subscribe(callback)

    async def load(self, session_id: object) -> Session | None:
        """As `SessionManager.load`."""
        session_id = as_id(session_id)
        return await self.run(flows.load(session_id, self.rules))

    async def save(self, session: Session) -> None:
        """As `SessionManager.save`."""
        await self.run(flows.commit(session, self.rules))

    async def apply(self, session: Session, change: Callable[[Fields], T]) -> T:
        """As `SessionManager.apply`; `change` is a plain function."""
        return await self.run(flows.apply(session, change, self.rules))

    async def cycle(self, session: Session, owner: str | None = None) -> None:
        """As `SessionManager.cycle`."""
        await self.run(flows.cycle(session, self.rules, owner))

    async def end(self, session: Session | str) -> bool:
        """As `SessionManager.end`."""
        if isinstance(session, Session):
            return await self.run(flows.end(session, self.rules))
        session = SessionId(session)
        return await self.run(flows.end_id(session, self.rules))

    async def for_user(self, owner: str, current: Session | None = None) -> list[SessionInfo]:
        """As `SessionManager.for_user`."""
        return await self.run(owners.for_user(self.rules.owner_hash(owner), self.rules, current))

    async def end_of_user(self, owner: str, handle: str, reason: str = SIGNED_OUT) -> bool:
        """As `SessionManager.end_of_user`."""
        return await self.run(owners.end_one(self.rules.owner_hash(owner), handle, self.rules, reason))

    async def end_all(self, owner: str, keep: Session | None = None, reason: str = SIGNED_OUT) -> int:
        """As `SessionManager.end_all`."""
        return await self.run(owners.end_all(self.rules.owner_hash(owner), self.rules, reason, keep))

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        held = self._clients.pop(asyncio.get_running_loop(), None)
        if held is not None:
            await held.lifetime.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """As `SessionManager.run`."""
        with self._listener.operation():
            held = self._clients.get(asyncio.get_running_loop()) or await self._begin()
            client, operation = held.client, Operation(self._timeouts)

            async def answer(question: Question | Sleep | Event) -> object:
                if isinstance(question, Event):
                    self._listener.hear(question)
                    return None
                if isinstance(question, Sleep):
                    await asyncio.sleep(question.seconds)
                    return None
                with operation.limit:
                    while True:
                        try:
                            return operation.told(await put(client, question))
                        except StoreUnavailable as error:
                            await asyncio.sleep(operation.pause_after(error))

            return await drive_async(flow, answer)

    async def _begin(self) -> LoopClient:
        """The client of the running loop, which has none yet."""
        loop = asyncio.get_running_loop()
        for other in [reference() for reference in self._clients.keyrefs()]:
            if other is not None and other.is_closed():  # without having closed what was open on it
                self._clients.pop(other, None)
        clients = weakref.ref(self._clients)  # so that a manager that nobody holds is gone at once

        def forget() -> None:
            # A client knows its loop, so the loop would live for as long as the client is kept here.
            if (kept := clients()) is not None:
                kept.pop(loop, None)

        held = self._clients[loop] = LoopClient(self._connect(), self._closes, forget)
        self._listener.listen_to(held.client)
        await anext(held.lifetime)
        return held
