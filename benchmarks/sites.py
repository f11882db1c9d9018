"""Where a stack's servers are, and what its sessions are to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LIFETIME: Final = 14 * 86_400
"""Of every session, in seconds: Django's default."""


@dataclass(frozen=True, slots=True)
class Site:
    valkey_port: int
    memcached_port: int
    sliding: bool = False
    """Whether each request prolongs the session, its cookie included."""
    asynchronous: bool = False
    """Whether the app is served by ASGI, and its views are natively asynchronous."""

    def url(self, memcached: bool = False) -> str:
        """As this package is told."""
        port = self.memcached_port if memcached else self.valkey_port
        return f"{'memcached' if memcached else 'redis'}://127.0.0.1:{port}"
