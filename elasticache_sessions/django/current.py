"""The request that is being served: what tells the verbs of `user_sessions` which of the sessions is the one that asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from django.http import HttpRequest

from .store import SessionStore

_serving: Final[ContextVar[HttpRequest | None]] = ContextVar("elasticache_sessions_request", default=None)


@contextmanager
def serving(request: HttpRequest) -> Iterator[None]:
    """The block serves `request`, and whatever it calls, in threads that Django or asgiref start, too."""
    before = _serving.get()  # a test client may be at work within a request
    _serving.set(request)
    try:
        yield
    finally:
        # Not by a token, which only the very context takes that it was made in: asgiref copies contexts.
        _serving.set(before)


def request_now(request: HttpRequest | None = None) -> HttpRequest | None:
    """`request`, or else the one that is being served, if its session is one of ours."""
    request = request or _serving.get()
    return request if isinstance(getattr(request, "session", None), SessionStore) else None
