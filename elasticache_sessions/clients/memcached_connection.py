"""One connection to one Memcached node: pymemcache's `Client`, watched over. The only file that imports pymemcache.

What pymemcache leaves to its caller is done here. It knows no `gats`; it throws away what follows a reply, which the
next question would have taken for its own; each of its waits has a time limit, but not all of them together; and some
replies that make no sense leave it as KeyError or ValueError.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from pymemcache.client.base import Client, _readline, _readvalue
from pymemcache.exceptions import (
    MemcacheError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)

from ..exceptions import StoreUnavailable, ValueTooLarge
from ..limit import TimeIsUp, running
from ..opaque import OpaqueBytes
from ..record import HEADER_BYTES
from .base import ABSENT, Command, Entry, Glance, Read, Write
from .memcached_asks import Left
from .network import open_socket
from .tls import advice, is_about

_VALUE: Final = re.compile(rb"VALUE (\S+) \d+ (\d+) (\d+)")
# What a reply takes on the wire: of `add` and `replace` by whether it is STORED, of `cas` by STORED, EXISTS, NOT_FOUND.
_STORED_BYTES: Final[dict[bool | None, int]] = {True: len("STORED\r\n"), False: len("NOT_STORED\r\n")}
_SWAPPED_BYTES: Final = {True: len("STORED\r\n"), False: len("EXISTS\r\n"), None: len("NOT_FOUND\r\n")}
_END_BYTES: Final = len("END\r\n")
_GLANCE: Final = re.compile(rb"VA (\d+) k(\S+) t(-1|\d{1,10})")
_LEFT: Final = re.compile(rb"HD t(-1|\d{1,10})")

# Longer than this, Memcached takes a TTL for a time.
_LONGEST_TTL: Final = 30 * 86_400
# Memcached reads it as a signed number of 32 bits: the year 2038.
_LAST_TIME: Final = 2**31 - 1


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


class Connection(Client):  # type: ignore[misc]  # pymemcache comes without types
    """One connection. It is open from the beginning, and closed for good by any failure. Every method raises
    StoreUnavailable.
    """

    def __init__(self, node: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(node, default_noreply=False)
        self._tls, self._has_answered = tls, False
        with self._translated(sent=False), running().connecting():
            # pymemcache tries one address of a name, and of "localhost" often the wrong one.
            self.sock: Any = open_socket(*node, tls)
        self._reply: Callable[[], Any] | None = None
        self._expected = 0
        self._values = 0

    @property
    def is_usable(self) -> bool:
        """Whether a question may be sent: it is open, and nothing that belongs to an earlier one waits on it."""
        return self.sock is not None and self.sock.is_quiet()

    def ask(self, command: Command | Left) -> Any:
        """What the node says to `command`: see `finish`."""
        self.begin(command)
        return self.finish()

    def begin(self, command: Command | Left) -> None:
        """Send the question, and do not wait: `finish` reads the reply, which must come before the next question."""
        self.sock.received = 0
        with self._translated():
            self.check_key(command.key, b"")
            question, self._reply = self._words(command, int(time.time()))
            # In use since another question: whoever lends connections has not looked at it.
            if isinstance(command, Read) and not self.sock.is_quiet():
                raise MemcacheUnknownError("something before the reply")
            self.sock.send_ahead(question)

    def finish(self) -> Any:
        """What the node says: to Read an Entry or None; to Write whether it was stored, None where the key holds nothing
        that it could replace; to Replace whether it was; to Left the seconds, -1 (for ever) or None (nothing is there).
        """
        reply, self._reply = self._reply, None
        assert reply is not None, "nothing was asked"
        with self._translated():
            said = reply()
        self._has_answered = True
        return said

    def look(self, keys: Sequence[bytes]) -> list[Glance | None]:
        """Ask for all of them before any reply is waited for. Values come whole, and are let go one by one."""
        with self._translated():
            for key in keys:
                self.check_key(key, b"")
            if not self.sock.is_quiet():
                raise MemcacheUnknownError("something before the reply")
            self.sock.sendall(b"".join(b"mg %b v k t\r\n" % key for key in keys))
            found, rest = [], b""
            for key in keys:
                glance, rest = self._glance(key, rest)
                found.append(glance)
            if rest:
                raise MemcacheUnknownError("more than the reply")
        self._has_answered = True
        return found

    def _glance(self, key: bytes, received: bytes) -> tuple[Glance | None, bytes]:
        """Of `key`, and what has been received of the next reply."""
        rest, line = _readline(self.sock, received)
        self._raise_errors(line, b"mg")
        if line in (b"EN", b"EN k%b" % key):  # newer ones name the key
            return None, rest
        match = _GLANCE.fullmatch(line)
        if match is None or match[2] != key:
            raise MemcacheUnknownError(line[:32])
        rest, value = _readvalue(self.sock, rest, int(match[1]))
        return Glance(value[:HEADER_BYTES], None if match[3] == b"-1" else int(match[3])), rest

    def _words(self, command: Command | Left, now: int) -> tuple[bytes, Callable[[], Any]]:
        """A question as it is on the wire, byte by byte as pymemcache asks it, and what has pymemcache ask it."""
        key = command.key
        if isinstance(command, Left):
            line = b"mg %b t\r\n" % key
            return line, partial(self._left, line)
        if isinstance(command, Read):
            # Blind: it sets the TTL of whatever is there, a tombstone's and another program's, too. That revives nothing.
            # Stretched, what has ended stays what it is, and says so for longer. Cut, it is gone sooner; but a write
            # never creates what it did not read (`cas` on a missing key is NOT_FOUND), and `add` is sent for new, random
            # ids alone.
            touch = command.touch if command.touch is None or command.touch >= 1 else None
            name = b"gets" if touch is None else b"gats %d" % expiry(touch, now)
            return b"%b %b\r\n" % (name, key), partial(self._read, name, key)
        # Never `set`, which writes over anything, nor `ms`, which deletes what is there when the value is too large.
        name, token = b"replace", None
        if isinstance(command, Write):
            name, token = (
                (b"add", None) if command.token == ABSENT else (b"cas", self._check_cas(command.token))
            )
        value, expires = command.value, expiry(command.ttl, now)
        end = b"" if token is None else b" " + token
        line = b"%b %b 0 %d %d%b\r\n" % (name, key, expires, len(value), end)
        return OpaqueBytes(b"%b%b\r\n" % (line, value)), partial(
            self._store, name, key, value, expires, token
        )

    def _read(self, name: bytes, key: bytes) -> Entry | None:
        self._values, self._expected = 0, _END_BYTES
        found = self._fetch_cmd(name, [key], True).get(key)
        self._check(self._expected)
        if self._values > 1:
            raise MemcacheUnknownError("two values")
        return None if found is None else Entry(*found)

    def _store(self, name: bytes, key: bytes, value: bytes, expires: int, token: bytes | None) -> bool | None:
        stored: bool | None = self._store_cmd(name, {key: value}, expires, False, cas=token)[key]
        self._check((_STORED_BYTES if token is None else _SWAPPED_BYTES)[stored])
        return stored

    def _left(self, line: bytes) -> int | None:
        [said] = self._misc_cmd([line], b"mg", False)
        self._check(len(said) + len("\r\n"))
        if said == b"EN":
            return None
        match = _LEFT.fullmatch(said)
        if match is None:
            raise MemcacheUnknownError(said[:32])
        return int(match[1])

    def _extract_value(self, expect_cas: bool, line: bytes, *rest: Any) -> Any:
        """pymemcache's hook: called with the line before each value of a reply."""
        match = _VALUE.fullmatch(line)
        if match is None:
            raise MemcacheUnknownError(line[:32])
        self._expected += len(line) + 2 + int(match[2]) + 2
        self._values += 1
        return super()._extract_value(expect_cas, line, *rest)

    def _check(self, expected: int) -> None:
        if self.sock.received != expected:
            raise MemcacheUnknownError("more than the reply")

    @contextmanager
    def _translated(self, *, sent: bool = True) -> Iterator[None]:
        """Driver exceptions never leave a client; and whatever goes wrong, nobody reads from this connection any more. `sent`:
        whether the command may have reached the node.
        """
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | UnicodeError | MemcacheError | KeyError | ValueError):
                # What does not fit may be a part of somebody's session.
                misfit = isinstance(error, MemcacheUnknownError | KeyError | ValueError)
                raise self._in_our_words(error, sent) from (None if misfit else error)
            raise

    def _in_our_words(self, error: Exception, sent: bool) -> Exception:
        host, port = self.server
        where = f"the Memcached node {host}:{port}"
        said = f"({type(error).__name__}: {error})"
        if isinstance(error, OSError | UnicodeError | MemcacheUnexpectedCloseError):
            # Asking again after a timeout would take longer than the operation may.
            retry = not isinstance(error, TimeoutError | ssl.SSLCertVerificationError)
            # A connection that worked, and broke, says nothing of the node: the next one does.
            silent = None if (retry and self._has_answered) or is_about(error, TimeIsUp) else True
            check = advice(error, tls=self._tls is not None, connecting=not sent)
            return StoreUnavailable(
                f"{where} did not answer {said}.{check}", retry=retry, sent=sent, silent=silent
            )
        if isinstance(error, MemcacheServerError) and error.args:
            reason = error.args[0]
            if reason == b"object too large for cache":
                return ValueTooLarge(
                    f"{where} takes no item of that size. Keep large things elsewhere and their key in the session, "
                    "or raise the node's max_item_size."
                )
            if reason == b"out of memory storing object":
                return StoreUnavailable(
                    f"{where} is out of memory and could not make room. Give it more memory.", sent=False
                )
            return StoreUnavailable(f"{where} failed: {reason.decode(errors='replace')[:100]!r}")
        if isinstance(error, MemcacheError) and not isinstance(error, MemcacheUnknownError):
            return StoreUnavailable(f"{where} refused the command {said}. Check what answers there.")
        return StoreUnavailable(
            f"the reply of {where} does not fit the question ({type(error).__name__}). Check what answers there.",
            retry=True,
        )
