"""Where the store is: what `ELASTICACHE_SESSIONS_URL` says, taken apart and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from . import endpoint_memcached as memcached
from .endpoint_options import NAME, QUOTE, boolean, ca_file, is_host, refuse_unknown
from .exceptions import ConfigurationError

# The store that a URL's scheme means, and whether it speaks TLS.
_SCHEMES: Final = {
    "redis": ("redis", False),
    "rediss": ("redis", True),
    "valkey": ("redis", False),
    "valkeys": ("redis", True),
    "memcached": ("memcached", False),
    "memcached+discovery": ("memcached", False),
    "elasticache": ("elasticache", True),
    "memory": ("memory", False),
}
EXAMPLE: Final = "'rediss://my-cache.abc123.use1.cache.amazonaws.com:6379', or 'memory://' to try things out"
_LOOKED_UP: Final = "'elasticache://my-cache?region=us-east-1'"
# As ElastiCache has them, in lower case: the names of caches, the ids of users, and regions.
_CACHE: Final = re.compile(r"(?=.{1,50}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
_USER: Final = re.compile(r"(default\.)?[a-z][a-z0-9-]{0,39}")
_REGION: Final = re.compile(r"[a-z]{2,8}(-[a-z0-9]+){2,4}")


@dataclass(frozen=True, slots=True)
class Iam:
    """A user of the cache who signs in by tokens, made of AWS credentials, instead of a password."""

    user: str
    cache: str
    """The name of the replication group or, where `serverless`, of the serverless cache."""
    serverless: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the store is: what a URL says."""

    store: str
    host: str = ""
    port: int = 6379
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: bool = False
    ca_file: str | None = None
    """The file of the CAs that are trusted, in PEM format; None: the system's."""
    cluster: bool = False
    nodes: tuple[tuple[str, int], ...] = ()
    """Memcached's: host and port of each, in the URL's order."""
    iam: Iam | None = None
    region: str | None = None
    """Of AWS; None: what the environment or AWS's configuration says, where it is needed."""
    copies: int = 1
    """On how many of Memcached's nodes a session lives."""
    discovery: bool = False
    """Whether `host` and `port` are those of a configuration endpoint, which tells Memcached's nodes."""
    discovery_interval: float = memcached.INTERVAL
    """Seconds from one look at it to the next."""
    handover: int | None = None
    """For how many seconds the nodes that Memcached had before a change are asked for what is missing. None: without an
    end, as a session may have any lifetime of its own, but after the last four changes alone."""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Raises ConfigurationError, which says what to write instead and never repeats a password."""
        scheme, _, rest = url.partition("://")
        if scheme.lower() in memcached.OPTIONS:
            # Several hosts are no URL to the standard library.
            places, _, query = rest.partition("?")
            return cls._memcached(scheme.lower(), places, dict(parse_qsl(query, keep_blank_values=True)))
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"{NAME}URL is not a URL. Write {EXAMPLE}. {QUOTE}") from None
        if parts.scheme not in _SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
            raise ConfigurationError(
                f"{NAME}URL begins with {parts.scheme + '://' if parts.scheme else 'no scheme'!r}; "
                f"known are {known}. Write {EXAMPLE}."
            )
        store, tls = _SCHEMES[parts.scheme]
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if store == "memory":
            refuse_unknown(options, ())
            return cls(store, host=parts.netloc + parts.path)
        if store == "elasticache":
            # Those of Memcached are refused by `aws_caches` where the cache turns out to be none.
            refuse_unknown(options, ("region", "iam_user", *memcached.CARE))
            name, region = _cache_name(parts, port), _region(options)
            iam = _iam(parts, {**options, "iam_cache": name}) if "iam_user" in options else None
            user, password = _decoded(parts.username), _decoded(parts.password)
            return cls(
                store,
                name,
                username=user,
                password=password,
                iam=iam,
                region=region,
                copies=memcached.copies(options),
                discovery_interval=memcached.interval(options),
                handover=memcached.handover(options),
            )
        refuse_unknown(options, ("cluster", "ca_file", *_IAM))
        if not parts.hostname or not is_host(parts.hostname):
            raise ConfigurationError(f"{NAME}URL names no host. Write {EXAMPLE}.")
        cluster = boolean("URL option 'cluster'", options.get("cluster", "false"))
        return cls(
            store,
            parts.hostname,
            6379 if port is None else port,
            _decoded(parts.username),
            _decoded(parts.password),
            _database(parts, cluster),
            tls,
            ca_file(options, tls),
            cluster,
            iam=_iam(parts, options),
            region=_region(options),
        )

    @classmethod
    def _memcached(cls, scheme: str, places: str, options: Mapping[str, str]) -> Self:
        refuse_unknown(options, memcached.OPTIONS[scheme])
        discovery = scheme == memcached.DISCOVERY
        host, port = "", 6379
        nodes: tuple[tuple[str, int], ...] = ()
        if discovery:
            host, port = memcached.configuration_endpoint(places)
        else:
            nodes = memcached.nodes(places)
        tls = boolean("URL option 'tls'", options.get("tls", "false"))
        return cls(
            "memcached",
            host,
            port,
            tls=tls,
            ca_file=ca_file(options, tls),
            nodes=nodes,
            copies=memcached.copies(options, None if discovery else len(nodes)),
            discovery=discovery,
            discovery_interval=memcached.interval(options),
            handover=memcached.handover(options),
        )


def _cache_name(parts: SplitResult, port: int | None) -> str:
    name = parts.hostname or ""
    if port is not None or parts.path.strip("/") or not _CACHE.fullmatch(name):
        raise ConfigurationError(
            f"{NAME}URL names no cache behind elasticache://. Write the name that the cache has in ElastiCache, not "
            f"an address: {_LOOKED_UP}. {QUOTE}"
        )
    return name


def _iam(parts: SplitResult, options: Mapping[str, str]) -> Iam | None:
    if not options.keys() & set(_IAM):
        return None
    for name, meaning in _IAM_NEEDS.items():
        if name not in options:
            raise ConfigurationError(
                f"{NAME}URL has options of IAM, but not {name}. Add {name}=…: {meaning}."
            )
    if not _SCHEMES[parts.scheme][1]:
        raise ConfigurationError(
            f"{NAME}URL asks for IAM without TLS, which ElastiCache refuses. Write {parts.scheme}s:// instead."
        )
    if parts.username or parts.password:
        raise ConfigurationError(
            f"{NAME}URL has iam_user and a user or password before the host. Write one of them: IAM takes no password."
        )
    user, cache = options["iam_user"].lower(), options["iam_cache"].lower()
    for name, value, known in (("iam_user", user, _USER), ("iam_cache", cache, _CACHE)):
        if not known.fullmatch(value):
            raise ConfigurationError(
                f"{NAME}URL option {name!r} is none that ElastiCache has. Write {_IAM_NEEDS[name]}: letters, digits and "
                f"single hyphens. {QUOTE}"
            )
    return Iam(user, cache, boolean("URL option 'serverless'", options.get("serverless", "false")))


_IAM: Final = ("iam_user", "iam_cache", "region", "serverless")
_IAM_NEEDS: Final = {
    "iam_user": "the id of the ElastiCache user",
    "iam_cache": "the name of the replication group or, together with serverless=true, of the serverless cache",
}


def _region(options: Mapping[str, str]) -> str | None:
    region = options.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise ConfigurationError(
            f"{NAME}URL option 'region' is no AWS region. Write one like 'us-east-1'. {QUOTE}"
        )
    return region


def _decoded(part: str | None) -> str | None:
    return unquote(part) if part else None


def _database(parts: SplitResult, cluster: bool) -> int:
    path = parts.path.strip("/")
    if not path:
        return 0
    if not (path.isascii() and path.isdigit()):
        raise ConfigurationError(
            f"{NAME}URL names no database number behind the host. Write '/0', or nothing. {QUOTE}"
        )
    if cluster and int(path):
        raise ConfigurationError(
            f"{NAME}URL asks for database {path}, but cluster mode has only database 0. Remove '/{path}', "
            f"and keep apps apart by {NAME}PREFIX."
        )
    return int(path)
