"""What a Memcached node is asked, and what its replies mean. Pure: no I/O.

Six of its commands, with their replies read as a whole: a connection whose reply has one byte too many, or one that does not
belong there, is of no use any more, as what follows would be taken for the next reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from ..opaque import OpaqueBytes
from ..record import HEADER_BYTES
from .base import ABSENT, Command, Entry, Glance, Read, Write
from .memcached_asks import Left

# Longer than this, Memcached takes a TTL for a time.
_LONGEST_TTL: Final = 30 * 86_400
# Memcached reads it as a signed number of 32 bits: the year 2038.
_LAST_TIME: Final = 2**31 - 1
# What a node takes for a key: no blank and no control character, which would begin something else.
_KEY: Final = re.compile(rb"[^\x00-\x20\x7f]{1,250}")
_TOKEN: Final = re.compile(rb"\d{1,20}")
_REST_OF_FOUND: Final = re.compile(rb"\d{1,10} (\d{1,10}) (\d{1,20})\r\n")
_NOTHING: Final = b"END\r\n"
_AFTER_VALUE: Final = b"\r\nEND\r\n"
_STORED: Final = {b"STORED\r\n": True, b"NOT_STORED\r\n": False}
_SWAPPED: Final = {b"STORED\r\n": True, b"EXISTS\r\n": False, b"NOT_FOUND\r\n": None}
_GLANCE: Final = re.compile(rb"VA (\d{1,10}) k(\S+) t(-1|\d{1,10})\r\n")
_LEFT: Final = re.compile(rb"HD t(-1|\d{1,10})\r\n")
_GONE: Final = b"EN\r\n"
_ERRORS: Final = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")
# A line that goes on for longer is none of a node's.
_LONGEST_LINE: Final = 2048


class Incomplete(Exception):
    """The reply goes on: at least so many bytes of it are `missing`."""

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing


class Misfit(Exception):
    """The reply does not fit the question. Says nothing of it, as it may be a part of somebody's session."""


class Refused(Exception):
    """Instead of a reply the node says an error: `reason`."""

    def __init__(self, reason: str, *, of_node: bool) -> None:
        """`of_node`: whether it failed; else it does not understand the question."""
        super().__init__(reason)
        self.reason, self.of_node = reason, of_node


Answer = Callable[[bytes], Any]
"""What a reply means, once all of it is there. Raises Incomplete, Misfit, Refused."""


def question(command: Command | Left, now: int) -> tuple[bytes, Answer]:
    """What is sent for `command`, and who reads the reply: to Read an Entry or None; to Write whether it was stored, None
    where the key holds nothing that it could replace; to Replace whether it was; to Left the seconds, -1 (for ever) or None
    (nothing is there).

    `now`: seconds since 1970. Raises ValueError where the node would take the key, or the token, for something else.
    """
    key = command.key
    if not _KEY.fullmatch(key):
        raise ValueError(
            "no key of Memcached's: it has a blank or a control character in it, or too many bytes"
        )
    if isinstance(command, Read):
        # Blind: it sets the TTL of whatever is there, a tombstone's and another program's, too. That revives nothing.
        # Stretched, what has ended stays what it is, and says so for longer. Cut, it is gone sooner; but a write
        # never creates what it did not read (`cas` on a missing key is NOT_FOUND), and `add` is sent for new, random
        # ids alone.
        if command.touch is None or command.touch < 1:
            return b"gets %b\r\n" % key, partial(_entry, b"VALUE %b " % key)
        return b"gats %d %b\r\n" % (expiry(command.touch, now), key), partial(_entry, b"VALUE %b " % key)
    if isinstance(command, Left):
        return b"mg %b t\r\n" % key, _left
    # Never `set`, which writes over anything, nor `ms`, which deletes what is there when the value is too large; and never
    # without a reply.
    value, expires = command.value, expiry(command.ttl, now)
    if not isinstance(command, Write):
        return _storing(b"replace", key, expires, value), partial(_stored, _STORED)
    if command.token == ABSENT:
        return _storing(b"add", key, expires, value), partial(_stored, _STORED)
    if not _TOKEN.fullmatch(command.token):
        raise ValueError("no token of Memcached's")
    return _storing(b"cas", key, expires, value, b" " + command.token), partial(_stored, _SWAPPED)


def _storing(name: bytes, key: bytes, expires: int, value: bytes, token: bytes = b"") -> OpaqueBytes:
    return OpaqueBytes(b"%b %b 0 %d %d%b\r\n%b\r\n" % (name, key, expires, len(value), token, value))


def expiry(ttl: int, now: int) -> int:
    """`ttl` seconds from `now` (seconds since 1970), as Memcached is told.

    Up to 30 days as they are, counted by the node's own clock. A longer TTL is a time, and by that much as this
    machine's clock is ahead of the node's, the item lives longer, or shorter where it is behind; over more than 30
    days that does not matter, as `expires_at` and `idle_end`, not TTLs, say when a session ends at a given time.
    """
    if ttl > _LONGEST_TTL:
        end = min(now + ttl, _LAST_TIME)
        return end if end - now > _LONGEST_TTL else _LONGEST_TTL
    # A node's clock ticks once a second, so that an item lives up to a second shorter than its TTL.
    return max(2, ttl)


def _entry(found: bytes, reply: bytes) -> Entry | None:
    """`found`: how a reply begins that has the value of the key, and no other's."""
    rest = _REST_OF_FOUND.match(reply, len(found)) if reply.startswith(found) else None
    if rest is None:
        if reply == _NOTHING:
            return None
        raise _why(reply)
    begin = rest.end()
    end = begin + int(rest[1])
    missing = end + len(_AFTER_VALUE) - len(reply)
    if missing > 0:
        raise Incomplete(missing)
    if missing < 0 or not reply.endswith(_AFTER_VALUE):
        raise Misfit
    return Entry(reply[begin:end], rest[2])


def _stored(meanings: Mapping[bytes, bool | None], reply: bytes) -> bool | None:
    if reply not in meanings:
        raise _why(reply)
    return meanings[reply]


def _left(reply: bytes) -> int | None:
    found = _LEFT.fullmatch(reply)
    if found is not None:
        return int(found[1])
    if reply == _GONE:
        return None
    raise _why(reply)


def survey(keys: Sequence[bytes]) -> bytes:
    """What is sent to look at all of `keys`; `glance` reads the replies one by one. Raises ValueError as `question` does."""
    if not all(map(_KEY.fullmatch, keys)):
        raise ValueError("no key of Memcached's")
    return b"".join([b"mg %b v k t\r\n" % key for key in keys])


def glance(key: bytes, replies: bytes, begin: int) -> tuple[Glance | None, int]:
    """What the reply that begins there says of `key`, and where the next one begins. Raises as an Answer does."""
    found = _GLANCE.match(replies, begin)
    if found is None:
        for gone in (_GONE, b"EN k%b\r\n" % key):  # newer ones name the key
            if replies.startswith(gone, begin):
                return None, begin + len(gone)
        raise _why(replies[begin:])
    if found[2] != key:
        raise Misfit
    value = found.end()
    end = value + int(found[1])
    missing = end + len(b"\r\n") - len(replies)
    if missing > 0:
        raise Incomplete(missing)
    if not replies.startswith(b"\r\n", end):
        raise Misfit
    header = replies[value : min(end, value + HEADER_BYTES)]
    return Glance(header, None if found[3] == b"-1" else int(found[3])), end + len(b"\r\n")


def _why(reply: bytes) -> Exception:
    """Why that is no reply that there could be."""
    line, end, _ = reply.partition(b"\r\n")
    if not end:
        return Incomplete(1) if len(reply) < _LONGEST_LINE else Misfit()
    name, _, reason = line.partition(b" ")
    if name not in _ERRORS:
        return Misfit()
    return Refused((reason or line).decode(errors="replace")[:100], of_node=name == b"SERVER_ERROR")
