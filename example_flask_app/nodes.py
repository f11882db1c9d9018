"""The cache nodes of the demo's cluster of Memcached: what they hold, and how they come, go, die and return."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedRWPair
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote
from xmlrpc.client import Fault

from elasticache_sessions import Settings
from elasticache_sessions.clients.memcached_history import key_of
from elasticache_sessions.clients.memcached_nodes import ranked
from elasticache_sessions.record import Kind

from . import control
from .discovery import HOST, Listing, node_name

AT_FIRST: Final = (1, 2, 3)
"""The nodes that supervisord.conf starts by itself."""
NUMBERS: Final = (1, 2, 3, 4, 5, 6)
COPIES: Final = 2  # as in the URL
GOODBYE: Final = 5.0
"""Seconds that a node still answers after it was taken off the list."""

_AT_ONCE: Final = 100  # keys in one question
_PREFIX: Final = Settings().prefix
_HISTORY: Final = key_of(_PREFIX).decode()  # where nodes keep which nodes there were before


class Refused(Exception):
    """That cannot be done with this node now; the message says why."""


class State(StrEnum):
    UP = "up"
    DOWN = "down"
    """Listed, and it does not answer."""
    LEAVING = "leaving"
    """No longer listed, and still there for a moment."""
    SPARE = "spare"


@dataclass(frozen=True)
class Node:
    """One node, as it was a moment ago."""

    number: int
    port: int
    state: State
    pid: int = 0
    sessions: frozenset[str] = frozenset()
    """The handles of those that belong here."""
    others: int = 0
    """What else it holds: marks of sessions that ended or moved, and copies of before."""

    @property
    def name(self) -> str:
        return f"node-{self.number}"


def copies(nodes: Iterable[Node]) -> Counter[int]:
    """How many sessions are there once, and how many twice."""
    return Counter(Counter(handle for node in nodes for handle in node.sessions).values())


class Nodes:
    """All that there may be. `home` is the demo's directory; their ports end in the number of each."""

    def __init__(self, home: Path, first_port: int) -> None:
        self._home = home
        self._first_port = first_port
        self._change = threading.Lock()
        self.listing = Listing(home / "cluster", *(first_port + number for number in AT_FIRST))
        for node in self.look():
            if node.state is State.LEAVING:
                self._stop_later(node.number)

    def look(self) -> list[Node]:
        return [self._look_at(number) for number in NUMBERS]

    def kill(self, number: int) -> None:
        """As the kernel does it. Nothing starts it again but `start`."""
        with self._change:
            self._expect(number, State.UP)
            self._ask("signalProcess", number, "KILL")

    def start(self, number: int) -> None:
        """A listed node that was killed comes back, empty."""
        with self._change:
            self._expect(number, State.DOWN)
            self._start(number)

    def add(self) -> int:
        """One more: it runs first, and is listed then. Its number."""
        with self._change:
            spare = (number for number in NUMBERS if self._look_at(number).state is State.SPARE)
            number = next(spare, None)
            if number is None:
                raise Refused(f"There are {len(NUMBERS)} nodes already, and that is all there can be.")
            self._start(number)
            self.listing.add(self._port(number))
            return number

    def remove(self, number: int) -> None:
        """Take it off the list. It answers for a while, as what was there only may have to move."""
        with self._change:
            self._expect(number, State.UP, State.DOWN)
            if len(self.listing.ports) <= COPIES:
                raise Refused("Two copies want two nodes: add one before this one goes.")
            self.listing.remove(self._port(number))
        self._stop_later(number)

    def _stop_later(self, number: int) -> None:
        later = threading.Timer(GOODBYE, self._stop_if_unlisted, [number])
        later.daemon = True
        later.start()

    def _stop_if_unlisted(self, number: int) -> None:
        with self._change:
            if self._port(number) not in self.listing.ports:
                with suppress(Fault):  # It may have been killed meanwhile.
                    self._ask("stopProcess", number)

    def _expect(self, number: int, *states: State) -> None:
        state = self._look_at(number).state
        if state not in states:
            raise Refused(f"node-{number} is {state}.")

    def _start(self, number: int) -> None:
        if self._ask("getProcessInfo", number)["statename"] != "RUNNING":
            self._ask("startProcess", number)
        for _ in range(100):  # five seconds at most
            if _contents(self._port(number)) is not None:
                return
            time.sleep(0.05)
        raise Refused(f"node-{number} was started, and does not answer. Its log is in {self._home}.")

    def _look_at(self, number: int) -> Node:
        port = self._port(number)
        process = self._ask("getProcessInfo", number)
        runs = process["statename"] == "RUNNING"
        if port not in self.listing.ports:
            state = State.LEAVING if runs else State.SPARE
            return Node(number, port, state, process["pid"])
        contents = _contents(port) if runs else None
        if contents is None:
            return Node(number, port, State.DOWN, process["pid"])
        sessions = frozenset(
            handle for handle, kind in contents.items() if kind == Kind.LIVE and self._belongs(handle, port)
        )
        return Node(number, port, State.UP, process["pid"], sessions, len(contents) - len(sessions))

    def _belongs(self, handle: str, port: int) -> bool:
        """As every client ranks the nodes for every session."""
        names = [node_name(listed) for listed in self.listing.ports]
        return node_name(port) in ranked(names, (_PREFIX + handle).encode())[:COPIES]

    def _port(self, number: int) -> int:
        return self._first_port + number

    def _ask(self, method: str, number: int, *arguments: str) -> Any:
        return control.ask(self._home, method, f"cache:node-{number}", *arguments)


def _contents(port: int) -> dict[str, int] | None:
    """What a node holds, by handle; None where it does not answer."""
    try:
        with (
            socket.create_connection((HOST, port), timeout=0.5) as connection,
            connection.makefile("rwb") as talk,
        ):
            keys = [key for key in _keys(talk) if key != _HISTORY]
            return {
                key.removeprefix(_PREFIX): kind
                for at in range(0, len(keys), _AT_ONCE)
                for key, kind in _kinds(talk, keys[at : at + _AT_ONCE])
            }
    except (OSError, EOFError):
        return None


def _keys(talk: BufferedRWPair) -> Iterator[str]:
    while True:
        for line in _answer(talk, "lru_crawler metadump all"):
            if line.startswith(
                b"BUSY"
            ):  # The node is clearing away what has expired, or tells somebody else.
                time.sleep(0.02)
                break
            # key=sess%3A3q2-… exp=1764512345 la=… cas=… fetch=yes cls=5 size=310
            yield unquote(line.partition(b" ")[0].removeprefix(b"key=").decode())
        else:
            return


def _kinds(talk: BufferedRWPair, keys: list[str]) -> Iterator[tuple[str, int]]:
    for line in _answer(talk, f"get {' '.join(keys)}"):
        _, key, _, size = line.split()  # VALUE sess:3q2-… 0 310
        yield key.decode(), talk.read(int(size) + 2)[1]


def _answer(talk: BufferedRWPair, question: str) -> Iterator[bytes]:
    """Line by line, up to its end."""
    talk.write(question.encode() + b"\r\n")
    talk.flush()
    while (line := talk.readline()) != b"END\r\n":
        if not line:
            raise EOFError(question)
        yield line
