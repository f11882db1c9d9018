"""The cart, kept in the session: one field for each product.

A save merges the session field by field. So two tabs that add different products at the same moment, answered
by two instances, both keep what they added; a single "cart" field would let the later one win.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from .catalogue import PRODUCTS, Product

MOST = 99  # of one product


@dataclass(frozen=True)
class Line:
    product: Product
    quantity: int

    @property
    def pence(self) -> int:
        return self.product.pence * self.quantity


def field(product: Product) -> str:
    return f"cart:{product.slug}"


def put(session: MutableMapping[str, Any], product: Product, quantity: int) -> int:
    """Make the cart hold this many of the product; none takes it out. How many it holds then."""
    held = max(0, min(quantity, MOST))
    if held:
        session[field(product)] = held
    else:
        session.pop(field(product), None)
    return held


def lines(session: Mapping[str, Any]) -> list[Line]:
    """What is in the cart, in the order of the catalogue."""
    return [
        Line(product, session[field(product)]) for product in PRODUCTS.values() if field(product) in session
    ]
