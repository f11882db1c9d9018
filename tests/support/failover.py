"""What a failover is, at real servers: a name that comes to mean another one, a replica that becomes the primary."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.servers import Server
from tests.support.topologies import Replicated


class Name:
    """A host name, as ElastiCache's primary endpoint has one: whoever looks it up is told where it points just then.

    Only the resolver's answer is made up, with the port in it, by which servers on one machine differ.
    """

    host = "primary.cache.test"
    url = f"redis://{host}:6379"

    def __init__(self, server: Server) -> None:
        self.server = server
        self.asked = 0

    def means(self, server: Server) -> None:
        self.server = server


@contextmanager
def name_for(server: Server) -> Iterator[Name]:
    name, real = Name(server), socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != Name.host:
            return real(host, port, *args, **options)
        name.asked += 1
        return real(name.server.host, name.server.port, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield name


def demote(pair: Replicated) -> None:
    """Make the replica the primary, and the primary a replica. What is connected to that stays so: it does not hear of it.

    It is kept from learning what happens at the new primary, as it is for a while in every failover.
    """
    pair.in_sync()
    old, new = pair.primary, pair.replica
    new.command("REPLICAOF", "NO", "ONE")
    with socket.socket() as nobody:  # bound, not listening
        nobody.bind((old.host, 0))
        old.command("REPLICAOF", *nobody.getsockname())
