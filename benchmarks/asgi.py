"""Many requests at once to an ASGI app in this process, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter_ns, process_time_ns
from typing import Any

from .browser import Jar, check
from .cases import Ask, Asked, Block

Message = MutableMapping[str, Any]
Asgi = Callable[..., Awaitable[None]]


class Visitor:
    """One browser, with a session of its own."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self._jar = Jar()

    async def get(self, path: str, query: str = "") -> None:
        sent: list[Message] = []
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:  # the browser stays until it has its answer
                await asyncio.get_running_loop().create_future()
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(self._scope(path, query), receive, send)
        headers: list[tuple[bytes, bytes]] = sent[0]["headers"]
        for name, value in headers:
            if name.lower() == b"set-cookie":
                self._jar.keep(value.decode())
        check(path, str(sent[0]["status"]), b"".join(message.get("body", b"") for message in sent[1:]))

    def _scope(self, path: str, query: str) -> Message:
        headers = [(b"host", b"shop.example"), (b"accept", b"text/html")]
        if cookies := self._jar.header:
            headers.append((b"cookie", cookies.encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("192.0.2.1", 50_000),
            "server": ("shop.example", 80),
        }


class AsgiAsked(Asked):
    """Asks with as many visitors at once as it is told, each of whom asks one request after the other."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self._runner = asyncio.Runner()
        self._known: dict[int, list[Visitor]] = {}

    def run(self, ask: Ask) -> Block:
        return self._runner.run(self._run(ask))

    async def _run(self, ask: Ask) -> Block:
        visitors = await self._visitors(ask.size, ask.at_once)
        each = max(1, ask.requests // ask.at_once)

        async def visit(visitor: Visitor) -> None:
            for _ in range(each):
                await visitor.get(ask.case.path)

        computed, started = process_time_ns(), perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for visitor in visitors:
                group.create_task(visit(visitor))
        wall, cpu = perf_counter_ns() - started, process_time_ns() - computed
        requests = each * ask.at_once
        return Block((wall // requests,), (cpu // requests,))

    async def _visitors(self, size: int, at_once: int) -> list[Visitor]:
        if size not in self._known:
            self._known[size] = [Visitor(self._app) for _ in range(at_once)]
            for visitor in self._known[size]:
                await visitor.get("/begin", f"size={size}")
        return self._known[size]
