"""Which client is for which URL or client object. Imports a driver only where it is the one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..session import Rules
from ..settings import Settings
from .base import AsyncCacheClient, CacheClient, Scanning
from .breaker import Breakers

NodeOf = Callable[[bytes], str]


def client_for(settings: Settings, given: Any) -> CacheClient:
    """For threads. `given`: the app's own client object, or None: as the URL says.

    Raises:
        ConfigurationError, MissingExtra
        StoreUnavailable: AWS did not say where the cache is that the URL names.
    """
    settings = _located(settings, given)
    store = settings.endpoint.store if given is None else "given"
    if store == "memory":
        from .memory import MemoryClient

        return MemoryClient.shared(settings.endpoint.host)
    if store == "memcached":
        from . import memcached

        return memcached.connect(settings)
    from . import redis

    return redis.connect(settings) if given is None else redis.adopt(given, settings)


def _located(settings: Settings, given: Any) -> Settings:
    """With the URL of the cache itself, where the settings' only names it."""
    if given is not None or settings.endpoint.store != "elasticache":
        return settings
    from . import aws

    return aws.located(settings)


@dataclass(frozen=True, slots=True)
class AsyncClients:
    """What makes a client for the running event loop, and what is true of each that it makes."""

    make: Callable[[], AsyncCacheClient]
    blind_touch: bool = False
    can_scan: bool = True
    node_of: NodeOf | None = None
    """What tells the node that has a key, where the store has several that fail one by one."""

    def rules_on(self, rules: Rules) -> Rules:
        """`rules`, and what such a client adds to them."""
        return replace(rules, blind_touch=self.blind_touch, can_scan=self.can_scan, node_of=self.node_of)


def rules_on(client: CacheClient, rules: Rules) -> Rules:
    """`rules`, and what `client` adds to them."""
    can_scan, node_of = isinstance(client, Scanning), getattr(client, "node_of", None)
    return replace(rules, blind_touch=client.blind_touch, can_scan=can_scan, node_of=node_of)


def async_clients_for(settings: Settings, given: Any) -> AsyncClients:
    """As `client_for`, for event loops."""
    settings = _located(settings, given)
    store = settings.endpoint.store if given is None else "given"
    if given is None:
        from . import tls

        tls.context(settings.endpoint)  # now, and not on an event loop
    if store == "memory":
        from .memory import AsyncMemoryClient, MemoryClient

        shared = MemoryClient.shared(settings.endpoint.host)
        return AsyncClients(lambda: AsyncMemoryClient(shared))
    # The breakers are those of all event loops.
    if store == "memcached":
        from . import memcached

        make = partial(memcached.connect_async, settings, memcached.breakers_for(settings))
        return AsyncClients(make, blind_touch=True, can_scan=False, node_of=memcached.node_of_for(settings))
    from . import redis

    breakers = Breakers(settings.timeouts)
    if given is None:
        return AsyncClients(partial(redis.connect_async, settings, breakers))
    adopted = redis.adopt_async(given, settings, breakers)
    return AsyncClients(lambda: adopted)
