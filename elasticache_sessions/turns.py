"""When a writer whom others were faster than tries again. Generators wait; this only says how long.

An attempt at once costs one round trip, as the conflict brought what is there now; after a pause what is there has to be
read first. Where nobody pauses, one of N writers gets through with each round trip, so each of them pays N/2 on average. If
they all pause, those who come late pay most. So a writer is eager for a few attempts, steps back to a random moment of a
window in which a crowd finds room, and is eager again: it seldom meets anybody then. How large a window that is depends on
how long an attempt takes, from 0.1 ms near a store to many on a busy machine, so that is measured, not guessed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

_EAGER: Final = 4
"""Attempts before the first pause: enough for two to four writers at once, who need none."""
_BURST: Final = 3
"""Attempts between two pauses."""
_ROOM: Final = 12
"""How many attempts, one after another, the first window has room for."""
_FIRST_WINDOW: Final = (0.003, 0.05)
"""Its least and its largest, in seconds, whatever the clock says."""
_GROWTH: Final = 1.5
_LARGEST_WINDOW: Final = 0.25


class Turns:
    """Of one write, until it holds. `clock` gives seconds."""

    __slots__ = ("_began", "_clock", "_window")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = self._window = 0.0

    def pause_before(self, attempt: int) -> float:
        """Seconds to wait before that attempt (the first is 0), and then to read anew; 0.0: at once. Asked before each."""
        if attempt == 1:
            self._began = self._clock()
        if attempt < _EAGER or (attempt - _EAGER) % _BURST:
            return 0.0
        if attempt == _EAGER:
            least, most = _FIRST_WINDOW
            took = (self._clock() - self._began) / (_EAGER - 1)
            self._window = min(max(took * _ROOM, least), most)
        else:
            self._window = min(self._window * _GROWTH, _LARGEST_WINDOW)
        return random.uniform(0, self._window)
