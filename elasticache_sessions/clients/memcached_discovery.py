"""Auto discovery: which nodes a Memcached cluster has now, and had before, as its configuration endpoint tells.

One thread asks, now and then and when somebody has reason to think that the nodes are others; whoever needs the nodes takes
what is known. Only where nothing is known yet, a request waits, as long as it may.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from typing import Final, Protocol

from ..endpoint import Endpoint
from ..exceptions import StoreUnavailable
from ..limit import TimeLimit, Timeouts, running
from ..session import logger
from ..settings import Settings
from .base import Command, Read, Write
from .memcached_history import History, key_of, recall, remember
from .memcached_known import Known
from .memcached_listing import LONGEST, QUESTION, Listing, is_whole, name_of, parse
from .memcached_nodes import Nodes
from .network import open_socket
from .rounds import Rounds
from .tls import advice, context

# While no nodes are known, a failure answers whoever asks for so many seconds.
_FAILURE_HOLDS: Final = 1.0
# A node that was not told yet has an older configuration. Where for so many intervals nothing else is heard, it is no older
# one: the cluster was made anew, and counts from the beginning.
_STALE_FOR: Final = 10
# A node that is listed no more, and does not answer for so many seconds, is gone, with what it had.
_GONE_AFTER: Final = 30.0
_READ: Final = 2**16


class Node(Protocol):
    """A connection to a node, as far as it is needed here."""

    def ask(self, command: Command) -> object: ...

    def close(self) -> None: ...


Connect = Callable[[str], Node]


class Discovery:
    """The nodes of one cluster. The thread begins when somebody first asks, and ends with the object."""

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts, key: bytes, connect: Connect) -> None:
        """`key`: under which the nodes keep which there were before; `connect` to a node for that."""
        self._endpoint, self._timeouts, self._key, self._connect = endpoint, timeouts, key, connect
        # A session may have any lifetime of its own.
        self._handover = math.inf if endpoint.handover is None else endpoint.handover
        self._tls = context(endpoint)
        self._name = f"the configuration endpoint {name_of(endpoint.host, endpoint.port)}"
        self._known: Known | None = None
        # What was told of it last: until when, and what.
        self._told: tuple[Known, float, Nodes] | None = None
        self._fails = self._tells = False
        self._stale_since: float | None = None
        self.begin()
        _living.add(self)

    def begin(self) -> None:
        """Nothing is under way: as at first, and again in a forked child, which has no such thread, and whose lock may be
        held for ever. What is known it knows, too.
        """
        self._lock = threading.Lock()
        self._rounds: Rounds | None = None
        self._coming: Future[str | None] | None = None
        self._failure = ("", -math.inf)
        self._silent_since: dict[str, float] = {}

    @property
    def nodes(self) -> Nodes:
        """Waits for the first answer, within the running operation, and never again.

        Raises:
            StoreUnavailable: nothing is known yet.
        """
        if self._rounds is None or self._known is None:
            self._wait()
        nodes = self.known
        assert nodes is not None, "nothing makes what is known unknown"
        return nodes

    @property
    def known(self) -> Nodes | None:
        """The same, without waiting; None where nothing is known yet."""
        told = self._told
        if told is not None and told[0] is self._known and time.monotonic() < told[1]:
            return told[2]
        return self._tell()

    def _tell(self) -> Nodes | None:
        """One object for as long as nothing changes, as whoever has it looks whether it is another one."""
        known, now = self._known, time.monotonic()
        if known is None:
            return None
        nodes = known.nodes(now)
        if self._told is not None and self._told[2] == nodes:
            nodes = self._told[2]
        self._told = known, known.next_end(now), nodes
        return nodes

    @property
    def confirmed(self) -> float:
        """When (`time.monotonic`) the question was asked that was last answered. Read before `nodes`, these are as new as
        that, or newer.
        """
        known = self._known
        return -math.inf if known is None else known.confirmed

    @property
    def changed(self) -> float:
        """When (`time.monotonic`) it was learnt that there had been others."""
        known = self._known
        return -math.inf if known is None else known.changed

    def poke(self) -> None:
        """Somebody has reason to think that the nodes are others: ask soon. Nobody waits for it."""
        rounds = self._rounds
        if rounds is not None:
            rounds.poke()

    def hear(self, node: str, answers: bool) -> None:
        """That node was asked something."""
        if answers:
            if self._silent_since:
                self._silent_since.pop(node, None)
            return
        known, now = self._known, time.monotonic()
        if known is None or node in known.current:
            return
        if now > self._silent_since.setdefault(node, now) + _GONE_AFTER:
            self.forget(node)

    def forget(self, node: str) -> None:
        """`node`, which is no longer listed, does not answer any more."""
        with self._lock:
            known = self._known
            if known is None or node in known.current or node in known.gone:
                return
            self._known, self._tells = known.without(node), True
        logger.warning(
            "the Memcached node %s is listed no more and does not answer: what only it had is lost", node
        )
        self.poke()

    def close(self) -> None:
        """End the thread, before the last who holds this lets it go. It begins anew when somebody asks for the nodes. Takes no
        lock, so that a finalizer may close it in the middle of anything.
        """
        rounds, self._rounds = self._rounds, None
        if rounds is not None:
            rounds.end()

    def _wait(self) -> None:
        with self._lock:
            begun = self._rounds
            try:
                rounds = begun or Rounds(self, self._endpoint.discovery_interval, "discovers-memcached")
            except RuntimeError as error:  # no thread to be had, or the interpreter is ending
                if self._known is None:
                    raise self._unknown(f"could not be asked: {error}. Try again") from error
                return
            self._rounds = rounds
            if self._known is not None:
                return
            coming = self._coming
            if coming is None:
                failure, until = self._failure
                if time.monotonic() < until:
                    raise self._unknown(failure)
                coming = self._coming = Future()
                coming.set_running_or_notify_cancel()  # nobody who waits for it may cancel it for the others
                if begun is not None:  # else they begin with a look
                    begun.poke()
        with running().connecting():
            try:
                failed = coming.result(running().need())
            except TimeoutError:
                why = (
                    "did not tell them in time, and is still being asked. Try again, and see whether it is up"
                )
                raise self._unknown(why) from None
        if failed is not None:
            raise self._unknown(failed)

    def _unknown(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"Memcached's nodes are not known yet: {self._name} {why}.", sent=False, silent=None
        )

    def is_of(self, rounds: Rounds) -> bool:
        with self._lock:  # they begin before they are noted here
            return self._rounds is rounds

    def look(self) -> None:
        """Ask, and take what comes."""
        with self._lock:
            if self._coming is None:
                self._coming = Future()
                self._coming.set_running_or_notify_cancel()
        asked = time.monotonic()
        try:
            found: Listing | str = parse(self._reply())
        except OSError as error:
            check = advice(error, tls=self._tls is not None, connecting=True)
            found = f"did not answer ({type(error).__name__}: {error}).{check}".removesuffix(".")
        except ValueError as error:
            found = (
                f"does not tell any: {error}. Check that it is the configuration endpoint (….cfg.…); nodes that stay are named "
                "behind memcached://"
            )
        with self._lock:
            failed = found if isinstance(found, str) else self._learn(found, asked)
            coming, self._coming = self._coming, None
            if failed is not None:
                self._failure = failed, time.monotonic() + _FAILURE_HOLDS
            failing, self._fails = self._fails, failed is not None
        if coming is not None:
            coming.set_result(failed)
        if failed is not None and not failing:
            kept = "The nodes that it told before stay" if self._known else "No nodes are known so far"
            logger.warning("%s %s. %s.", self._name, failed, kept)
        elif failing and failed is None:
            logger.warning("%s tells the nodes again", self._name)
        self._talk_of_what_was(asked)

    def _talk_of_what_was(self, asked: float) -> None:
        """Learn from the nodes which there were before, as long as that is not known; else tell them, where it is news."""
        tells, self._tells = self._tells, False  # before the look at what there is to tell
        known = self._known
        if known is None:
            return
        if not known.is_whole:
            told = recall(self._key, known.version, known.current, self._ask)
            if told is None:
                return  # it stays unknown until one of them answers
            with self._lock:
                if self._known is not known:
                    return  # somebody else has been faster
                sets = told.before(known.version, known.current)
                known = known.recalled(sets, told.gone, asked, time.monotonic(), self._handover)
                self._known, tells = known, True
        if tells:
            remember(self._key, History(known.version, known.sets(), known.gone), self._ask)

    def _ask(self, node: str, command: Read | Write) -> object:
        with TimeLimit(*self._timeouts), closing(self._connect(node)) as connection:
            return connection.ask(command)

    def _learn(self, listing: Listing, asked: float) -> str | None:
        """Take it, or say why not."""
        known = self._known
        if known is None:
            self._known = Known.first(listing)
            return None
        if listing.version < known.version:
            since = self._stale_since = asked if self._stale_since is None else self._stale_since
            if asked < since + _STALE_FOR * self._endpoint.discovery_interval:
                return f"tells configuration {listing.version}, and {known.version} was told before"
        self._stale_since = None
        if known.has(listing):
            self._known = known.confirmed_by(listing, asked)
            return None
        told, were = ", ".join(listing.nodes), ", ".join(known.current)
        logger.info("Memcached's nodes are now %s; they were %s", told, were)
        self._known = known.changed_to(listing, asked, time.monotonic(), self._handover)
        self._tells = True
        return None

    def _reply(self) -> bytes:
        reply = bytearray()
        with TimeLimit(*self._timeouts):
            with running().connecting():
                sock = open_socket(self._endpoint.host, self._endpoint.port, self._tls)
            try:
                sock.sendall(QUESTION)
                while not is_whole(reply) and len(reply) <= LONGEST and (more := sock.recv(_READ)):
                    reply += more
            finally:
                sock.close()
        return bytes(reply)


_living: weakref.WeakSet[Discovery] = weakref.WeakSet()
_sharing: Final = threading.Lock()
_shared: weakref.WeakValueDictionary[tuple[Endpoint, Timeouts, bytes], Discovery] = (
    weakref.WeakValueDictionary()
)


def shared(settings: Settings, connect: Connect) -> Discovery:
    """This process's own of that endpoint: one thread, however many clients and event loops there are."""
    key = (settings.endpoint, settings.timeouts, key_of(settings.prefix))
    with _sharing:
        found = _shared.get(key)
        if found is None:
            found = _shared[key] = Discovery(*key, connect)
        return found


def _in_a_forked_child() -> None:
    _sharing._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library's own modules do
    for discovery in _living:
        discovery.begin()


os.register_at_fork(after_in_child=_in_a_forked_child)  # the threads stay with the parent
