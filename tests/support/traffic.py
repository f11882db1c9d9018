"""What goes through a proxy, and what a test wants done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.dialects import Command

When = str | Callable[[Command], bool] | None


@dataclass(slots=True)
class Count:
    """What went through a proxy during a `counting()` block."""

    round_trips: int = 0
    """How often a client sent something and then waited: a pipeline is one."""
    connections: int = 0
    """How many connections were made. One that sends nothing may be counted late."""
    commands: list[Command] = field(default_factory=list)
    """Every command with its arguments, in the order of arrival."""
    copies: int = 1
    """On so many nodes each key is."""

    @property
    def flights(self) -> int:
        """The same as `round_trips`, where each asks all the nodes that have the key, at once."""
        flights, rest = divmod(self.round_trips, self.copies)
        assert not rest, self.commands
        return flights

    @property
    def names(self) -> list[str]:
        """The commands without their arguments: `["EVALSHA", "GET"]`."""
        return [name_of(command) for command in self.commands]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One command and, once there is one, the server's reply: the bytes, and what they say."""

    command: Command
    raw: bytes = b""
    reply: object = None


@dataclass(slots=True)
class Rule:
    """Something to do to the commands that match, `times` times (None: until cancelled)."""

    when: When
    times: int | None
    act: Callable[[Exchange], bytes | None]
    """Returns what is passed on, if anything."""
    closes: bool = False
    """Whether the connection is closed after that."""
    fired: int = 0
    """How often it was done: what a test asserts, so that it cannot pass with the fault never injected."""

    def cancel(self) -> None:
        self.times = 0

    def takes(self, command: Command) -> bool:
        if self.times is not None and self.fired >= self.times:
            return False
        if isinstance(self.when, str):
            return name_of(command) == self.when.upper()
        return self.when is None or self.when(command)


def calling(callback: Callable[[Exchange], object]) -> Callable[[Exchange], bytes]:
    def act(exchange: Exchange) -> bytes:
        callback(exchange)
        return exchange.raw

    return act


def name_of(command: Command) -> str:
    return command[0].decode(errors="replace").upper() if command else ""
