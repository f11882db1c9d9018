"""What both frameworks say and know of a request that the store failed."""

from __future__ import annotations

from typing import Final

SORRY: Final = "The service is unavailable for a moment. Please try again.\n"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def is_safe(method: str | None) -> bool:
    """Whether such a request changes nothing, by RFC 9110."""
    return method in _SAFE


def signs_in_or_out(route: str | None, method: str | None, modified: bool) -> bool:
    """Whether a request is to sign somebody in or out, by the name of its route (`logout`, `auth.sign_in`, `account_login`).

    Its view may do so in a way that nobody else can see: by fields of its own, or, for a sign-out, by finding that there is
    nobody to sign out and sending the user to the login page. `modified`: whether it changed the session.
    """
    name = (route or "").rpartition(".")[2].replace("_", "").replace("-", "").lower()
    signs_in = name.endswith(("login", "signin")) and modified and not is_safe(method)
    return signs_in or name.endswith(("logout", "signout"))
