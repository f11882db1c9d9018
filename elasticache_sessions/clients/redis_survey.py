"""What is sent to Valkey and Redis to look at many keys at once, and what the replies mean. Pure; carried by others."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, TypeVar

from ..record import HEADER_BYTES
from .base import Glance, Look
from .redis_wire import Refusal, Request, Script, evalsha, is_value_and_ttl

LOOKED_AT_ONCE: Final = 200
"""Keys that are asked for in one flight: some 25 kB there, and 20 kB back."""

# GETEX, as in what reads (`redis_wire`): a replica refuses it.
_LOOK: Final = Script(
    f"""
local value = redis.call('GETEX', KEYS[1])
if not value then return false end
return {{string.sub(value, 1, {HEADER_BYTES}), redis.call('PTTL', KEYS[1])}}
"""
)

T = TypeVar("T")
Exchange = Generator[Request, Any, T]
Flights = Generator[Sequence[Request], Sequence[object], T]
"""Yields what is sent together, on one connection, and receives the replies in the same order."""


def glances(question: Look) -> Flights[tuple[Glance | None, ...]]:
    """One flight for so many keys; and one more where the server does not know the script yet."""
    found: list[Glance | None] = []
    for first in range(0, len(question.keys), LOOKED_AT_ONCE):
        some = question.keys[first : first + LOOKED_AT_ONCE]
        found += yield from _together([_glance(key) for key in some])
    return tuple(found)


def _glance(key: bytes) -> Exchange[Glance | None]:
    reply = yield from evalsha(_LOOK, key, is_value_and_ttl)
    if isinstance(reply, Refusal):
        return Glance(b"", None)  # no string is no record
    return None if reply is None else Glance(reply[0], reply[1] / 1000 if reply[1] >= 0 else None)


def _together(exchanges: Sequence[Exchange[T]]) -> Flights[list[T]]:
    """Run all of them, whatever they ask next in one flight."""
    results: dict[int, T] = {}
    asked = {number: next(exchange) for number, exchange in enumerate(exchanges)}
    while asked:
        replies = yield list(asked.values())
        for number, reply in zip(list(asked), replies, strict=True):
            try:
                asked[number] = exchanges[number].send(reply)
            except StopIteration as stop:
                del asked[number]
                results[number] = stop.value
    return [results[number] for number in range(len(exchanges))]
