"""Memcached nodes that come and go, and sessions that live on one or two of them: runs the protocol (`memcached_copies`) on
the nodes' connections.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..drive import drive
from ..exceptions import StoreUnavailable
from ..limit import Timeouts, running
from .base import ABSENT, Command, Reply, Write, unheard
from .breaker import Breakers, LeftAlone
from .memcached_asks import DOWN, Answer, Ask, Noticed, Renew
from .memcached_copies import perform
from .memcached_flight import Flights
from .memcached_handover import OUTDATED_VIEW, UNKNOWN_PAST, WORD_TTL
from .memcached_look import View
from .memcached_nodes import Nodes
from .memcached_pool import Pool

if TYPE_CHECKING:
    from .memcached_connection import Connection

# A node that has left the cluster and does not answer for so many seconds is gone, with what it had.
_GONE_AFTER: Final = 30.0
# Seconds between two questions to discovery, for as long as a node is down.
_WHILE_DOWN: Final = 5.0
# Seconds between two looks at whether discovery has answered.
_LOOK: Final = 0.005


class Source(Protocol):
    """Who knows the nodes: `memcached_discovery.Discovery`, or `Fixed`."""

    @property
    def nodes(self) -> Nodes:
        """Raises StoreUnavailable where nothing is known yet."""

    @property
    def known(self) -> Nodes | None:
        """The same, without waiting."""

    @property
    def confirmed(self) -> float:
        """When (`time.monotonic`) the question was asked whose answer they are."""

    @property
    def changed(self) -> float:
        """When (`time.monotonic`) it was learnt that there had been others."""

    def poke(self) -> None:
        """Somebody has reason to think that they are others."""

    def forget(self, node: str) -> None:
        """A previous one is gone for good."""

    def close(self) -> None:
        """Look after them no more, until somebody asks for them."""


class Fixed:
    """Nodes that stay: those of a URL."""

    changed = -math.inf

    def __init__(self, nodes: Sequence[str]) -> None:
        self.nodes = self.known = Nodes(tuple(nodes))

    @property
    def confirmed(self) -> float:
        return time.monotonic()

    def poke(self) -> None: ...

    def forget(self, node: str) -> None: ...

    def close(self) -> None: ...


class GroupClient:
    """For threads and greenlets."""

    blind_touch = True

    def __init__(
        self,
        source: Source,
        make_pool: Callable[[str], Pool[Connection]],
        timeouts: Timeouts,
        breakers: Breakers,
        copies: int,
    ) -> None:
        self.timeouts = timeouts
        self.notice: Callable[[str], None] = unheard
        self._source, self._make_pool, self._copies = source, make_pool, copies
        self._pools: dict[str, Pool[Connection]] = {}
        self._pools_of: Nodes | None = None
        self._flights = Flights(self._pool, breakers)
        self._asked_while_down = 0.0
        self._silent_since: dict[str, float] = {}

    def node_of(self, key: bytes) -> str:
        """The names of the nodes that have `key`, as one: they fail together. "" where they are not known yet."""
        return group_of(self._source, self._copies, key)

    def place_of(self, key: bytes) -> str:
        """The name of the first of them."""
        return self.node_of(key).partition(" ")[0]

    def perform(self, command: Command) -> Reply:
        with self.timeouts.limited():
            return self.ask(command)

    def ask(self, command: Command) -> Reply:
        """As `perform`, within the running operation."""
        nodes = self._source.nodes
        self._close_others(nodes)
        view = View(nodes, self._copies, time.monotonic() < self._source.changed + WORD_TTL)
        answer = partial(self._answer, view, set())
        if isinstance(command, Write) and command.token == ABSENT and len(nodes.current) > self._copies:
            # What is new may be put on other nodes if these fail (`settle.insert`).
            with running().half():
                return drive(perform(command, view), answer)
        return drive(perform(command, view), answer)

    def close(self) -> None:
        self._source.close()
        for pool in list(self._pools.values()):
            pool.close()

    def _answer(self, view: View, noticed: set[str], question: Sequence[Ask] | Renew | Noticed) -> Any:
        if isinstance(question, Noticed):
            self.notice(question.name)
            return None
        if isinstance(question, Renew):
            return self._renewed(view.nodes)
        try:
            answers = self._flights.fly(question)
        except StoreUnavailable as error:
            if isinstance(error, LeftAlone):
                self._is_silent(question, view.nodes)
            else:
                self._source.poke()
            raise
        self._learn(question, answers, view.nodes, noticed)
        return answers

    def _learn(self, asks: Sequence[Ask], answers: Sequence[Answer], nodes: Nodes, noticed: set[str]) -> None:
        if self._silent_since:
            for ask, answer in zip(asks, answers, strict=True):
                if answer is not DOWN:
                    self._silent_since.pop(ask.node, None)
        if DOWN not in answers:
            return
        down = [ask for ask, answer in zip(asks, answers, strict=True) if answer is DOWN]
        self._is_silent(down, nodes)
        if "alone" not in noticed and any(ask.node in nodes.current for ask in down):
            noticed.add("alone")
            self.notice("alone")

    def _is_silent(self, asks: Sequence[Ask], nodes: Nodes) -> None:
        """Those nodes do not answer, and have not for a while."""
        now = time.monotonic()
        if now > self._asked_while_down + _WHILE_DOWN:
            self._asked_while_down = now
            self._source.poke()
        for node in {ask.node for ask in asks} - set(nodes.current):
            if now > self._silent_since.setdefault(node, now) + _GONE_AFTER:
                self._source.forget(node)

    def _renewed(self, known: Nodes) -> Nodes:
        """What `known` was not enough for: what is asked for from now on, or which nodes there were before."""
        asked = time.monotonic()
        if known.previous is not None:
            self._source.poke()
        while True:
            nodes = self._source.nodes
            if self._source.confirmed >= asked or (known.previous is None and nodes.previous is not None):
                return nodes
            if running().left() <= _LOOK:
                why = UNKNOWN_PAST if known.previous is None else OUTDATED_VIEW
                raise StoreUnavailable(why, sent=False, silent=None)
            time.sleep(_LOOK)

    def _pool(self, node: str) -> Pool[Connection]:
        found = self._pools.get(node)
        return found or self._pools.setdefault(node, self._make_pool(node))

    def _close_others(self, nodes: Nodes) -> None:
        """Close the connections to nodes that are none any more."""
        if nodes is self._pools_of:
            return
        self._pools_of = nodes
        kept = nodes.known()
        for node in [node for node in self._pools if node not in kept]:
            if (pool := self._pools.pop(node, None)) is not None:
                pool.close()


def group_of(source: Source, copies: int, key: bytes) -> str:
    """The names of the nodes that have `key`, as one. "" where they are not known yet."""
    nodes = source.known
    return "" if nodes is None else " ".join(nodes.owners(key, copies))
