"""Who answered, and what the session cost: shown under every page, and told by /status.json."""

import os
from typing import Any
from urllib.parse import urlsplit

from flask import current_app, request, session as flask_session

STORES = {
    "memory": "memory of this process",
    "redis": "Redis",
    "rediss": "Redis, TLS",
    "valkey": "Valkey",
    "valkeys": "Valkey, TLS",
}


def status() -> dict[str, Any]:
    session: Any = flask_session  # For Flask it is any dict; ours knows its handle, and what it cost.
    visits = session.get("visits", 0)  # Touches the session first, so that its cost is in what follows.
    return {
        "instance": current_app.config["INSTANCE"],
        "pid": pid(),
        "visits": visits,
        "session": session.handle,
        "store": store(),
        "session_ms": round(session.store_seconds * 1000, 2),
    }


def pid() -> int:
    """The process to kill for this instance to be gone: under gunicorn the master, which replaces workers."""
    under_gunicorn = request.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
    return os.getppid() if under_gunicorn else os.getpid()


def store() -> str:
    """A name for people: never the URL, which may hold a password."""
    scheme = urlsplit(current_app.config["ELASTICACHE_SESSIONS_URL"]).scheme
    return str(current_app.config["STORE"] or STORES.get(scheme, scheme))
