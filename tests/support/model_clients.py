"""The clients of a simulated world (`model`): what each is in the middle of, and what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from elasticache_sessions.clients.base import Command
from elasticache_sessions.clients.memcached_asks import Answer, Ask, Flight
from elasticache_sessions.clients.memcached_nodes import Nodes
from elasticache_sessions.settle import Flow


@dataclass
class Promise:
    """What has been acknowledged."""

    fields: dict[str, int] = field(default_factory=dict)
    applied: frozenset[int] = frozenset()
    ended: bool = False


@dataclass
class Operation:
    """One request of a client: its flow, the command that it waits for, and the flight that is under way for it."""

    kind: str
    before: Promise
    """What had been acknowledged when it began."""
    nodes: Nodes | None = None
    """Those that it began with."""
    flow: Flow[Any] = field(init=False)
    command: Command = field(init=False)
    flight: Flight[Any] = field(init=False)
    asks: Sequence[Ask] = ()
    answers: dict[int, Answer] = field(default_factory=dict)
    tried: set[int] = field(default_factory=set)
    """The asks of this flight that were sent in vain."""
    troubled: set[str] = field(default_factory=set)
    """The nodes that may lack what this request has been told, or has written."""
    renews: bool = False
    """Whether it waits for discovery instead."""
    flights: int = 0
    sendings: int = 0
    sent: bool = False

    def open(self) -> dict[str, int]:
        """For each node, the first ask of this flight that it did not answer."""
        firsts: dict[str, int] = {}
        for number, ask in enumerate(self.asks):
            if number not in self.answers:
                firsts.setdefault(ask.node, number)
        return firsts


@dataclass
class Client:
    nodes: Nodes
    breakers: set[str] = field(default_factory=set)
    """The nodes that it knows to be down, or does not know yet to be up again."""
    operation: Operation | None = None
