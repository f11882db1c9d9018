"""Django's signals of what happens to sessions. The sender is the class of sessions, `SessionStore`; none tells an id, or what a
session holds.

    @receiver(session_ended)
    def ended(sender, handle, reason, **extra): ...

A receiver is called while the request waits; under ASGI on the event loop, which it must not block. When it raises, a log line
says so, by the error's type, and the request goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.dispatch import Signal

from ..events import signal_of
from ..settle import Event


class SessionSignal(Signal):
    """A signal whose receivers are plain functions: most are called where nothing can be awaited."""

    def connect(
        self, receiver: Callable[..., Any], sender: object = None, weak: bool = True, dispatch_uid: Any = None
    ) -> None:
        if iscoroutinefunction(receiver) or iscoroutinefunction(type(receiver).__call__):
            raise TypeError(
                "signals of sessions are sent in the middle of an operation, and cannot wait for a coroutine. Connect a plain "
                "function; in an async view it may call asyncio.get_running_loop().create_task(…)."
            )
        super().connect(receiver, sender, weak, dispatch_uid)


session_created: Final = SessionSignal()
"""A session was stored for the first time. `handle`: its public name."""
session_cycled: Final = SessionSignal()
"""A session got another key, as it does when its user signs in. `handle`: what it was called, `new_handle`: what it is called
now.
"""
session_ended: Final = SessionSignal()
"""A session was ended. `handle`; `reason`: "logout" (also by `flush` and `delete`), "signed_out" (from another device), "limit"
(its user signed in more often than MAX_SESSIONS_PER_USER), "expired" (it was given a lifetime that is over), "replaced"
(`create` took its content to another key), or what the app said. What nobody uses any more, the store forgets without a word.
"""
conflict_merged: Final = SessionSignal()
"""Another request changed the session first; the changes of both are merged. `handle`."""
store_unavailable: Final = SessionSignal()
"""An operation failed, as the store did not answer, or not in time. `error`: the exception's type and message."""
index_lost: Final = SessionSignal()
"""The store has lost the list of a user's sessions. `handle`: the list's key in the store, without the prefix."""

_SIGNALS: Final = {
    "session_created": session_created,
    "session_cycled": session_cycled,
    "session_ended": session_ended,
    "conflict_merged": conflict_merged,
    "store_unavailable": store_unavailable,
    "index_lost": index_lost,
}


def announce(event: Event) -> None:
    """Send the signal that tells `event`, if there is one."""
    if (told := signal_of(event)) is not None:
        name, details = told
        # That of the project, which may have an engine of its own that is built on ours.
        sender = import_module(settings.SESSION_ENGINE).SessionStore
        _SIGNALS[name].send_robust(sender=sender, **details)
