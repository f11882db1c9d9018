"""Where a stack's servers are, and what its sessions are to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

LIFETIME: Final = 14 * 86_400
"""Of every session, in seconds: Django's default."""

PATIENCE: Final = {"timeout": 5.0, "connect_timeout": 5.0}
"""Our settings where they are not the defaults, half a second and one: for that long a machine that is busy elsewhere may stand
still, and the run would end with a 503. redis-py waits for 5 s as it comes.
"""


@dataclass(frozen=True, slots=True)
class Site:
    valkey_port: int
    memcached_port: int
    sliding: bool = False
    """Whether each request prolongs the session, its cookie included."""
    asynchronous: bool = False
    """Whether the app is served by ASGI, and its views are natively asynchronous."""

    def settings(self, memcached: bool = False) -> dict[str, Any]:
        """Ours, by the names that the frameworks know them by."""
        named = {"url": self.url(memcached), **PATIENCE}
        return {f"ELASTICACHE_SESSIONS_{name.upper()}": value for name, value in named.items()}

    def url(self, memcached: bool = False) -> str:
        """As this package is told."""
        port = self.memcached_port if memcached else self.valkey_port
        return f"{'memcached' if memcached else 'redis'}://127.0.0.1:{port}"

    def libvalkey(self) -> Any:
        """A client of valkey-py, which takes libvalkey where it is installed."""
        import valkey

        return valkey.Valkey(port=self.valkey_port, socket_timeout=5, socket_connect_timeout=5)
