"""Cluster mode for threads: finds the node that serves a session, and asks it as one endpoint is asked.

redis-py's (or valkey-py's) cluster client keeps the map of slots and the nodes' connections. Its way of sending is
not used: after a failure it would have every caller ask for the slots anew, one after the other, before it answers. Here
the map is renewed in the background, by one at a time, while everybody else goes on with the old one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ..drive import drive
from ..exceptions import StoreUnavailable
from ..limit import EachWait, Timeouts, running
from .base import Command, Glance, Look, Page, Reply, Scan
from .breaker import Breaker, Breakers
from .redis_driver import Driver, Redirected
from .redis_search import Mark, is_map_of, mark_of, probes_of, search
from .redis_survey import Flights, glances
from .redis_transport import Lines, Theirs, ask, ask_all
from .redis_wire import Request, exchange

NO_NODE: Final = "no node of the cluster serves the session's slot just now"
THE_ENDPOINT: Final = "the cluster's endpoint"
# Seconds between two times that the map is asked for, at least: while a node is down, every request wants it.
_RENEWALS: Final = (0.1, 0.3)


def _may_be_elsewhere(error: StoreUnavailable) -> bool:
    # A connection that broke in the middle says nothing yet: the next one does. And renewing the map closes connections.
    return not (error.retry and error.sent)


def by_node(
    requests: Sequence[Request], node_of: Callable[[Request], Any]
) -> list[tuple[Any, list[Request]]]:
    """Each node, and what is for it."""
    found: dict[str, tuple[Any, list[Request]]] = {}
    for request in requests:
        node = node_of(request)
        found.setdefault(node.name, (node, []))[1].append(request)
    return list(found.values())


def search_cluster(question: Scan, cluster: Any) -> Flights[Page]:
    """`redis_search.search` by a driver's map of slots."""
    served = cluster.nodes_manager.slots_cache

    def probes() -> tuple[bytes, ...]:
        nodes = frozenset(nodes[0].name for nodes in served.values())
        return probes_of(question.prefix, nodes, lambda key: served[cluster.keyslot(key)][0].name)

    mark = mark_of(question) or Mark.first(probes())
    return search(question.prefix, mark, probes, lambda slots: is_map_of(slots, served))


def not_elsewhere(answers: list[object]) -> list[object]:
    """`answers`, unless one of them is that another node has the slot."""
    for answer in answers:
        if isinstance(answer, Redirected):
            raise answer
    return answers


def name_of(node: Any) -> str:
    return f"the node {node.host}:{node.port}"


class Turns:
    """How often the map of slots is asked for."""

    def __init__(self) -> None:
        self._next = 0.0

    def is_due(self) -> bool:
        if (now := time.monotonic()) < self._next:
            return False
        self._next = now + random.uniform(*_RENEWALS)
        return True


class ByMap:
    """What both clients do by the driver's map of slots."""

    blind_touch = False
    _driver: Driver
    _cluster: Any

    def _node_of(self, request: Request) -> Any:
        with self._driver.translated(sent=False):
            return self._cluster.get_node_from_key(request.key)

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """A failure may be the map's."""
        try:
            yield
        except Redirected:
            raise StoreUnavailable(NO_NODE, retry=True, sent=False) from None
        except StoreUnavailable as error:
            if _may_be_elsewhere(error):
                self._renew()
            raise

    def _renew(self) -> None:
        """Have the map of slots asked for anew, beside the requests."""
        raise NotImplementedError


class RedisClusterClient(ByMap):
    """Cluster mode, for threads and greenlets."""

    def __init__(
        self,
        connect: Callable[[], Any],
        driver: Driver,
        timeouts: Timeouts,
        breakers: Breakers,
        lines_to: Callable[[str, int], Lines] | None = None,
    ) -> None:
        """`lines_to`: makes the connections to a node; None: those of the driver's object are used."""
        self._connect, self._driver, self._timeouts, self._breakers = connect, driver, timeouts, breakers
        self._lines_to = lines_to
        self._lines: dict[str, Lines] = {}
        self._cluster: Any = None
        self._begin()

    def _begin(self) -> None:
        """At first, and in a forked child."""
        self._pid = os.getpid()
        self._renewing = threading.Lock()
        self._turns = Turns()

    def perform(self, command: Command) -> Reply:
        with self._timeouts.limited():
            return drive(exchange(command), self._send)

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self._timeouts.limited():
            return drive(glances(question), self._send_all)

    def _send(self, request: Request) -> object:
        self._connected()
        with self._learning():
            try:
                node = self._node_of(request)
                with self._guarded(node):
                    return ask(self._lines_of(node), self._driver, request)
            except Redirected as to:
                return self._follow(to, request)

    def scan(self, question: Scan) -> Page:
        with self._timeouts.limited():
            self._connected()
            with self._learning():
                return drive(search_cluster(question, self._cluster), self._send_together)

    def _send_together(self, requests: Sequence[Request]) -> list[object]:
        """To the node of the first one, which must be that of the others, in one flight."""
        node = self._node_of(requests[0])
        with self._guarded(node):
            return not_elsewhere(ask_all(self._lines_of(node), self._driver, requests))

    def _send_all(self, requests: Sequence[Request]) -> list[object]:
        """To each node what is for it, in one flight each."""
        self._connected()
        answers: dict[bytes, object] = {}
        with self._learning():
            for node, theirs in by_node(requests, self._node_of):
                with self._guarded(node):
                    said = ask_all(self._lines_of(node), self._driver, theirs)
                for request, answer in zip(theirs, said, strict=True):
                    answers[request.key] = (
                        self._follow(answer, request) if isinstance(answer, Redirected) else answer
                    )
        return [answers[request.key] for request in requests]

    def _connected(self) -> None:
        if self._pid != os.getpid():
            # By a thread that stayed with the parent; so may the driver's own lock be.
            if self._renewing.locked():
                self._cluster = None
            self._begin()
        if self._cluster is None:
            # On being made, the driver asks for the slots. Two threads may do so at once; one answer is kept.
            with (
                self._breakers.of(THE_ENDPOINT),
                self._driver.translated(sent=False),
                running().connecting(),
            ):
                self._cluster = self._connect()

    def _follow(self, to: Redirected, request: Request) -> object:
        if not to.asking:
            self._renew()
        node = self._cluster.get_node(host=to.host, port=to.port)
        with self._guarded(node):
            return ask(self._lines_of(node), self._driver, request, asking=to.asking)

    def _guarded(self, node: Any) -> Breaker:
        """Around each question to that node."""
        if node is None:
            raise StoreUnavailable(NO_NODE, retry=True, sent=False)
        return self._breakers.of(name_of(node))

    def _lines_of(self, node: Any) -> Lines:
        """The connections to that node."""
        if self._lines_to is None:
            connection_of = getattr(self._cluster, f"get_{self._driver.root}_connection")
            with self._driver.translated(sent=False):
                return Theirs(connection_of(node).connection_pool, self._driver)
        lines = self._lines.get(node.name)
        return lines or self._lines.setdefault(node.name, self._lines_to(node.host, node.port))

    def _leave_others(self, names: Container[str]) -> None:
        """Close the connections to nodes that are none any more."""
        for name in [name for name in self._lines if name not in names]:
            if (lines := self._lines.pop(name, None)) is not None:
                lines.close()

    def _renew(self) -> None:
        """Have the map of slots asked for anew, beside the requests."""
        if self._renewing.acquire(blocking=False):
            try:
                if self._turns.is_due():
                    threading.Thread(target=self._ask_for_slots, name="renews-slots", daemon=True).start()
                    return
            except (
                RuntimeError
            ):  # no thread to be had, or the interpreter is ending: the next failure tries again
                pass
            self._renewing.release()

    def _ask_for_slots(self) -> None:
        try:
            with EachWait(*self._timeouts), self._driver.translated():
                manager, others = self._cluster.nodes_manager, {}
                # valkey-py asks those alone that it was given, or knows by itself.
                if self._driver.root == "redis":
                    others["additional_startup_nodes_info"] = [
                        (node.host, node.port) for node in list(manager.nodes_cache.values())
                    ]
                manager.initialize(**others)
            self._leave_others(manager.nodes_cache)
        except (StoreUnavailable, Redirected):
            pass  # the next failure asks again
        finally:
            self._renewing.release()

    def close(self) -> None:
        self._leave_others(())
        if self._cluster is not None:
            self._cluster.disconnect_connection_pools()
