r"""What a configuration endpoint replies to `config get cluster`: Memcached's nodes, and how new that is. Pure.

CONFIG cluster 0 <bytes>\r\n
<version>\n
<host name>|<IP address>|<port> <host name>|<IP address>|<port>\n
\r\n
END\r\n
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from ..endpoint_options import is_host

QUESTION: Final = b"config get cluster\r\n"
LONGEST: Final = 2**17
"""The most bytes of a reply. ElastiCache has up to 300 nodes in a cluster, of up to 310 bytes each."""
MOST_NODES: Final = 300
_HEADER: Final = re.compile(rb"CONFIG cluster [0-9]{1,10} [0-9]{1,10}")
_VERSION: Final = re.compile(rb"[0-9]{1,18}")
_NODE: Final = re.compile(r"([^|\s]*)\|([^|\s]*)\|([0-9]{1,5})", re.ASCII)
# What a name of DNS is made of; of addresses, those of IPv4 fit as well.
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,252})")


@dataclass(frozen=True, slots=True)
class Listing:
    version: int
    """Higher with each change of the nodes."""
    nodes: tuple[str, ...]
    """Their names, each once, in the endpoint's order."""


def name_of(host: str, port: int) -> str:
    """What a node goes by."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def place_of(name: str) -> tuple[str, int]:
    """Host and port of the node that goes by `name`."""
    host, _, port = name.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port) if port.isascii() and port.isdigit() else 0


def is_name(name: object) -> bool:
    """Whether a node can go by it."""
    if not isinstance(name, str) or len(name) > 310:
        return False
    host, port = place_of(name)
    try:
        return name == name_of(_host(host) or "", port) and 0 < port < 2**16
    except ValueError:
        return False


def is_whole(reply: bytes | bytearray) -> bool:
    """Whether there is nothing to wait for: it has its end, or is none."""
    return reply.endswith((b"\nEND\r\n", b"\nEND\n")) or (not reply.startswith(b"CONFIG") and b"\n" in reply)


def parse(reply: bytes) -> Listing:
    """Raises ValueError, which says what is wrong with it."""
    if len(reply) > LONGEST:
        raise ValueError(f"a reply of more than {LONGEST} bytes")
    header, *lines = [line.removesuffix(b"\r") for line in reply.split(b"\n")]
    if not _HEADER.fullmatch(header):
        raise ValueError(f"it says {header[:60]!r}")
    lines = [line for line in lines if line]
    if len(lines) != 3 or lines[2] != b"END":
        raise ValueError("a reply without nodes, without its end, or with more than that")
    version, listed, _ = lines
    if not _VERSION.fullmatch(version):
        raise ValueError(f"a version {version[:60]!r}")
    written = listed.decode("ascii").split()
    nodes = tuple(dict.fromkeys(map(_node, written)))
    if not 0 < len(nodes) <= MOST_NODES:
        raise ValueError(f"{len(nodes)} nodes")
    return Listing(int(version), nodes)


def _node(written: str) -> str:
    match = _NODE.fullmatch(written)
    if match is None:
        raise ValueError(f"a node {written[:60]!r}")
    name, address, port = match[1].lower(), match[2], int(match[3])
    # The name where there is one: TLS checks it, and a node that is replaced keeps it.
    host = _host(name) if name else str(ip_address(address))
    if not host or not 0 < port < 2**16 or "%" in host:
        raise ValueError(f"a node {written[:60]!r}")
    return name_of(host, port)


def _host(name: str) -> str | None:
    if ":" in name:
        return str(IPv6Address(name))
    return name if _NAME.fullmatch(name) and is_host(name) else None
