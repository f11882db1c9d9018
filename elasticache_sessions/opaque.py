"""What sessions hold, in variables of ours: a traceback with variables, as error trackers and the frameworks' pages for errors
have them, shows how much it is, and nothing of it. Ids: `session.SessionId`.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")
V = TypeVar("V")


class Discreet:
    """What Sentry shows by its type alone. Else it walks through a dict whatever that says of itself, and would load one that
    loads itself.
    """

    __slots__ = ()

    def __sentry_repr__(self) -> str:
        return f"<{type(self).__name__}>"


class OpaqueBytes(Discreet, bytes):
    """A record as it is stored."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class OpaqueDict(Discreet, dict[str, V]):
    """Fields and their values, encoded or not."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} fields>"


class OpaqueList(Discreet, list[T]):
    """Values."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} values>"
