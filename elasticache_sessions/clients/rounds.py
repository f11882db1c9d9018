"""One thread that looks after something now and then, and soon when it is poked; it ends with what it looks after."""

from __future__ import annotations

import queue
import random
import threading
import time
import weakref
from typing import Final, Protocol

from ..session import logger

# By so much an interval is shorter or longer, so that the instances of a fleet do not all ask at once.
_JITTER: Final = 0.1
# From one look to the next, in seconds, however often somebody pokes.
_SHORTEST_PAUSE: Final = 0.1


class LookedAfter(Protocol):
    def look(self) -> None: ...

    def is_of(self, rounds: Rounds) -> bool:
        """Whether these rounds go on. Not so in a child that gevent forked, where the parent's greenlets live on."""


class Rounds:
    """The thread, from its beginning to its end."""

    def __init__(self, owner: LookedAfter, interval: float, name: str) -> None:
        """Raises RuntimeError: no thread is to be had, or the interpreter is ending."""
        # Of all that threads can wait for, this alone may be touched by a finalizer, which comes in the middle of anything.
        self._words: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._poked = False
        arguments = weakref.ref(owner), self, interval
        threading.Thread(target=_go, args=arguments, name=name, daemon=True).start()
        self._owners_end = weakref.finalize(owner, self._words.put, False)
        self._owners_end.atexit = False

    def poke(self) -> None:
        """Look soon: what is being looked at now does not count. Nobody waits for it."""
        if not self._poked:
            self._poked = True
            self._words.put(True)

    def end(self) -> None:
        self._owners_end()

    def begin_look(self) -> None:
        self._poked = False

    def pause(self, at_least: float, at_most: float) -> bool:
        """Wait the longer time, or when poked the shorter. False: this is the end."""
        now, poked = time.monotonic(), False
        while (left := now + (at_least if poked else at_most) - time.monotonic()) > 0:
            try:
                poked = self._words.get(timeout=left)
            except queue.Empty:
                break
            if not poked:
                return False
        return True


def _go(reference: weakref.ref[LookedAfter], rounds: Rounds, interval: float) -> None:
    # Its own, as a thread in the background must not change what the app gets from the common one after `seed`.
    shortest, chance = min(_SHORTEST_PAUSE, interval), random.Random()
    while (owner := reference()) is not None and owner.is_of(rounds):
        rounds.begin_look()
        began = time.monotonic()
        try:
            owner.look()
        except Exception:  # noqa: BLE001 - whatever it is
            logger.exception("the thread %r failed, and goes on", threading.current_thread().name)
        del owner
        took = time.monotonic() - began
        longest = interval * chance.uniform(1 - _JITTER, 1 + _JITTER)
        if not rounds.pause(shortest - took, longest - took):
            break
    # In a child that gevent forked, `threading` has forgotten the parent's threads, and would complain that it finds none
    # to take off its list. Asked who this is, it puts one there.
    threading.current_thread()
