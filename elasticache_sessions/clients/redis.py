"""Valkey and Redis: clients for a URL, or around a client object. Imports redis, and `redis_connection` with it, only then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ..exceptions import ConfigurationError
from ..session import logger
from ..settings import Settings
from .base import AsyncCacheClient, CacheClient
from .breaker import Breakers
from .pool import Pool
from .redis_cluster import RedisClusterClient
from .redis_cluster_async import AsyncRedisClusterClient
from .redis_driver import Driver, loaded
from .redis_tokens import tokens
from .redis_transport import Lines, RedisClient, Theirs
from .redis_transport_async import AsyncRedisClient, Carrier, Pooled
from .tls import context


def connect(settings: Settings) -> CacheClient:
    """A client for threads, as the settings say. Connects on first use."""
    breakers = Breakers(settings.timeouts)
    endpoint = settings.endpoint
    driver, tls = Driver("redis", tls=endpoint.tls), context(endpoint)
    ours = loaded(".redis_connection")
    options = _options(settings, driver, "redis")

    def lines_to(host: str, port: int, db: int = 0) -> Lines:
        return Pool(
            partial(ours.opened, host=host, port=port, db=db, tls=tls, **options), settings.max_connections
        )

    if not endpoint.cluster:
        lines = lines_to(endpoint.host, endpoint.port, endpoint.db)
        return RedisClient(lines, driver, settings.timeouts, breakers)

    # Only from a URL does it take a pool of ours, which speaks TLS by itself.
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    for_map = {
        "connection_pool_class": type("Pool", (ours.MapPool,), {"tls": tls}),
        "max_connections": settings.max_connections,
        **_OF_CLUSTERS,
        **options,
    }

    def made() -> Any:
        return ours.Cluster(url=f"redis://{host}:{endpoint.port}", **for_map)

    return RedisClusterClient(made, driver, settings.timeouts, breakers, lines_to)


def connect_async(settings: Settings, breakers: Breakers) -> AsyncCacheClient:
    """A client for the running event loop. Connects on first use."""
    endpoint = settings.endpoint
    driver, tls = Driver("redis", tls=endpoint.tls), context(endpoint)
    ours = loaded(".redis_connection")
    options = {**_options(settings, driver, "redis.asyncio"), "max_connections": settings.max_connections}
    where = {"host": endpoint.host, "port": endpoint.port}
    shared_to = _shared(settings, tls, driver, options["credential_provider"]) if ours.hiredis else None
    if not endpoint.cluster and shared_to is not None:
        carrier = shared_to(endpoint.host, endpoint.port)
        return AsyncRedisClient(carrier, settings.timeouts, breakers)
    if not endpoint.cluster:
        made_by = {"connection_class": ours.AsyncConnection, "tls": tls, "db": endpoint.db}
        pool = ours.AsyncPool(**made_by, **where, **options)
        return AsyncRedisClient(Pooled(pool, driver), settings.timeouts, breakers)

    def made() -> Any:
        cluster = ours.AsyncCluster(**where, **_OF_CLUSTERS, **options)
        manager, connection = cluster.nodes_manager, partial(ours.AsyncConnection, tls=tls)
        manager.connection_kwargs["connection_class"] = connection  # of the nodes that it will know
        for node in manager.startup_nodes.values():
            node.connection_class = connection
        return cluster

    return AsyncRedisClusterClient(made, driver, settings.timeouts, breakers, shared_to)


def _shared(settings: Settings, tls: Any, driver: Driver, credentials: Any) -> Callable[[str, int], Carrier]:
    """What makes the connection to a server that all tasks share."""
    shared = loaded(".redis_shared")
    provider = loaded("redis.credentials").UsernamePasswordCredentialProvider
    endpoint = settings.endpoint
    if credentials is None and (endpoint.username or endpoint.password):
        credentials = provider(endpoint.username, endpoint.password)

    def shared_to(host: str, port: int) -> Carrier:
        access = shared.Access(host, port, endpoint.db, tls, credentials)
        carrier: Carrier = shared.Shared(access, driver, settings.timeouts)
        return carrier

    return shared_to


# Else the driver forgets the configuration endpoint, and with it every node that comes later.
_OF_CLUSTERS: Final = {"dynamic_startup_nodes": False}


def _options(settings: Settings, driver: Driver, package: str) -> dict[str, Any]:
    """Connections that are made in one round trip, and never send a command twice."""
    endpoint = settings.endpoint
    backoff = loaded("redis.backoff")
    retry = loaded(f"{package}.retry")
    maintenance = loaded("redis.maint_notifications")
    return {
        "username": endpoint.username,
        "password": endpoint.password,
        "credential_provider": tokens(endpoint, driver),
        # The connections keep to the operation's time limit themselves.
        "socket_timeout": None,
        "socket_connect_timeout": settings.connect_timeout,
        # No HELLO, no CLIENT SETINFO, no CLIENT MAINT_NOTIFICATIONS: a new connection costs three trips less.
        "protocol": 2,
        "driver_info": None,
        "maint_notifications_config": maintenance.MaintNotificationsConfig(enabled=False),
        "retry": retry.Retry(backoff.NoBackoff(), 0),
    }


def adopt(client: Any, settings: Settings) -> CacheClient:
    """A client object of the app: redis.Redis, redis.RedisCluster, valkey.Valkey or valkey.ValkeyCluster."""
    driver, clustered = _recognised(client, asynchronous=False)
    breakers = Breakers(settings.timeouts)
    _warn_of_patience(client, settings)
    if clustered:
        return RedisClusterClient(lambda: client, driver, settings.timeouts, breakers)
    return RedisClient(Theirs(client.connection_pool, driver), driver, settings.timeouts, breakers)


def adopt_async(client: Any, settings: Settings, breakers: Breakers) -> AsyncCacheClient:
    """The same for redis.asyncio and valkey.asyncio, whose objects belong to one event loop."""
    driver, clustered = _recognised(client, asynchronous=True)
    _warn_of_patience(client, settings)
    if clustered:
        return AsyncRedisClusterClient(lambda: client, driver, settings.timeouts, breakers)
    return AsyncRedisClient(Pooled(client.connection_pool, driver), settings.timeouts, breakers)


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
