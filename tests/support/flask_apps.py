"""A Flask app for the tests: its one page does what the test says, and what it asks of the store is written down."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
from flask import Flask, Response, request, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from elasticache_sessions.clients.base import (
    CacheClient,
    Command,
    Glance,
    Look,
    Page,
    Read,
    Reply,
    Scan,
    Write,
)
from elasticache_sessions.flask import ElastiCacheSessionInterface, ElastiCacheSessions
from elasticache_sessions.operation import Question
from elasticache_sessions.session import handle_of
from tests.support.load import PATIENTLY

Do = Callable[[], Any]


class RecordingClient:
    """Stands before the app's cache client. `before` is called with each command before it is carried out."""

    def __init__(self, client: CacheClient) -> None:
        self._client = client
        self.blind_touch = client.blind_touch
        self.commands: list[Question] = []
        self.before: Callable[[Question], object] = lambda command: None

    def perform(self, command: Command) -> Reply:
        self.commands.append(command)
        self.before(command)
        return self._client.perform(command)

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        self.commands.append(question)
        self.before(question)
        return self._client.look(question)

    def scan(self, question: Scan) -> Page:
        self.commands.append(question)
        self.before(question)
        page: Page = self._client.scan(question)  # type: ignore[attr-defined]  # nobody asks one that cannot
        return page

    def close(self) -> None:
        self._client.close()


class Site:
    """An app with our sessions. `visit(do)` runs `do` as its view; a client that is not named is `browser`."""

    def __init__(self, url: str, **config: object) -> None:
        self.app = Flask("site")
        self.app.config.update(PATIENTLY | {"ELASTICACHE_SESSIONS_URL": url} | config)
        self.sessions = ElastiCacheSessions(self.app)
        interface = self.app.session_interface
        assert isinstance(interface, ElastiCacheSessionInterface)
        self.manager = interface.manager
        self.store = RecordingClient(self.manager._client)
        self.manager._client = self.store
        self.browser = self.app.test_client()
        self.app.add_url_rule("/", "page", self._view, methods=["GET", "POST"])
        self.app.add_url_rule("/async", "async page", self._async_view)

    def _view(self) -> Any:
        answer = request.environ["test.do"]()
        return answer if isinstance(answer, str | Response) else "done"

    async def _async_view(self) -> str:
        await request.environ["test.do"]()
        return "done"

    def visit(
        self,
        do: Do | Awaitable[Any] = lambda: None,
        client: FlaskClient | None = None,
        path: str = "/",
        **how: Any,
    ) -> TestResponse:
        """One request, in which `do` runs; the page is what it returns, where that is text or a Response."""
        return (client or self.browser).get(path, environ_overrides={"test.do": do}, **how)

    def ask(self, do: Do, client: FlaskClient | None = None, **how: Any) -> Any:
        """What `do` returns when it runs in a request, which must answer 200."""
        answers: list[Any] = []
        response = self.visit(lambda: answers.append(do()), client, **how)
        assert response.status_code == 200, response.text
        return answers[0]

    def contents(self, client: FlaskClient | None = None) -> dict[str, Any]:
        """The session as a plain dict. `_permanent` is Flask's own field."""
        contents: dict[str, Any] = self.ask(lambda: dict(session), client)
        return contents

    def cookie(self, client: FlaskClient | None = None) -> str | None:
        """What the browser holds, with the mark of a permanent session."""
        cookie = (client or self.browser).get_cookie("session")
        return None if cookie is None else cookie.value

    def session_id(self) -> str:
        cookie = self.cookie()
        assert cookie is not None
        return cookie[:40]

    def handle(self) -> str:
        return handle_of(self.session_id())

    def handle_in(self, client: FlaskClient) -> str:
        cookie = self.cookie(client)
        assert cookie is not None
        return handle_of(cookie[:40])

    def key(self) -> bytes:
        return f"sess:{self.handle()}".encode()

    def client_with(self, cookie: str | None) -> FlaskClient:
        """Another browser (or another copy of the cookie), which brings that."""
        client = self.app.test_client()
        if cookie is not None:
            client.set_cookie("session", cookie)
        return client

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """The commands of the block by name: "touch" for a read that slides, "read", "write"."""
        names: list[str] = []
        begin = len(self.store.commands)
        try:
            yield names
        finally:
            names += [_name(command) for command in self.store.commands[begin:]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.manager.close()


def _name(command: Question) -> str:
    if isinstance(command, Look | Scan):
        return type(command).__name__.lower()
    if isinstance(command, Read):
        return "read" if command.touch is None else "touch"
    return "write" if isinstance(command, Write) else "replace"


def clear() -> None:
    """`session.clear`, which cannot be named outside a request."""
    session.clear()


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package logged as worth a line."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("elasticache_sessions") and record.levelno >= logging.WARNING
    ]


def errors_of_the_app(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What Flask logged as an error of the app."""
    return [r.getMessage() for r in caplog.records if r.name == "site" and r.levelno >= logging.ERROR]


def attributes(set_cookie: str) -> dict[str, str]:
    """A Set-Cookie header: name=value under "", and its attributes in lower case."""
    first, *rest = set_cookie.split("; ")
    parts = (attribute.partition("=") for attribute in rest)
    return {"": first} | {name.lower(): value for name, _, value in parts}
