"""The rules of the house: the same in both shops."""

from typing import Final

PASSWORD: Final = "coffee"  # Printed on the sign-in page: a demo has no secrets.

GUARD: Final = {
    # Pages show whose session it is. Not stored, it does not come back by the back button after signing out.
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
"""The headers of every page."""
