"""What a URL says of Memcached: its nodes, or the endpoint that tells them, and what keeps sessions when nodes fail or
change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Final

from .endpoint_options import NAME, is_host
from .exceptions import ConfigurationError

DISCOVERY: Final = "memcached+discovery"
CARE: Final = ("copies", "discovery_interval", "handover")
"""The options that only discovery has, and `copies`."""
OPTIONS: Final = {"memcached": ("copies", "tls", "ca_file"), DISCOVERY: (*CARE, "tls", "ca_file")}
"""By scheme."""
INTERVAL: Final = 60.0
"""Seconds from one look at the configuration endpoint to the next: as AWS's own clients do."""

_NODES: Final = "'memcached://10.0.1.5:11211,10.0.1.6:11211', or a single 'memcached://host:port'"
_DISCOVERED: Final = "'memcached+discovery://my-cache.abc123.cfg.use1.cache.amazonaws.com:11211'"
# The endpoint that tells Memcached's nodes; it is none itself.
_CONFIGURATION: Final = re.compile(r"\.cfg\..*cache\.amazonaws\.com")
# [an IPv6 address] or a name, and perhaps a port.
_NODE: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:\s#]+))(?::([0-9]{1,5}))?")
_SHORTEST_INTERVAL: Final = 0.1
# After twice that, everybody has heard of a change (`memcached_views.KNOWN_AFTER`).
_LONGEST_INTERVAL: Final = 300.0
# A number of seconds, as short as it can be meant.
_WHOLE: Final = re.compile(r"[0-9]{1,10}")
_NUMBER: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10})?")


def nodes(places: str) -> tuple[tuple[str, int], ...]:
    """Those of `a:11211,b:11211`."""
    found: list[tuple[str, int]] = []
    for place in _split(places, _NODES):
        node = _node(place)
        if node is None:
            raise ConfigurationError(
                f"{NAME}URL names a Memcached node as {place!r}, which is no host and port. Write {_NODES}."
            )
        if _CONFIGURATION.search(node[0]):
            raise ConfigurationError(
                f"{NAME}URL names the configuration endpoint {place!r} as a node, and behind it is another one each time. "
                f"Write '{DISCOVERY}://{place}', which asks it for the nodes."
            )
        if node in found:
            raise ConfigurationError(f"{NAME}URL names the node {place!r} twice. Write each node once.")
        found.append(node)
    return tuple(found)


def configuration_endpoint(places: str) -> tuple[str, int]:
    """That of `host:11211`."""
    written = _split(places, _DISCOVERED)
    if len(written) > 1:
        raise ConfigurationError(
            f"{NAME}URL names {len(written)} hosts behind {DISCOVERY}://. Write the one configuration endpoint, which tells "
            f"the nodes: {_DISCOVERED}; or memcached:// for nodes that stay."
        )
    endpoint = _node(written[0])
    if endpoint is None:
        raise ConfigurationError(
            f"{NAME}URL names the configuration endpoint as {written[0]!r}, which is no host and port. "
            f"Write {_DISCOVERED}."
        )
    return endpoint


def _split(places: str, example: str) -> list[str]:
    if "@" in places:
        raise ConfigurationError(
            f"{NAME}URL holds a user or password, and Memcached takes none. Write {example}, without them."
        )
    return places.removesuffix("/").split(",")


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
    return (host, number) if 0 < number < 2**16 and "/" not in host and is_host(host) else None


# Of a password that took the URL apart, part may be the value of an option. So none is repeated.


def copies(options: Mapping[str, str], nodes: int | None = None) -> int:
    """`nodes`: how many there are, where the URL says it."""
    written = options.get("copies", "1")
    if written not in ("1", "2"):
        raise ConfigurationError(
            f"{NAME}URL option 'copies' is neither 1 nor 2. Write copies=2 to keep each session on two nodes, or copies=1."
        )
    if written == "2" and nodes == 1:
        raise ConfigurationError(
            f"{NAME}URL asks for two copies, and names one node. Name two nodes or more, or remove copies=2."
        )
    return int(written)


def interval(options: Mapping[str, str]) -> float:
    written = options.get("discovery_interval")
    if written is None:
        return INTERVAL
    seconds = float(written) if _NUMBER.fullmatch(written) else 0.0
    if not _SHORTEST_INTERVAL <= seconds <= _LONGEST_INTERVAL:
        raise ConfigurationError(
            f"{NAME}URL option 'discovery_interval' is no number of seconds that it can be. Write one from "
            f"{_SHORTEST_INTERVAL:g} to {_LONGEST_INTERVAL:g}, as in discovery_interval=60."
        )
    return seconds


def handover(options: Mapping[str, str]) -> int | None:
    written = options.get("handover")
    if written is None:
        return None
    if not _WHOLE.fullmatch(written):
        raise ConfigurationError(
            f"{NAME}URL option 'handover' is no number of seconds. Write whole seconds, as in handover=86400, or nothing: then "
            "the nodes of before the last four changes are asked without an end."
        )
    return int(written)
