"""What sessions hold when there are many: no two the same, some smaller, some larger."""

from __future__ import annotations

import json
import random
from typing import Any, Final

SIZES: Final = {200: "200 B", 2_000: "2 KB"}
"""By the mean size of their content as JSON. A session has between three quarters of it and five."""

_WORDS: Final = (
    *(
        "amber",
        "basil",
        "cedar",
        "delta",
        "ember",
        "fjord",
        "grove",
        "heron",
        "indigo",
        "jasper",
        "karst",
        "lagoon",
    ),
    *(
        "maple",
        "nectar",
        "onyx",
        "pebble",
        "quartz",
        "russet",
        "saffron",
        "timber",
        "umber",
        "violet",
        "willow",
        "zephyr",
    ),
)


class Visitors:
    """Who is signed in, with what in their carts; the same each time for a size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._dice = random.Random(size)
        bare = len(json.dumps(self._fields(0, [], "")))
        self._carts = [self._cart(size, bare) for _ in range(1000)]

    def fields(self, number: int) -> dict[str, Any]:
        """Of the visitor with that number."""
        cart, note = self._carts[number % len(self._carts)]
        return self._fields(number, cart, note)

    def _fields(self, number: int, cart: list[dict[str, Any]], note: str) -> dict[str, Any]:
        return {
            "user_id": str(1_000_000 + number),
            "csrf": f"{self._dice.getrandbits(128):032x}",
            "language": "en-GB",
            "theme": "dark" if number % 3 else "light",
            "cart": cart,
            "note": note,
        }

    def _cart(self, size: int, bare: int) -> tuple[list[dict[str, Any]], str]:
        """Things, as many as there is room for; the rest of it is a note of the visitor's."""
        room = self._dice.randint(size * 3 // 4, size * 5 // 4) - bare
        cart: list[dict[str, Any]] = []
        while room > 100:
            cart.append(
                {
                    "id": self._dice.randrange(10_000, 99_999),
                    "title": " ".join(self._dice.choices(_WORDS, k=3)),
                    "price": self._dice.randrange(100, 9_900),
                    "quantity": self._dice.randrange(1, 9),
                }
            )
            room -= len(json.dumps(cart[-1])) + 2
        return cart, " ".join(self._dice.choices(_WORDS, k=40))[: max(0, room)]
