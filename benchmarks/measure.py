"""The rounds: in each, every stack answers one block, in an order of its own, so that all share the machine's noise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from .cases import Ask
from .crew import Crew
from .figures import Sample
from .plan import Group, Point
from .servers import Servers

Result = tuple[Group, Point, dict[str, list[Sample]]]


def measure(
    groups: list[Group], servers: Servers, rounds: int, requests: int, progress: Callable[[str], None]
) -> Iterator[Result]:
    """Calls `progress` once a block."""
    dice = random.Random(7)
    for group in groups:
        with Crew(group.stacks, servers.site(group.sliding)) as crew:
            for point in group.points:
                who = [stack.name for stack in group.stacks if stack.can(point.case, point.size)]
                samples: dict[str, list[Sample]] = {name: [] for name in who}
                ask = Ask(point.case, point.size, requests)
                for _ in range(rounds):
                    for name in dice.sample(who, len(who)):
                        samples[name].append(Sample.of(crew.run(name, ask)))
                        progress(f"{group.name} {point.name}")
                yield group, point, samples


def blocks(groups: list[Group], rounds: int) -> int:
    """How often `measure` will call `progress`."""
    return rounds * sum(
        stack.can(point.case, point.size)
        for group in groups
        for point in group.points
        for stack in group.stacks
    )
