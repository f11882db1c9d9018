"""What is known of Memcached's nodes at one moment, and what it becomes when more is heard. Pure; times are those of
`time.monotonic`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .memcached_history import LONGEST_HISTORY
from .memcached_listing import Listing
from .memcached_nodes import Nodes


@dataclass(frozen=True, slots=True)
class Known:
    """Never changed: another takes its place."""

    nodes: Nodes
    ends: tuple[float, ...] = ()
    """When each of the previous sets is of no interest any more."""
    confirmed: float = -math.inf
    """When the question was asked that was last answered so."""
    changed: float = -math.inf
    """When it was learnt that there had been others."""

    @classmethod
    def first(cls, listing: Listing) -> Known:
        """Confirmed when it is known which there were before."""
        return cls(Nodes(listing.nodes, None, listing.version))

    def recalled(
        self, previous: Sequence[tuple[str, ...]], asked: float, now: float, handover: float
    ) -> Known:
        """The nodes themselves have told which there were before."""
        known = replace(self, confirmed=asked, changed=now if previous else -math.inf)
        return known._with([(names, now + handover) for names in previous if handover])

    def has(self, listing: Listing) -> bool:
        """Whether these are the nodes; their order means nothing."""
        return set(listing.nodes) == set(self.nodes.current)

    def confirmed_by(self, listing: Listing, asked: float) -> Known:
        nodes = replace(self.nodes, version=listing.version)
        return replace(self, nodes=nodes, confirmed=self.confirmed if nodes.previous is None else asked)

    def changed_to(self, listing: Listing, asked: float, now: float, handover: float) -> Known:
        """`handover`: the seconds for which those of now are of interest."""
        changed = Known(Nodes(listing.nodes, (), listing.version), (), asked, now)
        last = [(self.nodes.current, now + handover)] if handover else []
        return changed._with([*last, *self._previous()])

    def without(self, node: str) -> Known:
        """That one is gone for good."""
        left = ((tuple(name for name in names if name != node), end) for names, end in self._previous())
        return self._with((names, end) for names, end in left if names)

    def is_old(self, now: float) -> bool:
        return bool(self.ends) and min(self.ends) <= now

    def without_old(self, now: float) -> Known:
        return self._with((names, end) for names, end in self._previous() if end > now)

    def _previous(self) -> Iterable[tuple[tuple[str, ...], float]]:
        return zip(self.nodes.previous or (), self.ends, strict=True)

    def _with(self, previous: Iterable[tuple[tuple[str, ...], float]]) -> Known:
        kept = [(names, end) for names, end in previous if set(names) != set(self.nodes.current)]
        kept = kept[:LONGEST_HISTORY]
        nodes = replace(self.nodes, previous=tuple(names for names, _ in kept))
        return replace(self, nodes=nodes, ends=tuple(end for _, end in kept))
