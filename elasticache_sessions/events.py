"""What happens to sessions, told to whoever runs the app: log lines and counts."""

from __future__ import annotations

import threading
from collections import Counter

from .session import UNREADABLE, logger
from .settle import Event


class Listener:
    """Hears the events of one manager, from any thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def hear(self, event: Event) -> None:
        with self._lock:  # adding is reading and writing
            self.counts[event.name] += 1
        if event.name == "unreadable":
            logger.warning(UNREADABLE, event.handle, event.detail)
        else:
            logger.debug("session %s: %s", event.handle, event.name)
