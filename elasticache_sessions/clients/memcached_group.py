"""Memcached nodes that come and go, and sessions that live on one or two of them: runs the protocol (`memcached_copies`) on
the nodes' connections.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from ..drive import drive
from ..exceptions import StoreUnavailable, ValueTooLarge
from ..limit import Timeouts, running
from ..session import logger
from .base import ABSENT, Command, Glance, Look, Reply, Write, unheard
from .breaker import Breakers, LeftAlone
from .memcached_asks import DOWN, Answer, Ask, Noticed, Renew
from .memcached_connection import Connection
from .memcached_copies import perform
from .memcached_flight import Flights
from .memcached_handover import OUTDATED_VIEW, UNKNOWN_PAST
from .memcached_look import View
from .memcached_nodes import Nodes
from .memcached_survey import alike, glance, grouped
from .memcached_views import KNOWN_AFTER
from .pool import Pool

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

    def hear(self, node: str, answers: bool) -> None:
        """That node was asked something."""


class Fixed:
    """Nodes that stay: those of a URL."""

    changed = -math.inf

    def __init__(self, nodes: Sequence[str]) -> None:
        self.nodes = self.known = Nodes(tuple(nodes))

    @property
    def confirmed(self) -> float:
        return time.monotonic()

    def poke(self) -> None: ...

    def hear(self, node: str, answers: bool) -> None: ...


class GroupClient:
    """For threads and greenlets."""

    blind_touch = True

    def __init__(
        self,
        find_source: Callable[[], Source],
        make_pool: Callable[[str], Pool[Connection]],
        timeouts: Timeouts,
        breakers: Breakers,
        copies: int,
    ) -> None:
        self.timeouts = timeouts
        self.notice: Callable[[str], None] = unheard
        self._find_source, self._make_pool, self._copies = find_source, make_pool, copies
        self._held: Source | None = None
        self._pools: dict[str, Pool[Connection]] = {}
        self._pools_of: Nodes | None = None
        self._flights = Flights(self._pool, breakers, self._hear)
        self._asked_while_down = 0.0

    @property
    def _source(self) -> Source:
        held = self._held
        if held is None:
            held = self._held = self._find_source()
        return held

    def _hear(self, node: str, answers: bool) -> None:
        self._source.hear(node, answers)

    def node_of(self, key: bytes) -> str:
        """The names of the nodes that have `key`, as one: they fail together. "" where they are not known yet."""
        return group_of(self._source, self._copies, key)

    def place_of(self, key: bytes) -> str:
        """The name of one of them."""
        return self.node_of(key).partition(" ")[0]

    def has(self, node: str) -> bool:
        nodes = self._source.known
        return nodes is not None and node in nodes.known()

    def perform(self, command: Command) -> Reply:
        with self.timeouts.limited():
            return self.ask(command)

    def ask(self, command: Command) -> Reply:
        """As `perform`, within the running operation."""
        nodes = self._source.nodes
        self._close_others(nodes)
        try:
            return self._ask(command, nodes)
        except ValueTooLarge as error:
            if isinstance(command, Write):
                raise
            raise _cannot_move(error) from error

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self.timeouts.limited():
            return self.ask_for(question)

    def ask_for(self, question: Look) -> tuple[Glance | None, ...]:
        """As `look`, within the running operation. One flight to each node, for so many keys; and two more for each key of
        which its nodes do not hold the same, or hold nothing that may be elsewhere.
        """
        nodes = self._source.nodes
        self._close_others(nodes)
        seen: dict[tuple[str, bytes], Glance | None] = {}
        down, silent = set[str](), set[str]()

        def owners(key: bytes) -> Sequence[str]:
            return nodes.owners(key, self._copies)

        for node, keys in grouped(question.keys, owners):
            try:
                with running().half():
                    glances = self._flights.look(node, keys)
            except LeftAlone:
                down.add(node)
            except StoreUnavailable:
                silent.add(node)  # its keys are read, one by one
            else:
                seen.update(zip([(node, key) for key in keys], glances, strict=True))

        def found(key: bytes) -> Glance | None:
            theirs = owners(key)
            glances = [seen.get((node, key)) for node in theirs if node not in down]
            same = alike(glances)
            if same is not None:
                return same
            if (
                not any(glances)
                and (down | silent).isdisjoint(theirs)
                and nodes.always_had(key, self._copies)
            ):
                return None
            view = self._view(nodes)
            try:
                return drive(glance(key, view), partial(self._answer, view, set()))
            except ValueTooLarge as error:
                raise _cannot_move(error) from error

        return tuple([found(key) for key in question.keys])

    def _view(self, nodes: Nodes) -> View:
        is_recent = time.monotonic() < self._source.changed + KNOWN_AFTER
        return View(nodes, self._copies, is_recent, int(time.time()))

    def _ask(self, command: Command, nodes: Nodes) -> Reply:
        view = self._view(nodes)
        answer = partial(self._answer, view, set())
        if isinstance(command, Write) and command.token == ABSENT and len(nodes.current) > self._copies:
            # What is new may be put on other nodes if these fail (`settle.insert`).
            with running().half():
                return drive(perform(command, view), answer)
        return drive(perform(command, view), answer)

    def close(self) -> None:
        self._held = None  # discovery ends when nobody holds it any more
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
            if not isinstance(error, LeftAlone):
                self._source.poke()
            raise
        if DOWN in answers:
            self._is_down(question, answers, view.nodes, noticed)
        return answers

    def _is_down(
        self, asks: Sequence[Ask], answers: Sequence[Answer], nodes: Nodes, noticed: set[str]
    ) -> None:
        now = time.monotonic()
        if now > self._asked_while_down + _WHILE_DOWN:
            self._asked_while_down = now
            self._source.poke()
        down = {ask.node for ask, answer in zip(asks, answers, strict=True) if answer is DOWN}
        if "alone" not in noticed and down & set(nodes.current):
            noticed.add("alone")
            self.notice("alone")

    def _renewed(self, known: Nodes) -> Nodes:
        """What `known` was not enough for: what is asked for from now on, or which nodes there were before."""
        asked = time.monotonic()
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
        if len(nodes.current) < self._copies:
            logger.warning(
                "there is one Memcached node, so sessions have one copy and not %d. Add a node.", self._copies
            )
        kept = nodes.known()
        for node in [node for node in self._pools if node not in kept]:
            if (pool := self._pools.pop(node, None)) is not None:
                pool.close()


def _cannot_move(error: ValueTooLarge) -> StoreUnavailable:
    """What is to move is a little larger on its way."""
    return StoreUnavailable(
        f"a session cannot move to another Memcached node: {error}", sent=False, silent=False
    )


def group_of(source: Source, copies: int, key: bytes) -> str:
    """The names of the nodes that have `key`, as one. "" where they are not known yet."""
    nodes = source.known
    return "" if nodes is None else " ".join(sorted(nodes.owners(key, copies)))
