"""What happens to sessions, told to whoever runs the app: log lines, counts, and callbacks, of which each framework makes its
signals.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from .clients.base import Noticing
from .exceptions import StoreUnavailable
from .session import UNREADABLE, logger
from .settle import Event

SIGNALS: Final = {
    "created": ("session_created", "handle", ""),
    "cycled": ("session_cycled", "handle", "new_handle"),
    "ended": ("session_ended", "handle", "reason"),
    "conflict": ("conflict_merged", "handle", ""),
    "unavailable": ("store_unavailable", "", "error"),
    "index_lost": ("index_lost", "handle", ""),
}
"""The events that are signals: the signal's name, and as what it has the event's handle and detail; "": not at all."""


class Listener:
    """Hears the events of one manager, from any thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._callbacks: tuple[Callable[[Event], None], ...] = ()
        self._operation = _Operation(self.hear)

    def listen_to(self, client: object) -> None:
        """To what happens in it, if it tells."""
        if isinstance(client, Noticing):
            client.notice = self.count

    def count(self, name: str) -> None:
        """Something happened in the store's client."""
        with self._lock:  # adding is reading and writing
            self.counts[name] += 1

    def subscribe(self, callback: Callable[[Event], None]) -> None:
        """Have `callback` called with each event, in the thread, or on the event loop, where it happens."""
        with self._lock:
            self._callbacks = (*self._callbacks, callback)

    def hear(self, event: Event) -> None:
        self.count(event.name)
        if event.name == "unreadable":
            logger.warning(UNREADABLE, event.handle, event.detail)
        else:
            logger.debug("session %s: %s", event.handle or "-", event.name)
        for callback in self._callbacks:
            tell(callback, partial(callback, event))

    def operation(self) -> AbstractContextManager[None]:
        """The block is one operation; hears where it fails for want of the store."""
        return self._operation


class _Operation(AbstractContextManager[None]):
    """A class, and one object for all, as every request has one."""

    def __init__(self, hear: Callable[[Event], None]) -> None:
        self._hear = hear

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, StoreUnavailable):
            self._hear(Event("unavailable", "", f"{type(error).__name__}: {error}"))


def tell(receiver: object, call: Callable[[], object]) -> None:
    """Have `receiver`, which the app gave, hear something by `call`. Its failure is not the session's; it is logged by its type,
    as its message may say anything.
    """
    try:
        call()
    except Exception as error:  # noqa: BLE001 - see above
        name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
        logger.error(
            "%s, which was told what happened to a session, failed: %s", name, type(error).__qualname__
        )


def signal_of(event: Event) -> tuple[str, dict[str, str]] | None:
    """The name of the signal that tells `event`, and its keywords; None: it is told by none."""
    if event.name not in SIGNALS:
        return None
    name, handle, detail = SIGNALS[event.name]
    told = {handle: event.handle, detail: event.detail}
    told.pop("", None)
    return name, told
