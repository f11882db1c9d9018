"""The Django project of the tests behind a real server: uvicorn or gunicorn, and browsers that talk to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.demo import wait_until
from tests.support.django_pages import OURS
from tests.support.load import PATIENT
from tests.support.scripts import ROOT
from tests.support.servers import free_port


@dataclass
class Page:
    """What a page said, and the session cookie that it set."""

    said: dict[str, Any]
    cookie: str | None

    def __getitem__(self, name: str) -> Any:
        return self.said[name]


@dataclass
class Served:
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, path: str, cookie: str | None = None) -> Page:
        headers = {} if cookie is None else {"Cookie": f"sessionid={cookie}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            said = json.load(response)
            given = response.headers["Set-Cookie"]
        return Page(said, given and given.partition("sessionid=")[2].partition(";")[0])

    def begin(self, path: str = "add/begun") -> str:
        """The cookie of a new session."""
        cookie = self.ask(path).cookie
        assert cookie
        return cookie

    def go_away(self, path: str, cookie: str) -> None:
        """Ask for a page, and close the connection before it is there."""
        with socket.create_connection(("127.0.0.1", self.port)) as visitor:
            visitor.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\nCookie: sessionid={cookie}\r\n\r\n".encode())

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(OSError):
            self.ask("untouched")
            return True
        return False


UVICORN = (
    "uvicorn",
    "--factory",
    "tests.django_site.served_pages:asgi",
    "--loop",
    "asyncio",
    "--no-access-log",
)
GUNICORN = ("gunicorn", "tests.django_site.served_pages:wsgi()", "--graceful-timeout", "5")


@contextmanager
def served(url: str, folder: Path, *server: str, middleware: tuple[str, ...] = (OURS,)) -> Iterator[Served]:
    """A server, e.g. `*UVICORN`, that is up; its log must hold no traceback at the end."""
    port, log = free_port(), folder / "log"
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.django_site.served",
        "SERVED_MIDDLEWARE": ",".join(middleware),
        "ELASTICACHE_SESSIONS_URL": url,
        "ELASTICACHE_SESSIONS_TIMEOUT": str(PATIENT),
        "ELASTICACHE_SESSIONS_CONNECT_TIMEOUT": str(PATIENT),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    where = ("--bind", f"127.0.0.1:{port}") if server[0] == "gunicorn" else ("--port", str(port))
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *server, *where], env=environment, cwd=ROOT, stdout=said, stderr=said
        )
        with process:
            try:
                site = Served(port, process, log)
                wait_until(site.is_up, 60, f"{server[0]} answers")
                yield site
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(20)
    assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
