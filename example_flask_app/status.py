"""Who answers, and what the session cost: shown under every page, and told by /status.json."""

import os
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

STORES: Final = {
    "memcached": "Memcached",
    "memory": "memory of this process",
    "redis": "Redis",
    "rediss": "Redis, TLS",
    "valkey": "Valkey",
    "valkeys": "Valkey, TLS",
}

leaving = threading.Event()
"""Set by gunicorn.conf.py once this instance has been told to stop."""


def count_visit(fields: MutableMapping[str, Any]) -> None:
    fields["visits"] = fields.get("visits", 0) + 1


def status(session: Any, environ: Mapping[str, Any]) -> dict[str, Any]:
    """What the strip shows. `session` is this request's, of either framework; `environ` is WSGI's."""
    visits = session.get("visits", 0)  # Touches the session first, so that its cost is in what follows.
    return {
        "instance": os.environ.get("INSTANCE", "local"),
        "pid": pid(environ),
        "visits": visits,
        "session": session.handle,
        "store": store(),
        "nodes": nodes_page(session.handle),
        "session_ms": round(session.store_seconds * 1000, 2),
    }


def health() -> tuple[str, int]:
    """For the load balancer: can this instance take requests? It asks neither the session nor the store."""
    return ("leaving", 503) if leaving.is_set() else ("ok", 200)


def pid(environ: Mapping[str, Any]) -> int:
    """The process to kill for this instance to be gone: under gunicorn the master, which replaces workers."""
    under_gunicorn = str(environ.get("SERVER_SOFTWARE", "")).startswith("gunicorn")
    return os.getppid() if under_gunicorn else os.getpid()


def store_url() -> str:
    """Where the sessions are. Alone, on a laptop, those of one process are enough."""
    return os.environ.get("ELASTICACHE_SESSIONS_URL") or "memory://"


def nodes_page(handle: str | None) -> str | None:
    """The demo's page of the cache nodes, if it has one; it marks those that hold this session."""
    page = os.environ.get("SHOP_CACHE")
    return f"{page}/?session={handle or ''}" if page else None


def store() -> str:
    """A name for people: never the URL, which may hold a password."""
    scheme = urlsplit(store_url()).scheme
    return os.environ.get("SHOP_STORE") or STORES.get(scheme, scheme)
