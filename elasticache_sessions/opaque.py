"""What sessions hold, in variables of ours: a traceback with variables, as Sentry and the frameworks' pages for errors have
them, shows how much it is, and nothing of it. Ids: `session.SessionId`.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")
V = TypeVar("V")


class OpaqueBytes(bytes):
    """A record as it is stored."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class OpaqueDict(dict[str, V]):
    """Fields and their values, encoded or not."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} fields>"


class OpaqueList(list[T]):
    """Values."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} values>"
