"""Memcached: which client is for which URL; and that for nodes that stay, and one copy.

There each key belongs to one node, by the nodes' names alone. A node that fails is StoreUnavailable for its keys, and they
never move: read from another node, a session that was ended meanwhile would come back. Nodes that come and go, and two
copies, are `memcached_group`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from ..exceptions import StoreUnavailable
from ..limit import Timeouts, running
from ..settings import Settings
from . import memcached_discovery
from .base import ABSENT, Command, Conflict, Entry, Glance, Look, Read, Reply, Stored, Write, unheard
from .breaker import Breakers
from .memcached_async import AsyncMemcachedClient
from .memcached_connection import Connection
from .memcached_group import Fixed, GroupClient, Source, group_of
from .memcached_listing import name_of, place_of
from .memcached_nodes import owner
from .memcached_survey import grouped
from .pool import Pool
from .tls import context

# After which a node is taken to be down, if another has a copy of what it has.
_FAILURES_OF_A_COPY: Final = 3


def connect(settings: Settings, breakers: Breakers | None = None) -> MemcachedClient | GroupClient:
    """A client for threads, as the settings say. Connects on first use. `breakers`: those that it shares."""
    connect_to = _connecting(settings)
    breakers = breakers or breakers_for(settings)

    def make_pool(node: str) -> Pool[Connection]:
        return Pool(partial(connect_to, node), settings.max_connections)

    if _is_plain(settings):
        pools = {node: make_pool(node) for node in names(settings)}
        return MemcachedClient(pools, settings.timeouts, breakers)
    source = partial(source_for, settings)
    return GroupClient(source, make_pool, settings.timeouts, breakers, settings.endpoint.copies)


def connect_async(settings: Settings, breakers: Breakers) -> AsyncMemcachedClient:
    """A client for the running event loop. Connects on first use."""
    return AsyncMemcachedClient(connect(settings, breakers), settings.max_connections)


def breakers_for(settings: Settings) -> Breakers:
    """Where another node has a copy, a node is given up sooner."""
    return (
        Breakers(settings.timeouts, _FAILURES_OF_A_COPY, "its sessions are served from their other copies")
        if settings.endpoint.copies > 1
        else Breakers(settings.timeouts)
    )


def source_for(settings: Settings) -> Source:
    """Who knows the nodes."""
    if not settings.endpoint.discovery:
        return Fixed(names(settings))
    return memcached_discovery.shared(settings, _connecting(settings))


def node_of_for(settings: Settings) -> Callable[[bytes], str]:
    """What tells the node, or the nodes, that a key fails with."""
    if _is_plain(settings):
        return partial(owner, names(settings))
    return partial(group_of, source_for(settings), settings.endpoint.copies)


def names(settings: Settings) -> tuple[str, ...]:
    """The nodes that the settings name."""
    return tuple(name_of(*node) for node in settings.endpoint.nodes)


def _is_plain(settings: Settings) -> bool:
    return not settings.endpoint.discovery and settings.endpoint.copies == 1


def _connecting(settings: Settings) -> Callable[[str], Connection]:
    """What makes a connection to the node of a name."""
    tls = context(settings.endpoint)
    return lambda node: Connection(place_of(node), tls)


class MemcachedClient:
    """Any number of nodes, for threads and greenlets."""

    blind_touch = True

    def __init__(self, pools: Mapping[str, Pool[Connection]], timeouts: Timeouts, breakers: Breakers) -> None:
        self.timeouts = timeouts
        self.notice: Callable[[str], None] = unheard
        self._pools, self._breakers = pools, breakers
        self.nodes: Final = tuple(pools)
        self._called = {node: f"the Memcached node {node}" for node in pools}

    def node_of(self, key: bytes) -> str:
        """The name of the node that has `key`."""
        return owner(self.nodes, key)

    place_of = node_of

    def has(self, node: str) -> bool:
        return node in self._pools

    def perform(self, command: Command) -> Reply:
        with self.timeouts.limited():
            return self.ask(command)

    def ask(self, command: Command) -> Reply:
        """As `perform`, within the running operation."""
        # What is new may be put on another node if this one fails (`settle.insert`).
        if isinstance(command, Write) and command.token == ABSENT and len(self.nodes) > 1:
            with running().half():
                return self._ask(command)
        return self._ask(command)

    def _ask(self, command: Command) -> Reply:
        node = self.node_of(command.key)
        with self._breakers.of(self._called[node]), self._pools[node].connection() as connection:
            return _answer(connection, command)

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        with self.timeouts.limited():
            return self.ask_for(question)

    def ask_for(self, question: Look) -> tuple[Glance | None, ...]:
        """As `look`, within the running operation: one flight to each node, for so many keys."""
        found: dict[bytes, Glance | None] = {}
        for node, keys in grouped(question.keys, lambda key: [self.node_of(key)]):
            with (
                self._breakers.of(self._called[node]),
                self._pools[node].connection() as connection,
            ):
                found.update(zip(keys, connection.look(keys), strict=True))
        return tuple(found[key] for key in question.keys)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


def _answer(connection: Connection, command: Command) -> Reply:
    said = connection.ask(command)
    if not isinstance(command, Write):
        return said  # type: ignore[no-any-return]
    if said:
        return Stored(None)
    return Conflict(None if said is None else _found(connection, command.key))


def _found(connection: Connection, key: bytes) -> Entry | None:
    """What a write met with: one more round trip, since the reply does not bring it."""
    try:
        return connection.ask(Read(key))  # type: ignore[no-any-return]
    except StoreUnavailable as error:
        error.sent = False  # the write was refused, so nothing is unknown
        raise
