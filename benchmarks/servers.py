"""The servers that the stacks keep their sessions in, gone when the run is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.servers import MEMCACHED, VALKEY_9_1, Server

from .sites import Site


@dataclass(frozen=True, slots=True)
class Servers:
    valkey: Server
    memcached: Server

    def site(self, sliding: bool) -> Site:
        return Site(self.valkey.port, self.memcached.port, sliding)


@contextmanager
def started() -> Iterator[Servers]:
    with Server(VALKEY_9_1) as valkey, Server(MEMCACHED) as memcached:
        yield Servers(valkey, memcached)
