"""What the AWS API says of a cache, told as the URL that says the same. Pure; asked by `aws_lookup`.

So whatever is found passes through the same checks as a URL that a person wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from ..endpoint import Endpoint
from ..endpoint_memcached import CARE, DISCOVERY
from ..exceptions import ConfigurationError, StoreUnavailable

Description = Mapping[str, Any]
"""One cache, as botocore gives it."""


def _of_group(group: Description, endpoint: Endpoint) -> str:
    _check(group["Status"], endpoint)
    cluster = bool(group.get("ClusterEnabled"))
    if cluster:
        place = group.get("ConfigurationEndpoint")
    else:
        place = next((nodes.get("PrimaryEndpoint") for nodes in group.get("NodeGroups", ())), None)
    return _redis(
        endpoint,
        group.get("Engine", "redis"),
        _places(endpoint, place)[0],
        tls=bool(group.get("TransitEncryptionEnabled")),
        token=bool(group.get("AuthTokenEnabled")),
        users=bool(group.get("UserGroupIds")),
        options={"cluster": "true"} if cluster else {},
    )


def _of_serverless(cache: Description, endpoint: Endpoint) -> str:
    _check(cache["Status"], endpoint)
    place = _places(endpoint, cache.get("Endpoint"))
    if cache["Engine"].lower() == "memcached":
        if _care(endpoint):
            raise ConfigurationError(
                f"the cache {endpoint.host!r} is Serverless Memcached, which has one endpoint and keeps its own copies. "
                f"Write elasticache://{endpoint.host}?region={endpoint.region}, without {_listed(_care(endpoint))}."
            )
        return _memcached(endpoint, "memcached", place[0], {"tls": "true"})
    # One node serves all slots, so a plain client does, which costs less than one that follows a cluster.
    return _redis(
        endpoint,
        cache["Engine"],
        place[0],
        tls=True,
        users=bool(cache.get("UserGroupId")),
        options={"serverless": "true"} if endpoint.iam else {},
    )


def _of_cluster(cluster: Description, endpoint: Endpoint) -> str:
    _check(cluster["CacheClusterStatus"], endpoint)
    if group := cluster.get("ReplicationGroupId"):
        raise ConfigurationError(
            f"{endpoint.host!r} is one node of the replication group {group!r}, and may be a replica. "
            f"Write elasticache://{group} instead."
        )
    tls = bool(cluster.get("TransitEncryptionEnabled"))
    if cluster["Engine"].lower() == "memcached":
        # Its nodes may be others any time, so they are asked of it, and not told here.
        place = _places(endpoint, cluster.get("ConfigurationEndpoint"))[0]
        return _memcached(endpoint, DISCOVERY, place, _care(endpoint) | ({"tls": "true"} if tls else {}))
    places = _places(endpoint, *(node.get("Endpoint") for node in cluster.get("CacheNodes", ())))
    return _redis(
        endpoint, cluster["Engine"], places[0], tls=tls, token=bool(cluster.get("AuthTokenEnabled"))
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of cache: how botocore is asked for those of a name, and what becomes of the answer."""

    operation: str
    parameter: str
    members: str
    missing: str
    """AWS's code for: there is none."""
    url: Callable[[Description, Endpoint], str]
    options: Mapping[str, Any] = field(default_factory=dict)


KINDS: Final = (
    Kind(
        "describe_replication_groups",
        "ReplicationGroupId",
        "ReplicationGroups",
        "ReplicationGroupNotFoundFault",
        _of_group,
    ),
    Kind(
        "describe_serverless_caches",
        "ServerlessCacheName",
        "ServerlessCaches",
        "ServerlessCacheNotFoundFault",
        _of_serverless,
    ),
    Kind(
        "describe_cache_clusters",
        "CacheClusterId",
        "CacheClusters",
        "CacheClusterNotFound",
        _of_cluster,
        {"ShowCacheNodeInfo": True},
    ),
)
"""In the order in which they are asked for."""

_NOT_THERE: Final = frozenset(
    {"creating", "create-failed", "deleting", "deleted", "restore-failed", "incompatible-network"}
)


def _check(status: str, endpoint: Endpoint) -> None:
    if status.lower() in _NOT_THERE:
        raise _not_there(endpoint, f"its status is {status!r}")


def _not_there(endpoint: Endpoint, why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the cache {endpoint.host!r} in {endpoint.region} cannot be used: {why}. Try again when it is available, or name "
        "another one.",
        sent=False,
    )


def _places(endpoint: Endpoint, *found: Description | None) -> Sequence[str]:
    """host:port of each that has an address yet; one at least."""
    places = [f"{place['Address']}:{place['Port']}" for place in found if place]
    if not places:
        raise _not_there(endpoint, "it has no endpoint yet")
    return places


def _redis(
    endpoint: Endpoint,
    engine: str,
    place: str,
    *,
    tls: bool,
    token: bool = False,
    users: bool = False,
    options: Mapping[str, str] = {},
) -> str:
    """`token`, `users`: whether the cache asks for its AUTH token, or for one of the users of its user group."""
    name, iam = endpoint.host, endpoint.iam
    if care := _care(endpoint):
        raise ConfigurationError(
            f"the URL has {_listed(care)} for Memcached, and the cache {name!r} is none. Remove it; "
            "Valkey and Redis OSS keep their copies by replicas."
        )
    if iam is not None:
        if not users:
            raise ConfigurationError(
                f"the URL asks for IAM, but the cache {name!r} has no user group. Give it one that holds the user "
                f"{iam.user!r}, with authentication by IAM."
            )
        if not tls:
            raise ConfigurationError(
                f"the URL asks for IAM, but the cache {name!r} has no encryption in transit, which IAM needs. Turn it on."
            )
        options = {**options, "iam_user": iam.user, "iam_cache": name, "region": endpoint.region or ""}
    elif token and not endpoint.password:
        raise ConfigurationError(
            f"the cache {name!r} asks for its AUTH token. Write elasticache://:token@{name}?region={endpoint.region}."
        )
    elif users and not endpoint.password:
        raise ConfigurationError(
            f"the cache {name!r} asks for a user of its user group. Add iam_user=… to the URL, or write "
            f"elasticache://user:password@{name}?region={endpoint.region}."
        )
    who = ""
    if endpoint.username or endpoint.password:
        who = f"{quote(endpoint.username or '', safe='')}:{quote(endpoint.password or '', safe='')}@"
    scheme = "valkey" if engine.lower() == "valkey" else "redis"
    return f"{scheme}{'s' * tls}://{who}{place}{'?' * bool(options)}{urlencode(options)}"


def _memcached(endpoint: Endpoint, scheme: str, place: str, options: Mapping[str, str]) -> str:
    if endpoint.iam or endpoint.username or endpoint.password:
        raise ConfigurationError(
            f"the cache {endpoint.host!r} is Memcached, which takes no user and no password. "
            f"Write elasticache://{endpoint.host}?region={endpoint.region}."
        )
    return f"{scheme}://{place}{'?' * bool(options)}{urlencode(options)}"


def _care(endpoint: Endpoint) -> dict[str, str]:
    """The options of the URL that are for Memcached alone, as far as they say something."""
    usual = Endpoint("memcached")
    return {
        name: str(getattr(endpoint, name)) for name in CARE if getattr(endpoint, name) != getattr(usual, name)
    }


def _listed(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
