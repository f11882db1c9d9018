"""Flask's signals of what happens to sessions. The sender is the app; none tells an id, or what a session holds.

    @session_ended.connect_via(app)
    def ended(sender, handle, reason, **extra): ...

A receiver is called while the request waits, before its response goes out. When it raises, a log line says so, by the error's
type, and the request goes on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from blinker import Namespace
from flask import Flask

from .events import SIGNALS, signal_of, tell
from .settle import Event

_signals: Final = Namespace()
_NAMES: Final = {name: _signals.signal(name) for name, _, _ in SIGNALS.values()}

session_created: Final = _NAMES["session_created"]
"""A session was stored for the first time. `handle`: its public name."""
session_cycled: Final = _NAMES["session_cycled"]
"""A session got another id, as it does when its user signs in. `handle`: what it was called, `new_handle`: what it is now."""
session_ended: Final = _NAMES["session_ended"]
"""A session was ended. `handle`; `reason`: "logout", "signed_out" (from another device), "limit" (its user signed in more often
than MAX_SESSIONS_PER_USER), "emptied", "expired" (it was given a lifetime that is over), or what the app said. What nobody uses
any more, the store forgets without a word.
"""
conflict_merged: Final = _NAMES["conflict_merged"]
"""Another request changed the session first; the changes of both are merged. `handle`."""
store_unavailable: Final = _NAMES["store_unavailable"]
"""An operation failed, as the store did not answer, or not in time. `error`: the exception's type and message."""
index_lost: Final = _NAMES["index_lost"]
"""The store has lost the list of a user's sessions. `handle`: the list's key in the store, without the prefix."""


def announcing(app: Flask) -> Callable[[Event], None]:
    """A callback that sends `app`'s signals."""
    known = weakref.ref(app)  # the app holds its manager, and this is held by that

    def announce(event: Event) -> None:
        told, sender = signal_of(event), known()
        if told is None or sender is None:
            return
        name, details = told
        # One after the other, so that one that raises keeps none from hearing.
        for receiver in _NAMES[name].receivers_for(sender):
            tell(receiver, partial(_call, receiver, sender, details))

    return announce


def _call(receiver: Callable[..., Any], sender: Flask, details: dict[str, str]) -> None:
    sender.ensure_sync(receiver)(sender, **details)  # a coroutine function is run as an async view is
