"""Every cache client keeps the contract, over every store, in threads and on an event loop."""

from __future__ import annotations

import asyncio

import pytest

from elasticache_sessions.clients.base import AsyncCacheClient, CacheClient, Scanning
from elasticache_sessions.clients.choice import async_clients_for, client_for
from elasticache_sessions.settings import Settings
from elasticache_sessions.testing import Check, contract, hold, hold_async
from tests.support.stores import ALL, MEMCACHED, Store

each_check_on_each_store = pytest.mark.parametrize(
    ("store", "check"),
    [
        (name, check)
        for name in ALL
        for check in contract(blind_touch=name in MEMCACHED, can_scan=name not in MEMCACHED)
    ],
    indirect=["store"],
    ids=lambda value: getattr(value, "__name__", value),
)


def client(store: Store) -> CacheClient:
    return client_for(Settings(url=store.url), None)


def async_client(store: Store) -> AsyncCacheClient:
    connect = async_clients_for(Settings(url=store.url), None).make
    return connect()


@each_check_on_each_store
def test_a_client_for_threads_keeps_the_contract(store: Store, check: Check) -> None:
    made = client(store)
    try:
        hold(check, made)
    finally:
        made.close()


@each_check_on_each_store
def test_a_client_for_asyncio_keeps_the_contract(store: Store, check: Check) -> None:
    async def run() -> None:
        made = async_client(store)
        try:
            await hold_async(check, made)
        finally:
            await made.aclose()

    asyncio.run(run())


def test_a_client_says_what_it_can_do(store: Store) -> None:
    """By that the contract is chosen, and the rules are."""
    made = client(store)
    asynchronous = async_clients_for(Settings(url=store.url), None)
    assert made.blind_touch == asynchronous.blind_touch == (store.name in MEMCACHED)
    assert isinstance(made, Scanning) == asynchronous.can_scan == (store.name not in MEMCACHED)
    made.close()
