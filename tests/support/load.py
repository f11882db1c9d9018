"""Several "instances" of one app in this process, the requests that a test sends them, and many at once."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from flask import Flask, Response, request, session

from elasticache_sessions import AsyncSessionManager, Fields, Session, SessionManager, Settings
from elasticache_sessions.flask import ElastiCacheSessionInterface, ElastiCacheSessions
from elasticache_sessions.record import REVISION
from tests.support.proxy import Command, Proxy, Rule

PATIENT = 10.0
"""TIMEOUT of a test that is not about it, in seconds: a busy machine must not fail it."""

View = Callable[[], object]
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What a request came to."""

    code: int
    result: Any = None
    """What the view returned."""
    cookie: str | None = None
    """The session cookie that the response sets; "" where it deletes it, None where it leaves it alone."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def session_id(self) -> str:
        """The id in the cookie that the response sets."""
        assert self.cookie, "the response sets no cookie"
        return self.cookie.removesuffix(".p")


class Instance:
    """One app with sessions, as one process behind a load balancer would have it."""

    def __init__(self, url: str, **settings: object) -> None:
        self.app = Flask("shop")
        self.app.config["ELASTICACHE_SESSIONS_URL"] = url
        self.app.config |= {f"ELASTICACHE_SESSIONS_{name.upper()}": value for name, value in settings.items()}
        self.sessions = ElastiCacheSessions(self.app)
        self.app.add_url_rule("/", "view", lambda: request.environ["tests.view"]())

    def ask(self, view: View, cookie: str | None = None) -> Answer:
        """One request whose view is `view`, with that session cookie."""
        results: list[object] = []

        def run() -> Response | str:
            results.append(view())
            return results[0] if isinstance(results[0], Response) else "done"

        headers = {} if cookie is None else {"Cookie": f"session={cookie}"}
        client = self.app.test_client(use_cookies=False)
        response = client.get("/", headers=headers, environ_overrides={"tests.view": run})
        set_cookie = [
            value for value in response.headers.getlist("Set-Cookie") if value.startswith("session=")
        ]
        assert len(set_cookie) <= 1, set_cookie
        value = set_cookie[0].partition("=")[2].partition(";")[0] if set_cookie else None
        return Answer(response.status_code, results[0] if results else None, value, dict(response.headers))

    @property
    def manager(self) -> SessionManager:
        assert isinstance(self.app.session_interface, ElastiCacheSessionInterface)
        return self.app.session_interface.manager

    def close(self) -> None:
        self.manager.close()


@contextmanager
def instances(*urls: str, **settings: object) -> Iterator[list[Instance]]:
    """An instance for each URL, closed after the block."""
    made = [Instance(url, **({"timeout": PATIENT} | settings)) for url in urls]
    try:
        yield made
    finally:
        for instance in made:
            instance.close()


@contextmanager
def managers(*urls: str, **settings: Any) -> Iterator[list[SessionManager]]:
    """A manager for each URL, closed after the block."""
    made = [SessionManager.connect(Settings(url=url, **({"timeout": PATIENT} | settings))) for url in urls]
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


def is_write(command: Command) -> bool:
    """Whether a command that passes a proxy is a compare-and-set: a script with 1, key, value, TTL, token, or `add`
    or `cas`.
    """
    return command[0] in (b"add", b"cas") or (command[0] in _SCRIPTS and len(command) == 7)


def creates(command: Command) -> bool:
    """Whether a write is one that creates."""
    return command[0] == b"add" or (command[0] in _SCRIPTS and command[-1] == b"")


def is_read(command: Command) -> bool:
    return command[0] in (b"GET", b"gets", b"gats") or (command[0] in _SCRIPTS and len(command) == 6)


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
    """An `AsyncSessionManager` on an event loop of its own, to be used like a `SessionManager`."""

    def __init__(self, manager: AsyncSessionManager) -> None:
        self.manager = manager
        self.runner = asyncio.Runner()

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

    def close(self) -> None:
        self.runner.close()


Manager = SessionManager | OnLoop


@contextmanager
def manager_of(kind: str, url: str, *, client: Any = None, **settings: Any) -> Iterator[Manager]:
    """A manager "for threads" or "for asyncio"."""
    made = Settings(url=url, **settings)
    manager: Manager
    if kind == "asyncio":
        manager = OnLoop(AsyncSessionManager.connect(made, client=client))
    else:
        manager = SessionManager.connect(made, client=client)
    try:
        yield manager
    finally:
        manager.close()


# Many requests

REQUESTS = 200
"""Of each thread."""


def assign(name: str, value: object) -> Callable[[], None]:
    return lambda: session.update({name: value})


def all_well(answers: list[list[Answer]]) -> None:
    assert {answer.code for each in answers for answer in each} == {200}


def add_keys(instance: Instance, thread: str, cookie: str, requests: int = REQUESTS) -> list[Answer]:
    return [instance.ask(assign(f"{thread}{number}", number), cookie) for number in range(requests)]


def expected_keys(threads: str, requests: int = REQUESTS) -> dict[str, int]:
    return {f"{thread}{number}": number for thread in threads for number in range(requests)}
