"""Which client is for which URL or client object. Imports a driver only where it is the one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..settings import Settings
from .base import AsyncCacheClient, CacheClient


def client_for(settings: Settings, given: Any) -> CacheClient:
    """For threads. `given`: the app's own client object, or None: as the URL says.

    Raises:
        ConfigurationError, MissingExtra
    """
    store = settings.endpoint.store if given is None else "given"
    if store == "memory":
        from .memory import MemoryClient

        return MemoryClient.shared(settings.endpoint.host)
    if store == "memcached":
        from . import memcached

        return memcached.connect(settings)
    from . import redis

    return redis.connect(settings) if given is None else redis.adopt(given, settings)


def async_clients_for(settings: Settings, given: Any) -> tuple[Callable[[], AsyncCacheClient], bool]:
    """What makes a client for the running event loop, and whether those clients touch blindly. Raises as
    `client_for`.
    """
    store = settings.endpoint.store if given is None else "given"
    if store == "memory":
        from .memory import AsyncMemoryClient, MemoryClient

        shared = MemoryClient.shared(settings.endpoint.host)
        return lambda: AsyncMemoryClient(shared), AsyncMemoryClient.blind_touch
    if store == "memcached":
        from . import memcached

        return partial(memcached.connect_async, settings), memcached.AsyncMemcachedClient.blind_touch
    from . import redis

    if given is None:
        return partial(redis.connect_async, settings), False
    adopted = redis.adopt_async(given, settings)
    return lambda: adopted, adopted.blind_touch
