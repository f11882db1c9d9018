"""Where the store is: what `ELASTICACHE_SESSIONS_URL` says, taken apart and checked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from .exceptions import ConfigurationError

NAME: Final = "ELASTICACHE_SESSIONS_"
"""What the name of every setting begins with, in `app.config`, in Django's settings and in the
environment.
"""

# The store that a URL's scheme means, and whether it speaks TLS.
_SCHEMES: Final = {
    "redis": ("redis", False),
    "rediss": ("redis", True),
    "valkey": ("redis", False),
    "valkeys": ("redis", True),
    "memcached": ("memcached", False),
    "elasticache": ("elasticache", True),
    "memory": ("memory", False),
}
# Part of a password may end up anywhere in a URL that is taken apart wrongly, so an error repeats nothing of it.
_QUOTE: Final = "A password that holds / ? # @ or : is written as urllib.parse.quote(password, safe='')."
EXAMPLE: Final = "'rediss://my-cache.abc123.use1.cache.amazonaws.com:6379', or 'memory://' to try things out"
_NODES: Final = "'memcached://10.0.1.5:11211,10.0.1.6:11211', or a single 'memcached://host:port'"
_LOOKED_UP: Final = "'elasticache://my-cache?region=us-east-1'"
# As ElastiCache has them, in lower case: the names of caches, the ids of users, and regions.
_CACHE: Final = re.compile(r"(?=.{1,50}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
_USER: Final = re.compile(r"(default\.)?[a-z][a-z0-9-]{0,39}")
_REGION: Final = re.compile(r"[a-z]{2,8}(-[a-z0-9]+){2,4}")
# The endpoint that tells Memcached's nodes; it is none itself.
_CONFIGURATION: Final = re.compile(r"\.cfg\..*cache\.amazonaws\.com")
# [an IPv6 address] or a name, and perhaps a port.
_NODE: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:\s#]+))(?::([0-9]{1,5}))?")


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

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Raises ConfigurationError, which says what to write instead and never repeats a password."""
        scheme, _, rest = url.partition("://")
        if scheme.lower() == "memcached":
            # Several hosts are no URL to the standard library.
            places, _, query = rest.partition("?")
            options = dict(parse_qsl(query, keep_blank_values=True))
            _refuse_unknown(options, ("tls", "ca_file"))
            tls = _boolean("URL option 'tls'", options.get("tls", "false"))
            return cls("memcached", nodes=_nodes(places), tls=tls, ca_file=_ca_file(options, tls))
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"{NAME}URL is not a URL. Write {EXAMPLE}. {_QUOTE}") from None
        if parts.scheme not in _SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
            raise ConfigurationError(
                f"{NAME}URL begins with {parts.scheme + '://' if parts.scheme else 'no scheme'!r}; "
                f"known are {known}. Write {EXAMPLE}."
            )
        store, tls = _SCHEMES[parts.scheme]
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if store == "memory":
            _refuse_unknown(options, ())
            return cls(store, host=parts.netloc + parts.path)
        if store == "elasticache":
            _refuse_unknown(options, ("region", "iam_user"))
            name, region = _cache_name(parts, port), _region(options)
            iam = _iam(parts, {**options, "iam_cache": name}) if "iam_user" in options else None
            user, password = _decoded(parts.username), _decoded(parts.password)
            return cls(store, name, username=user, password=password, iam=iam, region=region)
        _refuse_unknown(options, ("cluster", "ca_file", *_IAM))
        if not parts.hostname or not _is_host(parts.hostname):
            raise ConfigurationError(f"{NAME}URL names no host. Write {EXAMPLE}.")
        cluster = _boolean("URL option 'cluster'", options.get("cluster", "false"))
        return cls(
            store,
            parts.hostname,
            6379 if port is None else port,
            _decoded(parts.username),
            _decoded(parts.password),
            _database(parts, cluster),
            tls,
            _ca_file(options, tls),
            cluster,
            iam=_iam(parts, options),
            region=_region(options),
        )


def _ca_file(options: Mapping[str, str], tls: bool) -> str | None:
    path = options.get("ca_file")
    if path == "":
        raise ConfigurationError(
            f"{NAME}URL has an empty ca_file. Write ca_file=/path/to/ca.pem, or nothing."
        )
    if path is not None and not tls:
        raise ConfigurationError(
            f"{NAME}URL names a ca_file, but asks for no TLS. Write rediss:// or valkeys://, or tls=true behind memcached://."
        )
    return path


def _nodes(places: str) -> tuple[tuple[str, int], ...]:
    """Those of `a:11211,b:11211`."""
    if "@" in places:
        raise ConfigurationError(
            f"{NAME}URL holds a user or password, and Memcached takes none. Write {_NODES}, without them."
        )
    nodes: list[tuple[str, int]] = []
    for place in places.removesuffix("/").split(","):
        node = _node(place)
        if node is None:
            raise ConfigurationError(
                f"{NAME}URL names a Memcached node as {place!r}, which is no host and port. Write {_NODES}."
            )
        if _CONFIGURATION.search(node[0]):
            raise ConfigurationError(
                f"{NAME}URL names the configuration endpoint {place!r}, behind which is another node each time. Name the nodes "
                "themselves, or write elasticache://<name>?region=…, which looks them up."
            )
        if node in nodes:
            raise ConfigurationError(f"{NAME}URL names the node {place!r} twice. Write each node once.")
        nodes.append(node)
    return tuple(nodes)


def _node(place: str) -> tuple[str, int] | None:
    match = _NODE.fullmatch(place)
    if match is None:
        return None
    address, name, port = match.groups()
    try:
        host = str(IPv6Address(address)) if address else name.lower()
    except ValueError:
        return None
    number = int(port or 11211)
    return (host, number) if 0 < number < 2**16 and "/" not in host and _is_host(host) else None


def _cache_name(parts: SplitResult, port: int | None) -> str:
    name = parts.hostname or ""
    if port is not None or parts.path.strip("/") or not _CACHE.fullmatch(name):
        raise ConfigurationError(
            f"{NAME}URL names no cache behind elasticache://. Write the name that the cache has in ElastiCache, not "
            f"an address: {_LOOKED_UP}. {_QUOTE}"
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
                f"single hyphens. {_QUOTE}"
            )
    return Iam(user, cache, _boolean("URL option 'serverless'", options.get("serverless", "false")))


_IAM: Final = ("iam_user", "iam_cache", "region", "serverless")
_IAM_NEEDS: Final = {
    "iam_user": "the id of the ElastiCache user",
    "iam_cache": "the name of the replication group or, together with serverless=true, of the serverless cache",
}


def _region(options: Mapping[str, str]) -> str | None:
    region = options.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise ConfigurationError(
            f"{NAME}URL option 'region' is no AWS region. Write one like 'us-east-1'. {_QUOTE}"
        )
    return region


def _decoded(part: str | None) -> str | None:
    return unquote(part) if part else None


def _is_host(name: str) -> bool:
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def _database(parts: SplitResult, cluster: bool) -> int:
    path = parts.path.strip("/")
    if not path:
        return 0
    if not (path.isascii() and path.isdigit()):
        raise ConfigurationError(
            f"{NAME}URL names no database number behind the host. Write '/0', or nothing. {_QUOTE}"
        )
    if cluster and int(path):
        raise ConfigurationError(
            f"{NAME}URL asks for database {path}, but cluster mode has only database 0. Remove '/{path}', "
            f"and keep apps apart by {NAME}PREFIX."
        )
    return int(path)


def _refuse_unknown(options: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            allowed = f"allowed here: {', '.join(known)}" if known else "this kind of URL takes none"
            shown = f" {name!r}" if name.isidentifier() else ""
            raise ConfigurationError(
                f"{NAME}URL has an unknown option{shown}; {allowed}.{suggestion(name, known)} {_QUOTE}"
            )


def suggestion(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _boolean(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ConfigurationError(f"{name} is {value!r}. Write true or false.")
