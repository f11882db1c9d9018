"""Asking the demo's supervisor, as supervisorctl does."""

from contextlib import closing
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport


def socket(home: Path) -> str:
    """Where the supervisor of the demo in that directory listens, as supervisorctl wants it."""
    return f"unix://{home / 'control'}"


def ask(home: Path, method: str, *arguments: str) -> Any:
    """Call one of http://supervisord.org/api.html. OSError where nobody listens."""
    transport = SupervisorTransport(None, None, socket(home))
    with closing(transport), ServerProxy("http://demo", transport) as server:
        return getattr(server.supervisor, method)(*arguments)
