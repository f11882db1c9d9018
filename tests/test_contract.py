"""Every cache client keeps the contract, over every store, in threads and on an event loop."""

from __future__ import annotations

import asyncio

import pytest

from elasticache_sessions.clients import redis
from elasticache_sessions.clients.base import AsyncCacheClient, CacheClient
from elasticache_sessions.clients.memory import AsyncMemoryClient, MemoryClient
from elasticache_sessions.settings import Settings
from elasticache_sessions.testing import CONTRACT, Check, hold, hold_async
from tests.support.stores import Store


def client(store: Store) -> CacheClient:
    return MemoryClient() if store.name == "memory" else redis.connect(Settings(url=store.url))


def async_client(store: Store) -> AsyncCacheClient:
    if store.name == "memory":
        return AsyncMemoryClient(MemoryClient())
    return redis.connect_async(Settings(url=store.url))


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_a_client_for_threads_keeps_the_contract(store: Store, check: Check) -> None:
    made = client(store)
    try:
        hold(check, made)
    finally:
        made.close()


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_a_client_for_asyncio_keeps_the_contract(store: Store, check: Check) -> None:
    async def run() -> None:
        made = async_client(store)
        try:
            await hold_async(check, made)
        finally:
            await made.aclose()

    asyncio.run(run())
