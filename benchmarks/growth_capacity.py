"""How much processor time a node needs for a session's commands when many clients ask at once: what one node can do at most.

Sixty-four bare connections send a command each, then all hear the answer. So a node has many to answer whenever it looks, as
that of a large site has; what the clients take is not counted.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from elasticache_sessions import Session, SessionManager, Settings
from elasticache_sessions.clients.base import Command, Read, Write
from elasticache_sessions.clients.redis_wire import exchange
from elasticache_sessions.record import REVISION
from tests.support.servers import REDIS_7_0, VALKEY_9_1, Flavour, Server

from .growth_loading import flat, load, packed
from .growth_records import LIFETIME, Kept, ours
from .growth_visitors import SIZES, Visitors

CONNECTIONS: Final = 64
SESSIONS: Final = 5_000
_LEAST: Final = 20_000
"""Commands, as the processor's time is told in hundredths of a second."""
_TICK: Final = os.sysconf("SC_CLK_TCK")
_FLAVOURS: Final = (VALKEY_9_1, REDIS_7_0)


def steps() -> int:
    return len(_FLAVOURS) * len(SIZES) * 4


def measure(seconds: float, advance: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    for flavour in _FLAVOURS:
        for size in SIZES:
            rows += _of(flavour, size, seconds, advance)
    return rows


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _of(flavour: Flavour, size: int, seconds: float, advance: Callable[[str], None]) -> list[dict[str, Any]]:
    stack, visitors, rows = ours(memcached=False), Visitors(size), []
    kept = [stack.make(visitors.fields(number)) for number in range(SESSIONS)]
    with ExitStack() as stays:
        server = stays.enter_context(Server(flavour))
        load(server, map(flat, kept), memcached=False)
        _know_the_scripts(server)
        sockets = [
            stays.enter_context(socket.create_connection((server.host, server.port)))
            for _ in range(CONNECTIONS)
        ]
        for name, commands in _commands(kept).items():
            rows.append(
                {
                    "server": server.name,
                    "size": size,
                    "command": name,
                    "node_cpu_us": round(_cost(server, sockets, commands, seconds), 1),
                }
            )
            advance(f"{server.name}, {name}")
    return rows


def _know_the_scripts(server: Server) -> None:
    manager, session = SessionManager.connect(Settings(url=server.url, timeout=5)), Session()
    session.fields["name"] = "Ada Lovelace"
    manager.save(session)
    assert manager.load(session.id) is not None


def _commands(kept: Sequence[Kept]) -> dict[str, list[bytes]]:
    def sent(command: Command) -> bytes:
        return packed(*next(exchange(command)).args)

    now = int(time.time())
    return {
        "GET": [packed("GET", one.key) for one in kept],
        "read": [sent(Read(one.key)) for one in kept],
        "read and slide": [sent(Read(one.key, LIFETIME, now)) for one in kept],
        # Written under the revision that is there, so that each write holds.
        "write": [sent(Write(one.key, one.value, LIFETIME, one.value[REVISION])) for one in kept],
    }


def _cost(
    server: Server, sockets: Sequence[socket.socket], commands: Sequence[bytes], seconds: float
) -> float:
    """µs of the server's processor time for each."""
    assert server.pid is not None
    before, asked, end = cpu_of(server.pid), 0, time.monotonic() + seconds
    while asked < _LEAST or time.monotonic() < end:
        for number, connection in enumerate(sockets):
            connection.sendall(commands[(asked + number) % len(commands)])
        for connection in sockets:
            said = connection.recv(65_536)
            assert not said.startswith(b"-"), said
        asked += len(sockets)
    return (cpu_of(server.pid) - before) / asked * 1e6
