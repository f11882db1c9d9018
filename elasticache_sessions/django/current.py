"""The request that is being served: what tells the verbs of `user_sessions` which of the sessions is the one that asks."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from django.http import HttpRequest

from .store import SessionStore

_serving: Final[ContextVar[HttpRequest | None]] = ContextVar("elasticache_sessions_request", default=None)


class serving:  # noqa: N801 - used as the function that it stands for
    """The block serves `request`, and whatever it calls, in threads that Django or asgiref start, too."""

    __slots__ = ("_before", "_request")

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def __enter__(self) -> None:
        self._before = _serving.get()  # a test client may be at work within a request
        _serving.set(self._request)

    def __exit__(self, *failure: object) -> None:
        # Not by a token, which only the very context takes that it was made in: asgiref copies contexts.
        _serving.set(self._before)


def request_now(request: HttpRequest | None = None) -> HttpRequest | None:
    """`request`, or else the one that is being served, if its session is one of ours."""
    request = request or _serving.get()
    return request if isinstance(getattr(request, "session", None), SessionStore) else None
