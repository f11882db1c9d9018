"""What is sent to Valkey and Redis for each command, and what the replies mean. Pure; carried by others.

Two Lua scripts, called by EVALSHA with one fallback to EVAL, and plain GETEX and SET: nothing that ElastiCache
Serverless refuses, and one key each, so that cluster mode needs nothing special.

No reply is what GET says. A primary that has become a replica answers it on connections that stayed open, with sessions
that were ended at the new primary meanwhile. GETEX, without an option, changes as little; but it counts as a write, so a
replica refuses it (READONLY), and whoever asks connects anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, Final, NamedTuple

from ..exceptions import StoreUnavailable
from ..record import FORMAT, HEADER_BYTES, REVISION, Kind
from .base import Command, Conflict, Entry, Replace, Reply, Stored, Write


class Script:
    """A Lua script and its name."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # Redis names scripts by their SHA-1; nothing secret hangs on it.
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_READ_AND_SLIDE: Final = Script(f"""
local value = redis.call('GETEX', KEYS[1])
if not value then return false end
local left = redis.call('PTTL', KEYS[1])
if #value >= {HEADER_BYTES} and string.byte(value, 1) == {FORMAT} and string.byte(value, 2) == {Kind.LIVE:d}
then
  local idle, _, _, expires = struct.unpack('>I4I4I4I4', value, 9)
  local ttl = tonumber(ARGV[1])
  if idle > 0 then ttl = idle end
  if expires > 0 then ttl = math.min(ttl, expires - tonumber(ARGV[2])) end
  if ttl >= 1 and ttl * 1000 - left >= math.min(60000, ttl * 100) then
    left = ttl * 1000
    redis.call('PEXPIRE', KEYS[1], left)
  end
end
return {{value, left}}
""")

# GETEX comes last: once a script has done what counts as a write, the server lets it write on when it is out of memory.
_WRITE_IF: Final = Script(f"""
local value = redis.call('GET', KEYS[1])
local token = ARGV[3]
if (token == '' and not value) or
   (token ~= '' and value and string.sub(value, {REVISION.start + 1}, {REVISION.stop}) == token) then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  return 1
end
return redis.call('GETEX', KEYS[1])
""")


class Request(NamedTuple):
    """What to send, and whether a reply answers it."""

    key: bytes
    args: tuple[Any, ...]
    fits: Callable[[object], bool]


class Refusal(Enum):
    """Errors of the server that are answers."""

    NO_SCRIPT = "the server does not know the script, yet or any more"
    WRONG_TYPE = "the key holds something that is no string"


def _is_value(reply: object) -> bool:
    return reply is None or type(reply) is bytes


def is_value_and_ttl(reply: object) -> bool:
    return reply is None or (
        type(reply) is list and len(reply) == 2 and type(reply[0]) is bytes and type(reply[1]) is int
    )


def _is_one_or_value(reply: object) -> bool:
    return reply == 1 or _is_value(reply)


def _is_ok_or_none(reply: object) -> bool:
    return reply is None or reply is True or reply == b"OK"


def evalsha(
    script: Script, key: bytes, fits: Callable[[object], bool], *args: object
) -> Generator[Request, Any, Any]:
    """Have `script` run on `key`. One request; two where the server does not know the script."""
    reply = yield Request(key, ("EVALSHA", script.sha, 1, key, *args), fits)
    if reply is Refusal.NO_SCRIPT:
        reply = yield Request(key, ("EVAL", script.text, 1, key, *args), fits)
    if reply is Refusal.NO_SCRIPT:
        raise StoreUnavailable(
            "the server does not know a script that it was sent. Check what answers there."
        )
    return reply


def exchange(command: Command) -> Generator[Request, Any, Reply]:
    """The requests that `command` takes, and its reply."""
    key = command.key
    if isinstance(command, Replace):
        args = ("SET", key, command.value, "EX", command.ttl, "XX")
        return (yield Request(key, args, _is_ok_or_none)) is not None
    if isinstance(command, Write):
        reply = yield from evalsha(
            _WRITE_IF, key, _is_one_or_value, command.value, command.ttl, command.token
        )
        if reply == 1:
            return Stored(command.value[REVISION])
        return Conflict(None if reply is None else _entry(reply))
    if command.touch is None:
        reply = yield Request(key, ("GETEX", key), _is_value)
    else:
        reply = yield from evalsha(_READ_AND_SLIDE, key, is_value_and_ttl, command.touch, command.now)
    return None if reply is None else _entry(*reply) if type(reply) is list else _entry(reply)


def _entry(value: bytes | Refusal, left: int | None = None) -> Entry:
    if isinstance(value, Refusal):
        return Entry(b"", b"\0")  # no string is no record: it reads as unreadable, and no write goes over it
    return Entry(value, value[REVISION], left / 1000 if left is not None and left >= 0 else None)
