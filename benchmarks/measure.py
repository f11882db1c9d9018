"""The rounds: in each, every stack answers one block, in an order of its own, so that all share the machine's noise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from .cases import Ask
from .crew import Crew
from .figures import Measured, Sample, calm
from .plan import Group, Point
from .servers import Servers


def measure(
    groups: Sequence[Group], servers: Servers, rounds: int, requests: int, progress: Callable[[str], None]
) -> Iterator[Measured]:
    """Calls `progress` once a block."""
    dice = random.Random(7)
    for group in groups:
        with Crew(group.stacks, servers.site(group)) as crew:
            for point in group.points:
                samples: dict[str, list[Sample]] = {name: [] for name in _who(group, point)}
                ask = Ask(point.case, point.size, group.requests(requests), group.at_once)
                for _ in range(group.rounds(rounds)):
                    for name in dice.sample(list(samples), len(samples)):
                        samples[name].append(Sample.of(crew.run(name, ask)))
                        progress(f"{group.name} {point.name}")
                yield Measured(group, point, calm(samples))


def blocks(groups: Sequence[Group], rounds: int) -> int:
    """How often `measure` will call `progress`."""
    return sum(group.rounds(rounds) * len(_who(group, point)) for group in groups for point in group.points)


def _who(group: Group, point: Point) -> list[str]:
    return [stack.name for stack in group.stacks if stack.can(point.case, point.size)]
