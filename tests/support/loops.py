"""An event loop in a thread of its own, and plain functions that wait on it, as SQLAlchemy's do: in a greenlet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


async def waiting(function: Callable[[], T]) -> T:
    """Run a plain function in which `wait(awaitable)` does what `await` does in a coroutine."""
    inner = greenlet(function)
    result = inner.switch()
    while not inner.dead:
        try:
            value = await result
        except BaseException as error:  # it belongs to the function
            result = inner.throw(error)
        else:
            result = inner.switch(value)
    return result  # type: ignore[no-any-return]  # what a greenlet returns has no type


def wait(awaitable: Awaitable[T]) -> T:
    """The result of `awaitable`, inside a function that `waiting` runs. The event loop goes on meanwhile."""
    outer = getcurrent().parent
    assert outer is not None, "only a function that `waiting` runs can wait"
    return outer.switch(awaitable)  # type: ignore[no-any-return]  # as above


class LoopThread:
    """An event loop that runs in a thread until it is closed, as that of a server's process does."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._over.wait()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop and wait for it: from any thread, and from what runs on the loop in `waiting`."""
        if threading.current_thread() is self._thread:
            return wait(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """End the loop, and with it what was opened on it."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
