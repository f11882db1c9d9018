"""What the times come to: each stack's own cost, and ratios of them, with their spread. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .cases import Block


@dataclass(frozen=True, slots=True)
class Sample:
    """One block of one stack, in microseconds a request."""

    wall: float
    """The median, as a request that another process held up says nothing of the stack."""
    cpu: float
    """The mean, as what is computed now and then (collecting garbage, say) counts as well."""

    @classmethod
    def of(cls, block: Block) -> Sample:
        return cls(statistics.median(block.wall) / 1000, statistics.fmean(block.cpu) / 1000)


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


Rounds = Mapping[str, Sequence[Sample]]
"""Of one case: the samples of each stack by its name, one for each round, in the same order for all."""


def own(rounds: Rounds, stack: str, plain: str | None) -> list[Sample]:
    """What a stack's sessions cost in each round: what it took more than the app without sessions did in the same round."""
    if plain is None:
        return list(rounds[stack])
    pairs = zip(rounds[stack], rounds[plain], strict=True)
    return [Sample(mine.wall - bare.wall, mine.cpu - bare.cpu) for mine, bare in pairs]


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of two costs in the same rounds: the ratio of their medians, between the quartiles of the rounds' own ratios."""
    each = Spread.of([a / b for a, b in zip(mine, theirs, strict=True) if b > 0] or [float("nan")])
    return Spread(statistics.median(mine) / statistics.median(theirs), each.low, each.high)
