"""The servers that the stacks keep their sessions in, near and a millisecond away; gone when the run is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

from tests.support.servers import MEMCACHED, VALKEY_9_1, Server

from .cases import READ, Ask
from .delay import delayed
from .floor import raw_socket
from .payloads import SMALL
from .plan import Group
from .sites import Site

AWAY: Final = 0.001
"""Seconds that a round trip to the store takes longer where it is far."""


@dataclass(frozen=True, slots=True)
class Servers:
    """`added`: what a round trip really takes longer through the proxy, in microseconds; None where nobody asked."""

    near: tuple[int, int]
    far: tuple[int, int] | None
    added: float | None

    def site(self, group: Group) -> Site:
        ports = self.far if group.far else self.near
        assert ports is not None
        return Site(*ports, group.sliding, group.asynchronous)


@contextmanager
def started(far: bool) -> Iterator[Servers]:
    with ExitStack() as stack:
        valkey, memcached = (stack.enter_context(Server(flavour)) for flavour in (VALKEY_9_1, MEMCACHED))
        near = valkey.port, memcached.port
        if not far:
            yield Servers(near, None, None)
            return
        # The proxy's own work is part of the way: so a first one tells how long that is.
        with delayed(valkey.port, AWAY / 2) as port:
            own = added(near, port) / 1e6 - AWAY
        away = valkey, memcached
        ports = tuple(stack.enter_context(delayed(server.port, (AWAY - own) / 2)) for server in away)
        yield Servers(near, (ports[0], ports[1]), added(near, ports[0]))


def added(near: tuple[int, int], port: int) -> float:
    """What a round trip takes longer through the proxy at `port`, in microseconds."""
    times = []
    for one in (port, near[0]):
        asked = raw_socket(Site(one, near[1]))
        asked.run(Ask(READ, SMALL, 50))
        times.append(median(asked.run(Ask(READ, SMALL, 200)).wall) / 1000)
    return times[0] - times[1]
