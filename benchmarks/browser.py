"""A browser of a WSGI app in this process: keeps cookies, and times what it asks."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from http.cookies import SimpleCookie
from time import perf_counter_ns, process_time_ns
from typing import Any, Final

from .cases import Ask, Asked, Block
from .payloads import NAME

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Times = tuple[int, int]

ANSWERS: Final = {"/read": NAME.encode()}
"""What has to come back; "ok" else."""


class WrongAnswer(Exception):
    """A stack did not do what it was asked, so what it costs says nothing."""


def check(path: str, status: str, body: bytes) -> None:
    expected = ANSWERS.get(path, b"ok")
    if not status.startswith("200") or body != expected:
        raise WrongAnswer(f"{path} was answered with {status} {body[:300]!r}, and not with {expected!r}")


class Jar:
    """A browser's cookies."""

    def __init__(self) -> None:
        self._cookies: dict[str, str] = {}

    @property
    def header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def keep(self, header: str) -> None:
        """What a Set-Cookie header says."""
        for name, morsel in SimpleCookie(header).items():
            if morsel["max-age"] == "0" or not morsel.value:
                self._cookies.pop(name, None)
            else:
                self._cookies[name] = morsel.coded_value


class Browser:
    def __init__(self, app: Wsgi) -> None:
        self._app = app
        self._jar = Jar()

    def get(self, path: str, query: str = "") -> Times:
        """What it took, in nanoseconds of the clock and of the process's computing."""
        environ = _environ(path, query)
        if cookies := self._jar.header:
            environ["HTTP_COOKIE"] = cookies
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
            started.append((status, headers))

        cpu, wall = process_time_ns(), perf_counter_ns()
        answer = self._app(environ, start_response)
        body = b"".join(answer)
        if (close := getattr(answer, "close", None)) is not None:
            close()
        took = perf_counter_ns() - wall, process_time_ns() - cpu
        status, headers = started[-1]
        for name, value in headers:
            if name.lower() == "set-cookie":
                self._jar.keep(value)
        check(path, status, body)
        return took


class WsgiAsked(Asked):
    """Asks an app as browsers would, one after the other."""

    def __init__(self, app: Wsgi) -> None:
        self._app = app
        self._known: dict[int, Browser] = {}
        self._user = 0

    def run(self, ask: Ask) -> Block:
        times = [self._one(ask) for _ in range(ask.requests)]
        return Block(tuple(wall for wall, _ in times), tuple(cpu for _, cpu in times))

    def _one(self, ask: Ask) -> Times:
        self._user += 1
        query = f"size={ask.size}&user={self._user}"
        if not ask.case.before:
            return self._with_a_session(ask.size).get(ask.case.path, query)
        browser = Browser(self._app)
        for path in ask.case.before:
            browser.get(path, query)
        return browser.get(ask.case.path, query)

    def _with_a_session(self, size: int) -> Browser:
        if size not in self._known:
            self._known[size] = browser = Browser(self._app)
            browser.get("/begin", f"size={size}")
        return self._known[size]


def _environ(path: str, query: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "shop.example",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "HTTP_ACCEPT": "text/html",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
