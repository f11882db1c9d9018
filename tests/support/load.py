"""Managers as the tests use them, many jobs at once, and what a store is asked."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from elasticache_sessions import (
    AsyncSessionManager,
    Fields,
    Session,
    SessionInfo,
    SessionManager,
    Settings,
    StoreUnavailable,
)
from elasticache_sessions.record import REVISION
from elasticache_sessions.session import Rules
from elasticache_sessions.settle import Flow
from tests.support.loops import LoopThread
from tests.support.proxy import Command, Proxy, Rule

PATIENT = 20.0
"""TIMEOUT and CONNECT_TIMEOUT of a test that is not about them, in seconds: a busy machine must not fail it."""
PATIENTLY: dict[str, Any] = {
    "ELASTICACHE_SESSIONS_TIMEOUT": PATIENT,
    "ELASTICACHE_SESSIONS_CONNECT_TIMEOUT": PATIENT,
}
"""The same as settings of a site."""

T = TypeVar("T")


@contextmanager
def managers(*urls: str, **settings: Any) -> Iterator[list[SessionManager]]:
    """A manager for each URL, closed after the block."""
    made = [
        SessionManager.connect(
            Settings(url=url, **({"timeout": PATIENT, "connect_timeout": PATIENT} | settings))
        )
        for url in urls
    ]
    try:
        yield made
    finally:
        for manager in made:
            manager.close()


def at_once(*jobs: Callable[[], object]) -> list[Any]:
    """Run each job in a thread of its own, all from the same moment. Their results; raises what one raised."""
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []
    ready = threading.Barrier(len(jobs))

    def run(number: int, job: Callable[[], object]) -> None:
        try:
            ready.wait()
            results[number] = job()
        except BaseException as error:  # raised in the test's own thread, below
            errors.append(error)

    threads = [threading.Thread(target=run, args=job, daemon=True) for job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def once_back(ask: Callable[[], T]) -> T:
    """What `ask` returns, asked until the store is left alone no more (`breaker`)."""
    deadline = time.monotonic() + PATIENT
    while True:
        try:
            return ask()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def is_write(command: Command) -> bool:
    """Whether a command that passes a proxy is a compare-and-set: a script with 1, key, value, TTL, token, or `add`
    or `cas`.
    """
    return command[0] in (b"add", b"cas") or (command[0] in _SCRIPTS and len(command) == 7)


def creates(command: Command) -> bool:
    """Whether a write is one that creates."""
    return command[0] == b"add" or (command[0] in _SCRIPTS and command[-1] == b"")


def is_read(command: Command) -> bool:
    return command[0] in (b"GETEX", b"gets", b"gats") or (command[0] in _SCRIPTS and len(command) == 6)


_SCRIPTS = (b"EVALSHA", b"EVAL")


def _written(command: Command) -> bytes:
    """What a write stores."""
    return command[4] if command[0] in _SCRIPTS else command[-1]


def manager_session(manager: Manager, **values: object) -> Session:
    """A stored session that holds `values`; an empty one would not be stored."""
    assert values
    session = Session()
    session.fields.update(values)
    manager.save(session)
    return session


def stored_id(manager: Manager, **values: object) -> str:
    """The id of a new stored session that holds `values`."""
    session_id = manager_session(manager, **values).id
    assert session_id is not None
    return session_id


def warm_up(manager: Manager) -> None:
    """Ask every node for everything once: what comes next finds its scripts and its connection."""
    for _ in range(24):
        session = manager_session(manager, warm="up")
        assert manager.load(session.id) is not None
        assert manager.end(session.id or "")


def lose_every(proxy: Proxy, nth: int) -> Rule:
    """Lose the reply to every `nth` write, once each: after four in a row, an operation has to give up."""
    numbers = itertools.count(1)
    lost: set[bytes] = set()

    def is_next(command: Command) -> bool:
        if not is_write(command) or _written(command)[REVISION] in lost or next(numbers) % nth:
            return False
        lost.add(_written(command)[REVISION])
        return True

    return proxy.lose_reply(when=is_next, times=1_000_000)


def dropped(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The log lines that say that a request's changes were dropped."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and "its changes are dropped" in record.getMessage()
    ]


def contents(manager: Manager, session_id: str | None) -> dict[str, Any] | None:
    """What a session holds now."""
    session = manager.load(session_id)
    return None if session is None else dict(session.fields)


class OnLoop:
    """An `AsyncSessionManager` on an event loop, to be used like a `SessionManager`. The loop is its own, if none is given."""

    def __init__(self, manager: AsyncSessionManager, loop: LoopThread | None = None) -> None:
        self.manager = manager
        self.runner = loop or asyncio.Runner()

    def load(self, session_id: object) -> Session | None:
        return self.runner.run(self.manager.load(session_id))

    def save(self, session: Session) -> None:
        self.runner.run(self.manager.save(session))

    def apply(self, session: Session, change: Callable[[Fields], T]) -> T:
        return self.runner.run(self.manager.apply(session, change))

    def cycle(self, session: Session, owner: str | None = None) -> None:
        self.runner.run(self.manager.cycle(session, owner))

    def end(self, session: Session | str) -> bool:
        return self.runner.run(self.manager.end(session))

    def for_user(self, owner: str, current: Session | None = None) -> list[SessionInfo]:
        return self.runner.run(self.manager.for_user(owner, current))

    def end_of_user(self, owner: str, handle: str) -> bool:
        return self.runner.run(self.manager.end_of_user(owner, handle))

    def end_all(self, owner: str, keep: Session | None = None) -> int:
        return self.runner.run(self.manager.end_all(owner, keep))

    def run(self, flow: Flow[T]) -> T:
        return self.runner.run(self.manager.run(flow))

    @property
    def rules(self) -> Rules:
        return self.manager.rules

    @property
    def counts(self) -> Counter[str]:
        return self.manager.counts

    def close(self) -> None:
        self.runner.close()


Manager = SessionManager | OnLoop


@contextmanager
def manager_of(kind: str, url: str, *, client: Any = None, **settings: Any) -> Iterator[Manager]:
    """A manager "for threads" or "for asyncio"."""
    made = Settings(url=url, **({"connect_timeout": PATIENT} | settings))
    manager: Manager
    if kind == "asyncio":
        manager = OnLoop(AsyncSessionManager.connect(made, client=client))
    else:
        manager = SessionManager.connect(made, client=client)
    try:
        yield manager
    finally:
        manager.close()
