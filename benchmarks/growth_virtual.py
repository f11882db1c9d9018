"""Requests at once on one session, in virtual time: what they would take were nobody short of processors.

The flows are the real ones, and so is the store in memory; a network and a server stand in between that take as long as they are
told. No clock of this machine has a say, so what comes out is the same whoever else works here.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final

from elasticache_sessions import Session, flows
from elasticache_sessions.clients.memory import MemoryClient
from elasticache_sessions.drive import drive
from elasticache_sessions.operation import put
from elasticache_sessions.session import Rules
from elasticache_sessions.settle import Event, Sleep

CROWDS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Place:
    """In seconds. `processors`: how many all requests share; None: each has its own."""

    name: str
    round_trip: float
    view: float
    """What the request does between reading and saving."""
    python: float = 0.0001
    """The processor's time for each command."""
    server: float = 0.00001
    processors: int | None = None


PLACES: Final = (
    Place("0.1 ms away", 0.0001, 0.0002),
    Place("1 ms away", 0.001, 0.001),
    Place("0.1 ms away, 2 processors for all", 0.0001, 0.0002, python=0.0003, processors=2),
    Place("1 ms away, 2 processors for all", 0.001, 0.001, python=0.0003, processors=2),
)


@dataclass(slots=True)
class Request:
    began: float
    trips: int = 0
    conflicts: int = 0
    took: float = 0.0


@dataclass(slots=True)
class World:
    """What happens when, in its own time."""

    place: Place
    dice: random.Random
    now: float = 0.0
    begins: float = 1_700_000_000.0
    server_free: float = 0.0
    processors: list[float] = field(default_factory=list)
    _coming: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: Any = field(default_factory=itertools.count)

    def clock(self) -> float:
        return self.begins + self.now

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (when, next(self._number), what))

    def run(self) -> None:
        while self._coming:
            self.now, _, what = heapq.heappop(self._coming)
            what()

    def one_way(self) -> float:
        return self.place.round_trip / 2 * self.dice.uniform(0.9, 1.2)

    def computed(self) -> float:
        """When a processor has done what a command takes, begun now."""
        work = self.place.python * self.dice.uniform(0.5, 1.5)
        if not self.processors:
            return self.now + work
        first = self.processors.index(min(self.processors))
        self.processors[first] = max(self.now, self.processors[first]) + work
        return self.processors[first]

    def served(self) -> float:
        """When the server, which does one thing after another, has done it."""
        self.server_free = max(self.now, self.server_free) + self.place.server
        return self.server_free


def crowd(place: Place, count: int, dice: random.Random) -> list[Request]:
    """So many requests at once, each of which changes a key of its own."""
    world = World(place, dice, processors=[0.0] * (place.processors or 0))
    client = MemoryClient(world.clock)
    rules = Rules("s:", 3600, clock=world.clock)

    def now(flow: Generator[Any, Any, Any]) -> Any:
        return drive(flow, lambda asked: None if isinstance(asked, Event) else put(client, asked))

    first = Session()
    first.fields["name"] = "Ada Lovelace"
    now(flows.save(first, rules))

    def request(number: int) -> Generator[Any, Any, None]:
        session = yield from flows.load(first.id, rules)
        assert session is not None
        yield Sleep(place.view * dice.uniform(0.5, 1.5))
        session.fields[f"key{number}"] = number
        yield from flows.save(session, rules)

    def step(mine: Request, flow: Generator[Any, Any, None], reply: object) -> None:
        try:
            asked = flow.send(reply)
            while isinstance(asked, Event):
                mine.conflicts += asked.name == "conflict"
                asked = flow.send(None)
        except StopIteration:
            mine.took = world.now - mine.began
            return
        if isinstance(asked, Sleep):
            world.at(world.now + asked.seconds, lambda: step(mine, flow, None))
            return
        mine.trips += 1

        def serve() -> None:
            found = put(client, asked)
            world.at(world.now + world.one_way(), lambda: step(mine, flow, found))

        world.at(world.computed() + world.one_way(), lambda: world.at(world.served(), serve))

    requests = []
    for number in range(count):
        mine = Request(dice.uniform(0, place.round_trip))
        requests.append(mine)
        flow = request(number)
        world.at(mine.began, lambda mine=mine, flow=flow: step(mine, flow, None))  # type: ignore[misc]
    world.run()
    found = set(now(flows.load(first.id, rules)).fields)
    assert found == {"name"} | {f"key{number}" for number in range(count)}, "a change was lost"
    return requests


def steps(rounds: int) -> int:
    return rounds * len(PLACES) * len(CROWDS)


def measure(rounds: int, advance: Callable[[], None]) -> list[dict[str, Any]]:
    dice, random_before = random.Random(1), random.getstate()
    random.seed(1)  # how long a writer steps back
    rows = []
    for place in PLACES:
        for count in CROWDS:
            runs = []
            for _ in range(rounds):
                runs.append(crowd(place, count, dice))
                advance()
            each = [request for run in runs for request in run]
            rows.append(
                {
                    "place": place.name,
                    "requests": count,
                    "trips": round(statistics.fmean(request.trips for request in each), 2),
                    "most_trips": max(request.trips for request in each),
                    "conflicts": round(statistics.fmean(request.conflicts for request in each), 2),
                    "middle_ms": round(statistics.median(request.took for request in each) * 1e3, 2),
                    "worst_ms": round(statistics.median(max(r.took for r in run) for run in runs) * 1e3, 2),
                }
            )
    random.setstate(random_before)
    return rows
