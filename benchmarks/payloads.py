"""What is in a session: some small fields, and one that makes it as large as wanted."""

from __future__ import annotations

import json
import random
from typing import Any, Final

SMALL: Final = 200
MEDIUM: Final = 2_000
LARGE: Final = 50_000
SIZES: Final = {SMALL: "200 B", MEDIUM: "2 KB", LARGE: "50 KB"}

NAME: Final = "Ada Lovelace"
"""The small field that is read."""


def content(size: int) -> dict[str, Any]:
    """The fields of a session that is about `size` bytes as JSON: what a shop knows of a visitor, and a cart in the place of
    the large field, as long as it takes. Always the same for a size.
    """
    fields: dict[str, Any] = {
        "name": NAME,
        "visits": 7,
        "language": "en-GB",
        "currency": "EUR",
        "csrf": "b0f2f9c1d2a34c6e8f70a1b2c3d4e5f6",
        "last_page": "/shop/tea/darjeeling",
        "cart": [],
    }
    dice = random.Random(size)
    while (missing := size - len(json.dumps(fields))) > 20:
        item = {
            "id": dice.randrange(10_000, 99_999),
            "title": f"Tea no. {dice.randrange(1000)}",
            "price": dice.randrange(100, 9_900) / 100,
            "quantity": dice.randrange(1, 9),
            "gift": dice.random() < 0.1,
        }
        fields["cart"].append(item if missing > 120 else "x" * (missing - 4))
    return fields
