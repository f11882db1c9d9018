"""What the times come to: each stack's own cost, and ratios of them, with their spread. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from .cases import Block
from .plan import Group, Point
from .stacks import PLAIN, Stack

RESAMPLES: Final = 400
FEWEST: Final = 3
"""Rounds that count, if there are as many."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One block of one stack, in microseconds a request."""

    wall: float
    """The median, as a request that another process held up says nothing of the stack."""
    cpu: float
    """The mean, as what is computed now and then (collecting garbage, say) counts as well."""

    @classmethod
    def of(cls, block: Block) -> Self:
        return cls(statistics.median(block.wall) / 1000, statistics.fmean(block.cpu) / 1000)

    def __sub__(self, other: Sample) -> Sample:
        return Sample(self.wall - other.wall, self.cpu - other.cpu)


Rounds = Mapping[str, Sequence[Sample]]
"""Of each stack by its name the samples, one for each round, in the same order for all."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure, and what it lies between."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Their median and quartiles."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


def calm(samples: Rounds) -> dict[str, list[Sample]]:
    """What counts of the rounds: the quarter in which all stacks together took least. A machine that has other things to do is
    slower by half in some rounds, and a median over both kinds is now the one and now the other. Which rounds those are is no
    single stack's doing, and what was measured in a round stays together.
    """
    every = list(zip(*samples.values(), strict=True))
    together = [sum(sample.wall for sample in one) for one in every]
    some = sorted(range(len(every)), key=together.__getitem__)[: max(-(-len(every) // 4), FEWEST)]
    return {name: [mine[number] for number in sorted(some)] for name, mine in samples.items()}


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of two costs in the same rounds: the ratio of their medians."""
    return _compared(mine, theirs, lambda a, b: a / b if b else float("nan"))


def difference(mine: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How much more `mine` is, by the medians."""
    return _compared(mine, theirs, lambda a, b: a - b)


def _compared(
    mine: Sequence[float], theirs: Sequence[float], compare: Callable[[float, float], float]
) -> Spread:
    """By the medians; between what comes out in 95 of 100 cases when the rounds are drawn again from themselves (bootstrap), each
    with what both cost in it, as both had its noise.
    """
    pairs = list(zip(mine, theirs, strict=True))
    dice = random.Random(len(pairs))
    drawn = sorted(_of_medians(dice.choices(pairs, k=len(pairs)), compare) for _ in range(RESAMPLES))
    edge = RESAMPLES // 40
    return Spread(_of_medians(pairs, compare), drawn[edge], drawn[-1 - edge])


def _of_medians(pairs: Sequence[tuple[float, float]], compare: Callable[[float, float], float]) -> float:
    return compare(statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))


@dataclass(frozen=True, slots=True)
class Measured:
    """One point of one group, and what counts of its rounds."""

    group: Group
    point: Point
    samples: Rounds

    def stacks(self) -> Iterator[Stack]:
        return (stack for stack in self.group.stacks if stack.name in self.samples)

    def own(self, stack: Stack) -> list[Sample]:
        """What the stack's sessions cost in each round: what it took more than the app without sessions did in the same one.
        Where there is no app, all that it took.
        """
        mine = self.samples[stack.name]
        if not stack.has_an_app:
            return list(mine)
        return [one - bare for one, bare in zip(mine, self.samples[PLAIN], strict=True)]

    def rates(self, stack: Stack) -> list[float]:
        """Requests per second in each round, by all that they took."""
        return [1e6 / sample.wall for sample in self.samples[stack.name]]
