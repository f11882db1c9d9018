"""Many reads and changes at once on one event loop without a framework: by this package's manager, and by a bare client."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns, process_time_ns
from typing import Any

import ormsgpack

from elasticache_sessions import AsyncSessionManager, Session, Settings

from .cases import READ, Ask, Asked, Block
from .payloads import NAME, content
from .sites import LIFETIME, Site


class AsyncLayer(Asked):
    """Asks with as many tasks as it is told, each of which has a session of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._runner = asyncio.Runner()
        self._known: dict[int, list[Any]] = {}

    def run(self, ask: Ask) -> Block:
        return self._runner.run(self._run(ask))

    async def _run(self, ask: Ask) -> Block:
        if ask.size not in self._known:
            self._known[ask.size] = [await self.begin(ask.size, number) for number in range(ask.at_once)]
        step = self.read if ask.case == READ else self.change
        each = max(1, ask.requests // ask.at_once)

        async def go(key: Any) -> None:
            for _ in range(each):
                await step(key)

        computed, started = process_time_ns(), perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for key in self._known[ask.size]:
                group.create_task(go(key))
        wall, cpu = perf_counter_ns() - started, process_time_ns() - computed
        return Block((wall // (each * ask.at_once),), (cpu // (each * ask.at_once),))

    async def begin(self, size: int, number: int) -> Any:
        """What is to be read, stored; returns by what it is known."""
        raise NotImplementedError

    async def read(self, key: Any) -> None:
        raise NotImplementedError

    async def change(self, key: Any) -> None:
        raise NotImplementedError


class Manager(AsyncLayer):
    def __init__(self, site: Site, memcached: bool = False) -> None:
        super().__init__(site)
        self._manager = AsyncSessionManager.connect(Settings.from_mapping(site.settings(memcached)))

    async def begin(self, size: int, number: int) -> str:
        session = Session()
        session.fields.update(content(size))
        await self._manager.save(session)
        assert session.id is not None
        return session.id

    async def _load(self, key: str) -> Session:
        session = await self._manager.load(key)
        assert session is not None
        assert session.fields["name"] == NAME
        return session

    async def read(self, key: str) -> None:
        await self._load(key)

    async def change(self, key: str) -> None:
        session = await self._load(key)
        session.fields["visits"] += 1
        await self._manager.save(session)


class RedisAsyncio(AsyncLayer):
    """A read is a `GET`, a change a `GET` and a `SET`."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        from redis import asyncio as redis

        self._client: Any = redis.Redis(port=site.valkey_port)

    async def begin(self, size: int, number: int) -> tuple[str, bytes]:
        key, value = f"floor:asyncio:{size}:{number}", ormsgpack.packb(content(size))
        await self._client.set(key, value, ex=LIFETIME)
        return key, value

    async def read(self, key: tuple[str, bytes]) -> None:
        assert await self._client.get(key[0]) == key[1]

    async def change(self, key: tuple[str, bytes]) -> None:
        await self.read(key)
        await self._client.set(*key, ex=LIFETIME)


def manager(site: Site, memcached: bool = False) -> Manager:
    return Manager(site, memcached)


def redis_asyncio(site: Site) -> RedisAsyncio:
    return RedisAsyncio(site)
