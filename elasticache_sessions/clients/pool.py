"""The connections to one node: made when needed, kept, shared by threads and greenlets, left behind at a fork."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..limit import exhausted, running


class Poolable(Protocol):
    """A connection that is open from the beginning."""

    @property
    def is_usable(self) -> bool:
        """Whether it may carry another question."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Poolable)


class Pool(Generic[C]):
    """At most `size` connections; who finds none free waits for one, as long as the running operation may."""

    def __init__(self, make: Callable[[], C], size: int) -> None:
        self._make, self._size = make, size
        # Of this process, and at a fork of its parents until it first asks for one. Under its process id, so that the
        # threads of a child that come at once need no lock, which a thread of the parent could have held at the fork.
        self._held: dict[int, _Held[C]] = {}

    def connection(self) -> Loan[C]:
        """A block with one for this thread alone. The end of the block closes it where an exception ends it: a reply may be
        on its way.

        Raises:
            StoreUnavailable: none was free, or none could be made.
        """
        return Loan(self._of_this_process(), self._make)

    def close(self) -> None:
        """Close every connection, those on loan when they come back. More are made when somebody asks."""
        while self._held:
            pid, held = self._held.popitem()
            held.close() if pid == os.getpid() else held.abandon()

    def _of_this_process(self) -> _Held[C]:
        pid = os.getpid()
        held = self._held.get(pid)
        if held is None:
            held = self._held.setdefault(pid, _Held(self._size))
            for other in [other for other in self._held if other != pid]:
                parents = self._held.pop(other, None)
                if parents is not None:
                    parents.abandon()
        return held


class Loan(Generic[C]):
    """What `Pool.connection` returns. A class, as a generator would cost as much as the rest of it."""

    __slots__ = ("_connection", "_held", "_make")

    def __init__(self, held: _Held[C], make: Callable[[], C]) -> None:
        self._held, self._make = held, make

    def __enter__(self) -> C:
        places = self._held.places
        try:
            places.get_nowait()
        except queue.Empty:
            try:
                places.get(timeout=running().left())
            except queue.Empty:
                raise exhausted() from None
        try:
            self._connection = self._held.take() or self._held.lend(self._make())
        except BaseException:
            places.put(None)
            raise
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is not None:
                self._connection.close()
            self._held.give_back(self._connection)
        finally:
            self._held.places.put(None)


class _Held(Generic[C]):
    """The connections of one process."""

    def __init__(self, size: int) -> None:
        # Not a semaphore: gevent's greenlets lose it places when they are killed while they wait.
        self.places: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(size):
            self.places.put(None)
        self._lock = threading.RLock()  # a finalizer may close them in the middle of anything
        self._free: list[C] = []
        self._lent: set[C] = set()
        self._closed = False

    def take(self) -> C | None:
        """The one that came back last, if it still works: the others may grow old and be closed by the server."""
        while True:
            with self._lock:
                if not self._free:
                    return None
                connection = self._free.pop()
                self._lent.add(connection)
            is_usable = False
            try:
                is_usable = connection.is_usable
            finally:  # a greenlet may be killed while it looks
                if not is_usable:
                    connection.close()
                    self._lent.discard(connection)
            if is_usable:
                return connection

    def lend(self, connection: C) -> C:
        """A new one."""
        self._lent.add(connection)
        return connection

    def give_back(self, connection: C) -> None:
        with self._lock:
            self._lent.discard(connection)
            if not self._closed:
                self._free.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed, free, self._free = True, self._free, []
        for connection in free:
            connection.close()

    def abandon(self) -> None:
        """In a child: they are the parent's, which goes on with them. Here only the copies are closed."""
        for connection in (*self._free, *self._lent):
            connection.close()
