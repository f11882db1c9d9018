"""What happens to sessions, told to whoever runs the app: log lines and counts."""

from __future__ import annotations

import threading
from collections import Counter

from .clients.base import Noticing
from .session import UNREADABLE, logger
from .settle import Event


class Listener:
    """Hears the events of one manager, from any thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def listen_to(self, client: object) -> None:
        """To what happens in it, if it tells."""
        if isinstance(client, Noticing):
            client.notice = self.count

    def count(self, name: str) -> None:
        """Something happened in the store's client."""
        with self._lock:  # adding is reading and writing
            self.counts[name] += 1

    def hear(self, event: Event) -> None:
        self.count(event.name)
        if event.name == "unreadable":
            logger.warning(UNREADABLE, event.handle, event.detail)
        else:
            logger.debug("session %s: %s", event.handle, event.name)
