"""The cart, kept in the session: one field for each product.

A save merges the session field by field. So two tabs that add different products at the same moment, answered
by two instances, both keep what they added; a single "cart" field would let the later one win.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

MOST = 99  # of one product


@dataclass(frozen=True)
class Line:
    product: Any  # Of the catalogue, or of Django's database.
    quantity: int

    @property
    def pence(self) -> int:
        return int(self.product.pence * self.quantity)


def field(slug: str) -> str:
    return f"cart:{slug}"


def put(session: MutableMapping[str, Any], slug: str, quantity: int) -> int:
    """Make the cart hold this many of the product; none takes it out. How many it holds then."""
    held = max(0, min(quantity, MOST))
    if held:
        session[field(slug)] = held
    else:
        session.pop(field(slug), None)
    return held


def add(session: MutableMapping[str, Any], slug: str) -> int:
    """Put one more into the cart. How many it holds then."""
    return put(session, slug, session.get(field(slug), 0) + 1)


def lines(session: Mapping[str, Any], products: Iterable[Any]) -> list[Line]:
    """What is in the cart, in the order of the products."""
    held = ((product, session.get(field(product.slug), 0)) for product in products)
    return [Line(product, quantity) for product, quantity in held if quantity]


def items(lines: Iterable[Line]) -> int:
    return sum(line.quantity for line in lines)


def total(lines: Iterable[Line]) -> int:
    """In pence."""
    return sum(line.pence for line in lines)
