"""What is known of Memcached's nodes at one moment, and what it becomes when more is heard. Pure; times are those of
`time.monotonic`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .memcached_listing import Listing
from .memcached_nodes import Nodes

LONGEST_HISTORY: Final = 4
"""So many changes are remembered."""
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """Never changed: another takes its place."""

    current: Names
    version: int
    earlier: tuple[tuple[Names, float], ...] = ()
    """The sets before this one, the last first, and when each is of no interest any more."""
    gone: frozenset[str] = frozenset()
    """Those of them that are gone for good."""
    is_whole: bool = False
    """Whether that is all that there is to know: it is not before the nodes have been asked."""
    confirmed: float = -math.inf
    """When the question was asked that was last answered so."""
    changed: float = -math.inf
    """When it was learnt that there had been others."""

    @classmethod
    def first(cls, listing: Listing) -> Known:
        return cls(listing.nodes, listing.version)

    def recalled(
        self, sets: Sequence[Names], gone: Iterable[str], asked: float, now: float, handover: float
    ) -> Known:
        """The nodes themselves have told which sets there were before. Confirmed only now."""
        own = dict(self.earlier)
        told = [(names, own.pop(names, now + handover)) for names in sets]
        earlier = (*told, *own.items())[:LONGEST_HISTORY]
        changed = now if earlier else self.changed
        gone = (self.gone | set(gone)) - set(self.current)
        return replace(self, earlier=earlier, gone=gone, is_whole=True, confirmed=asked, changed=changed)

    def has(self, listing: Listing) -> bool:
        """Whether these are the nodes; their order means nothing."""
        return set(listing.nodes) == set(self.current)

    def confirmed_by(self, listing: Listing, asked: float) -> Known:
        confirmed = asked if self.is_whole else self.confirmed
        return replace(self, version=listing.version, confirmed=confirmed)

    def changed_to(self, listing: Listing, asked: float, now: float, handover: float) -> Known:
        """`handover`: the seconds for which those of now are of interest."""
        earlier = ((self.current, now + handover), *self.earlier)[:LONGEST_HISTORY]
        # Else there was another set in between, perhaps, of which the nodes can tell.
        is_whole = self.is_whole and listing.version <= self.version + 1
        gone = self.gone - set(listing.nodes)
        confirmed = asked if is_whole else -math.inf
        return Known(listing.nodes, listing.version, earlier, gone, is_whole, confirmed, now)

    def without(self, node: str) -> Known:
        """That one is gone for good."""
        return replace(self, gone=self.gone | {node})

    def sets(self) -> tuple[Names, ...]:
        """All of them, the newest first."""
        return self.current, *(names for names, _ in self.earlier)

    def nodes(self, now: float) -> Nodes:
        """Those of interest."""
        last = self.earlier[0][0] if self.earlier else ()
        if not self.is_whole:
            return Nodes(self.current, None, self.version, last)
        left = (
            tuple(name for name in names if name not in self.gone) for names, end in self.earlier if end > now
        )
        previous = tuple(names for names in left if names and set(names) != set(self.current))
        return Nodes(self.current, previous, self.version, last)

    def next_end(self, now: float) -> float:
        """When `nodes` will be others, though nothing is heard."""
        return min((end for _, end in self.earlier if end > now), default=math.inf)
