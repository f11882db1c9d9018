"""A primary endpoint as ElastiCache has one: a name, which comes to mean another server when the primary fails over."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.certificates import ENDPOINT
from tests.support.demo import wait_until
from tests.support.load import PATIENT
from tests.support.servers import Server
from tests.support.topologies import Replicated


class Name:
    """A host name, as ElastiCache's primary endpoint has one: whoever looks it up is told where it points just then.

    Only the resolver's answer is made up, with the port in it, by which servers on one machine differ.
    """

    host = ENDPOINT

    def __init__(self, server: Server) -> None:
        self.url = server.dialect.url((6379,)).replace(server.host, self.host)
        self.server: Callable[[], Server] = lambda: server
        self.asked = 0

    def means(self, server: Server) -> None:
        """From now on."""
        self.server = lambda: server

    def follows(self, pair: Replicated) -> None:
        """Means whichever is the primary at that very moment."""
        self.server = lambda: pair.primary if is_primary(pair.primary) else pair.replica


def is_primary(server: Server) -> bool:
    role = server.command("ROLE")
    assert isinstance(role, list)
    return bool(role[0] == b"master")


@contextmanager
def name_for(server: Server) -> Iterator[Name]:
    """A name that means `server`, and is looked up by nobody else."""
    name, real = Name(server), socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != Name.host:
            return real(host, port, *args, **options)
        name.asked += 1
        server = name.server()
        return real(server.host, server.port, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield name


def swap(pair: Replicated) -> None:
    """The failover that an operator asks for: primary and replica change places, and not a write is lost."""
    pair.primary.command("FAILOVER")
    wait_until(
        lambda: is_primary(pair.replica) and not is_primary(pair.primary), PATIENT, "they changed places"
    )


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
