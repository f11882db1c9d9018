"""The nodes of a simulated world (`model`), and the words for what happens there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from elasticache_sessions.clients.base import ABSENT, Command, Conflict, Entry, Read, Replace, Stored, Write
from elasticache_sessions.clients.memcached_asks import Answer, Left
from elasticache_sessions.codec import decode
from elasticache_sessions.exceptions import DecodeError
from elasticache_sessions.record import Kind, unpack


class Revisions:
    """Revisions that are the same each time the same happens: instead of `secrets.token_bytes`."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")


REVISIONS = Revisions()


@dataclass
class Node:
    """A node: each question is atomic. CAS numbers come from one counter, which begins anew with the process: lower than
    all that its last life gave, as that served thousands of other sessions as well.
    """

    lives: int = 0
    items: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    reachable: bool = True
    late: list[Command | Left] = field(default_factory=list)
    """What was sent, and given up on, but may still be carried out."""

    def __post_init__(self) -> None:
        self.counter = 90_000 - 1_000 * self.lives

    def answer(self, command: Command | Left) -> Answer:
        held = self.items.get(command.key)
        if isinstance(command, Left):
            return None if held is None else 1000
        if isinstance(command, Read):
            return None if held is None else Entry(held[0], b"%d" % held[1])
        if isinstance(command, Replace):
            return held is not None and self._put(command)
        expected = ABSENT if held is None else b"%d" % held[1]
        if command.token != expected:
            return Conflict(None)
        self._put(command)
        return Stored(None)

    def _put(self, command: Write | Replace) -> bool:
        self.counter += 1
        self.items[command.key] = command.value, self.counter
        return True


def told(what: object) -> str:
    """A command or an answer, for a trace."""
    match what:
        case Read():
            return "gets"
        case Write(_, value, _, token):
            return f"add {_record(value)}" if token == ABSENT else f"cas {token.decode()}: {_record(value)}"
        case Replace(_, value):
            return f"replace {_record(value)}"
        case Entry(value, token):
            return f"{_record(value)} cas {token.decode()}"
        case Stored():
            return "stored"
        case Conflict():
            return "refused"
        case Left():
            return "time left?"
    return str(what)


def _record(value: bytes) -> str:
    try:
        record = unpack(value)
    except DecodeError as error:
        return f"<{error}>"
    header = record.header
    kind = "" if header.kind is Kind.LIVE else header.kind.name
    alone = "*" * header.alone
    if header.kind in (Kind.LEAVING, Kind.LEFT):
        version = int.from_bytes(record.fields["moved"][:8], "big")
        content = record.fields.get("content")
        return f"[{kind} in {version}{'' if content is None else ' ' + _record(content)}]"
    fields = {name: decode(each) for name, each in record.fields.items()}
    revisions = "<".join(revision.hex()[-2:] for revision in header.revisions if any(revision))
    return f"[{kind}{alone}g{header.generation} {revisions} {fields}]"
