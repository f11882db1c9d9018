"""Valkey and Redis: clients for a URL, or around a client object. The only file that imports redis."""

from __future__ import annotations

import importlib
from functools import partial
from types import ModuleType
from typing import Any, Final

from ..exceptions import ConfigurationError
from ..session import logger
from ..settings import Settings
from .base import AsyncCacheClient, CacheClient
from .redis_cluster import AsyncRedisClusterClient, RedisClusterClient
from .redis_driver import Driver
from .redis_transport import AsyncRedisClient, RedisClient

# How much of TIMEOUT one sending of a command may take. The rest is for waiting for a free connection, or for sending again
# what failed at once.
_ATTEMPT: Final = 0.8


def connect(settings: Settings) -> CacheClient:
    """A client for threads, as the settings say. Connects on first use."""
    client: CacheClient = _made(settings, Driver("redis"), "redis", RedisClient, RedisClusterClient)
    return client


def connect_async(settings: Settings) -> AsyncCacheClient:
    """A client for the running event loop. Connects on first use."""
    cluster = partial(AsyncRedisClusterClient, patience=settings.timeout * (1 - _ATTEMPT))
    client: AsyncCacheClient = _made(settings, Driver("redis"), "redis.asyncio", AsyncRedisClient, cluster)
    return client


def _made(settings: Settings, driver: Driver, package: str, single: Any, cluster: Any) -> Any:
    module = importlib.import_module(package)
    endpoint, options = settings.endpoint, _options(settings, module)
    if not endpoint.cluster:
        kind = module.SSLConnection if endpoint.tls else module.Connection
        pool = module.BlockingConnectionPool(
            connection_class=kind,
            host=endpoint.host,
            port=endpoint.port,
            db=endpoint.db,
            max_connections=settings.max_connections,
            timeout=settings.timeout * (1 - _ATTEMPT),
            **options,
        )
        return single(module.Redis(connection_pool=pool), driver)

    where: dict[str, Any] = {"host": endpoint.host, "port": endpoint.port, "ssl": endpoint.tls}
    if package == "redis":
        # From a URL, it takes a pool that waits for a free connection. (For asyncio, our own client waits.)
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        where = {
            "url": f"redis{'s' * endpoint.tls}://{host}:{endpoint.port}",
            "timeout": settings.timeout * (1 - _ATTEMPT),
        }
        where["connection_pool_class"] = module.BlockingConnectionPool

    def made() -> Any:
        return module.RedisCluster(
            **where,
            max_connections=settings.max_connections,
            # Else the driver forgets the configuration endpoint, and with it every node that comes later.
            dynamic_startup_nodes=False,
            **options,
        )

    return cluster(made, driver)


def _options(settings: Settings, module: ModuleType) -> dict[str, Any]:
    """Connections that fit TIMEOUT, are made in one round trip, and never send a command twice."""
    endpoint = settings.endpoint
    backoff = importlib.import_module("redis.backoff")
    retry = importlib.import_module(f"{module.__name__}.retry")
    maintenance = importlib.import_module("redis.maint_notifications")
    return {
        "username": endpoint.username,
        "password": endpoint.password,
        "socket_timeout": settings.timeout * _ATTEMPT,
        "socket_connect_timeout": settings.connect_timeout,
        "retry": retry.Retry(backoff.NoBackoff(), 0),
        # No HELLO, no CLIENT SETINFO, no CLIENT MAINT_NOTIFICATIONS: a new connection costs three trips less.
        "protocol": 2,
        "driver_info": None,
        "maint_notifications_config": maintenance.MaintNotificationsConfig(enabled=False),
    }


def adopt(client: Any, settings: Settings) -> CacheClient:
    """A client object of the app: redis.Redis, redis.RedisCluster, valkey.Valkey or valkey.ValkeyCluster."""
    driver, clustered = _recognised(client, asynchronous=False)
    _warn_of_patience(client, settings)
    return RedisClusterClient(lambda: client, driver) if clustered else RedisClient(client, driver)


def adopt_async(client: Any, settings: Settings) -> AsyncCacheClient:
    """The same for redis.asyncio and valkey.asyncio, whose objects belong to one event loop."""
    driver, clustered = _recognised(client, asynchronous=True)
    _warn_of_patience(client, settings)
    return AsyncRedisClusterClient(lambda: client, driver) if clustered else AsyncRedisClient(client, driver)


def _warn_of_patience(client: Any, settings: Settings) -> None:
    """The object is taken as it is; whoever made it may not know how long it makes a request wait."""
    waits = client.get_connection_kwargs().get("socket_timeout")
    if waits is None or waits > settings.timeout:
        logger.warning(
            "the client object waits for a reply %s, longer than ELASTICACHE_SESSIONS_TIMEOUT (%s s) allows. Make it with "
            "socket_timeout, socket_connect_timeout and retry=Retry(NoBackoff(), 0), or pass a URL instead.",
            "for ever" if waits is None else f"for {waits} s",
            settings.timeout,
        )


def _recognised(client: Any, *, asynchronous: bool) -> tuple[Driver, bool]:
    # By name, since valkey-py may not be installed, and a RedisCluster is no subclass of Redis.
    for kind in type(client).__mro__:
        root = kind.__module__.partition(".")[0]
        if root not in ("redis", "valkey") or kind.__name__ not in _CLIENTS:
            continue
        if asynchronous is not kind.__module__.startswith(f"{root}.asyncio"):
            wanted = f"{root}.asyncio" if asynchronous else root
            raise ConfigurationError(
                f"the client object is a {kind.__module__}.{kind.__name__}. Pass one of {wanted}."
            )
        if client.get_encoder().decode_responses:
            raise ConfigurationError(
                "the client object decodes replies into str, and sessions are bytes. "
                "Make one with decode_responses=False."
            )
        return Driver(root), kind.__name__.endswith("Cluster")
    raise ConfigurationError(
        f"the client object is a {type(client).__module__}.{type(client).__qualname__}. Pass a redis.Redis, "
        "redis.RedisCluster, valkey.Valkey or valkey.ValkeyCluster, or set ELASTICACHE_SESSIONS_URL instead."
    )


_CLIENTS: Final = ("Redis", "RedisCluster", "Valkey", "ValkeyCluster")
