"""What the servers, the stores and the proxy must know of a protocol: Redis's and Valkey's, and Memcached's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import memcached, resp

HOST = "127.0.0.1"
Command = list[bytes]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One protocol, and the program that speaks it."""

    url: Callable[[tuple[int, ...]], str]
    """What the package is told, for servers on these ports of this machine."""
    options: Callable[[int, Path], list[str]]
    """How the program is told its port, and the directory that it may write to."""
    pid: Callable[[int], int]
    """The process id of the server on that port, as it says."""
    clients: Callable[[int], int]
    """How many clients the server on that port has, the one that asks left out."""
    command: Callable[..., object]
    """One command to the server on a port, on a connection of its own: `command(port, "get", "key")`."""
    connection: Callable[[int], resp.Connection]
    parse_command: Callable[[bytes | bytearray], tuple[Command, int]]
    """The command at the beginning of these bytes, and where it ends; raises `resp.Incomplete`."""
    parse_reply: Callable[[bytes | bytearray, Command], tuple[object, int]]
    """The same for the reply to a command."""
    routed: bool = False
    """Whether each key belongs to one server, by the clients' own choice among the ports."""


def _redis_url(ports: tuple[int, ...]) -> str:
    return f"redis://{HOST}:{ports[0]}" + ("?cluster=true" if len(ports) > 1 else "")


def _redis_options(port: int, directory: Path) -> list[str]:
    return [
        *("--port", str(port), "--bind", HOST, "--dir", str(directory)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no"),
    ]


def _redis_pid(port: int) -> int:
    info = resp.command(port, "INFO", "server")
    # Whatever else may answer at that port, while this one does not listen there.
    found = re.search(rb"process_id:(\d+)\r\n", info) if isinstance(info, bytes) else None
    return int(found[1]) if found else 0


def _redis_clients(port: int) -> int:
    listed = resp.command(port, "CLIENT", "LIST", "TYPE", "normal")
    assert isinstance(listed, bytes)
    return len(listed.splitlines()) - 1


def _memcached_url(ports: tuple[int, ...]) -> str:
    return "memcached://" + ",".join(f"{HOST}:{port}" for port in ports)


def _memcached_options(port: int, directory: Path) -> list[str]:
    user = ["-u", "root"] if os.geteuid() == 0 else []  # it refuses to be root without having been told
    return ["-l", HOST, "-p", str(port), "-U", "0", "-m", "64", *user]


def _memcached_pid(port: int) -> int:
    return int(memcached.stats(port)["pid"])


def _memcached_clients(port: int) -> int:
    told = memcached.stats(port, "conns")
    return sum(name.endswith(":state") and state != "conn_listening" for name, state in told.items()) - 1


RESP = Dialect(
    _redis_url,
    _redis_options,
    _redis_pid,
    _redis_clients,
    resp.command,
    resp.Connection,
    resp.parse_command,
    lambda data, asked: resp.parse(data),
)
MEMCACHED = Dialect(
    _memcached_url,
    _memcached_options,
    _memcached_pid,
    _memcached_clients,
    memcached.command,
    memcached.Connection,
    memcached.parse_command,
    memcached.parse_reply,
    routed=True,
)
