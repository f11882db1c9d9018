"""Web instances that share Memcached's nodes, what happens to the nodes while they are in use, and what is left of it.

    with fleet(*nodes.ports, copies=2) as site, under_load("nodes come and go", site) as load:
        with phase("a node leaves", load, site) as people_leave:
            site.tell(*nodes.ports[1:])
            people_leave()
            site.knows()

Each instance has a discovery of its own, and they learn of a change one after another: before the next change, all have.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from elasticache_sessions.session import handle_of
from tests.support.discovery import DiscoveryEndpoint
from tests.support.failover import KINDS, TIMEOUT, Core, Kept, Load, core, patiently
from tests.support.load import PATIENT
from tests.support.memcached import by_claim

INTERVALS: Final = (0.2, 0.3, 0.5, 0.8)
"""Seconds from one look at the endpoint to the next, of each instance."""
REMEMBERED: Final = 0.1
"""Of those that come and go, so many are asked for again: there are many phases."""
LEAVING: Final = 40
"""So many people, who were there before a phase, sign out in it, or sign in: their old ids end."""


@dataclass
class Fleet:
    """Whoever comes is served by any of the instances."""

    instances: list[Core]
    endpoints: list[DiscoveryEndpoint]
    """One before each, all of them as one."""

    @property
    def _any(self) -> Core:
        return random.choice(self.instances)

    def new(self) -> str:
        return self._any.new()

    def read(self, session_id: str) -> dict[str, Any] | None:
        return self._any.read(session_id)

    def count(self, session_id: str) -> bool:
        return self._any.count(session_id)

    def note(self, session_id: str, name: str, value: int) -> bool:
        return self._any.note(session_id, name, value)

    def end(self, session_id: str) -> None:
        self._any.end(session_id)

    def renew(self, session_id: str) -> str | None:
        return self._any.renew(session_id)

    def tell(self, *nodes: int) -> None:
        """Which nodes there are from now on."""
        for endpoint in self.endpoints:
            endpoint.set_nodes(*nodes)

    def knows(self) -> None:
        """Wait until every instance knows what was told."""
        for endpoint in self.endpoints:
            endpoint.is_asked(2)

    def is_whole(self, load: Load) -> None:
        """Wait until every instance asks every node again, under load: nobody is served by one copy alone."""
        until = time.monotonic() + PATIENT
        alone = -1
        while alone != self.happened("alone"):
            assert time.monotonic() < until, "a node is still left alone"
            alone = self.happened("alone")
            load.goes_on(15)

    def happened(self, name: str) -> int:
        """How often that was counted, by all of them."""
        return sum(instance.manager.counts[name] for instance in self.instances)


@contextmanager
def fleet(*nodes: int, copies: int, timeout: float = TIMEOUT) -> Iterator[Fleet]:
    """An instance for each of INTERVALS, every other one "for asyncio"."""
    with ExitStack() as stack:
        endpoints = [stack.enter_context(DiscoveryEndpoint(*nodes)) for _ in INTERVALS]
        urls = [
            endpoint.url_with(copies=copies, discovery_interval=interval)
            for endpoint, interval in zip(endpoints, INTERVALS, strict=True)
        ]
        kinds = itertools.cycle(KINDS)
        yield Fleet([stack.enter_context(core(next(kinds), url, timeout)) for url in urls], endpoints)


@contextmanager
def phase(name: str, load: Load, fleet: Fleet) -> Iterator[Callable[[], None]]:
    """Something that happens to the nodes in the block, in which the people leave who are given to it: call it.

    After it, failures stop; no session is lost, none that was ended is back, in this phase or before it, and of what was
    acknowledged nothing is missing, nor done twice. To see that, everybody comes once, as people do: who signed out
    comes with the old cookie.
    """
    failures, done, ended = len(load.failures), load.done, len(load.ended)
    counted = {what: fleet.happened(what) for what in ("alone", "repaired", "moved")}
    reasons = load.reasons.copy()
    leaving = [patiently(fleet.new) for _ in range(LEAVING)]
    for session_id in leaving:
        assert patiently(lambda: fleet.note(session_id, "stays", 0))

    def people_leave() -> None:
        while leaving:
            session_id = leaving.pop()
            assert patiently(lambda: fleet.read(session_id)) is not None, "a session was lost"
            if len(leaving) % 4:
                patiently(lambda: fleet.end(session_id))
            else:
                new = patiently(lambda: fleet.renew(session_id))
                if new is not None:  # else it had its new id before somebody was told that this had failed
                    load.kept.append(Kept(new))
            load.ended.append((time.monotonic(), session_id))

    yield people_leave
    assert not leaving, "people_leave was not called"
    load.goes_on(20)
    with load.at_rest():
        load.look()
    happened = {what: fleet.happened(what) - before for what, before in counted.items()}
    print(
        f"\n  {name}: {load.done - done} operations, {len(load.failures) - failures} failed; {happened}; "
        f"{load.lost} of {len(load.kept)} sessions lost, {len(load.back)} of {len(load.ended)} ended back, "
        f"{len(load.ended) - ended} of them new, {len(load.unknown)} new sessions not found"
    )
    for reason, times in (load.reasons - reasons).items():
        print(f"    {times} x {reason}")
    assert not load.errors, load.errors[0]
    assert load.lost == 0, name
    assert not load.back, name
    assert not load.unknown, name


def key_of(session_id: str | None) -> bytes:
    """Where a session is stored."""
    assert session_id is not None
    return f"sess:{handle_of(session_id)}".encode()


def owners(ports: tuple[int, ...], session_id: str, copies: int = 1) -> tuple[int, ...]:
    """The ports of the nodes that a session is on, the one that decides first."""
    return tuple(by_claim(ports, key_of(session_id))[:copies])
