"""One connection to one Memcached node: what is asked goes out (`memcached_wire`), and exactly its reply comes in, all within
the running operation's time limit.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from ..exceptions import StoreUnavailable, ValueTooLarge
from ..limit import TimeIsUp, running
from ..opaque import OpaqueBytes, OpaqueList
from .base import Command, Glance
from .memcached_asks import Left
from .memcached_wire import Answer, Incomplete, Misfit, Refused, glance, question, survey
from .network import Watched, open_socket
from .tls import advice, is_about

# What is read at once: all of a session, unless it is a large one.
_ROOM: Final = 65_536


class Connection:
    """It is open from the beginning, and closed for good by any failure. Every method raises StoreUnavailable."""

    def __init__(self, node: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self._node, self._tls = node, tls
        self._has_answered = self._is_looked_at = False
        self._answer: Answer | None = None
        self.sock: Any = None
        try:
            with running().connecting():
                self.sock = open_socket(*node, tls)
        except BaseException as error:  # noqa: BLE001 - raised by `_fail`
            self._fail(error, sent=False)

    @property
    def is_usable(self) -> bool:
        """Whether a question may be sent: it is open, and nothing that belongs to an earlier one waits on it."""
        self._is_looked_at = self.sock is not None and self.sock.is_quiet()
        return self._is_looked_at

    def close(self) -> None:
        sock, self.sock = self.sock, None
        if sock is not None:
            sock.close()

    def ask(self, command: Command | Left) -> Any:
        """What the node says to `command`: see `memcached_wire.question`."""
        self.begin(command)
        return self.finish()

    def begin(self, command: Command | Left) -> None:
        """Send the question, and do not wait: `finish` reads the reply, which must come before the next question."""
        try:
            said, self._answer = question(command, int(time.time()))
            self._quiet().sendall(said)
        except BaseException as error:  # noqa: BLE001 - raised by `_fail`
            self._fail(error)

    def finish(self) -> Any:
        """What the node says: see `ask`."""
        answer, self._answer = self._answer, None
        assert answer is not None, "nothing was asked"
        try:
            reply = OpaqueBytes(self._open().recv(_ROOM))
            try:
                said = answer(reply)
            except Incomplete as reason:
                said = self._all_of(reply, reason.missing, answer)
        except BaseException as error:  # noqa: BLE001 - raised by `_fail`
            self._fail(error)
        self._has_answered = True
        return said

    def _all_of(self, reply: bytes, missing: int, answer: Answer) -> Any:
        while True:
            reply = OpaqueBytes(reply + self._more(missing))
            try:
                return answer(reply)
            except Incomplete as reason:
                missing = reason.missing

    def look(self, keys: Sequence[bytes]) -> list[Glance | None]:
        """Ask for all of them before any reply is waited for. Values come whole, and are let go one by one."""
        found: list[Glance | None] = []
        try:
            self._quiet().sendall(survey(keys))
            replies, begin = OpaqueBytes(), 0
            while len(found) < len(keys):
                try:
                    seen, begin = glance(keys[len(found)], replies, begin)
                    found.append(seen)
                except Incomplete as reason:
                    replies, begin = OpaqueBytes(replies[begin:] + self._more(reason.missing)), 0
            if begin < len(replies):
                raise Misfit
        except BaseException as error:  # noqa: BLE001 - raised by `_fail`
            self._fail(error)
        self._has_answered = True
        return found

    def _open(self) -> Watched:
        if self.sock is None:
            raise ConnectionError("it was closed")
        sock: Watched = self.sock
        return sock

    def _quiet(self) -> Watched:
        """The socket, with nothing on it that would be taken for the reply. Whoever lends connections has looked; not when
        it was asked something since.
        """
        sock, looked = self._open(), self._is_looked_at
        self._is_looked_at = False
        if not (looked or sock.is_quiet()):
            raise Misfit
        return sock

    def _more(self, missing: int) -> bytes:
        """At least so many bytes more."""
        parts = OpaqueList[bytes]()
        while missing > 0:
            part = OpaqueBytes(self._open().recv(_ROOM))
            if not part:
                raise ConnectionError("it closed the connection")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _fail(self, error: BaseException, *, sent: bool = True) -> NoReturn:
        """Whatever goes wrong, nobody reads from this connection any more. `sent`: whether the command may have reached the
        node.
        """
        self.close()
        if isinstance(error, Misfit):
            raise self._in_our_words(
                error, sent
            ) from None  # what does not fit may be a part of somebody's session
        if isinstance(error, OSError | ValueError | Refused):
            raise self._in_our_words(error, sent) from error
        raise error

    def _in_our_words(self, error: Exception, sent: bool) -> Exception:
        host, port = self._node
        where = f"the Memcached node {host}:{port}"
        if isinstance(error, Misfit):
            return StoreUnavailable(
                f"the reply of {where} does not fit the question. Check what answers there.", retry=True
            )
        said = f"({type(error).__name__}: {error})"
        if isinstance(error, OSError | UnicodeError):
            # Asking again after a timeout would take longer than the operation may.
            retry = not isinstance(error, TimeoutError | ssl.SSLCertVerificationError)
            # A connection that worked, and broke, says nothing of the node: the next one does.
            silent = None if (retry and self._has_answered) or is_about(error, TimeIsUp) else True
            check = advice(error, tls=self._tls is not None, connecting=not sent)
            return StoreUnavailable(
                f"{where} did not answer {said}.{check}", retry=retry, sent=sent, silent=silent
            )
        if not (isinstance(error, Refused) and error.of_node):
            return StoreUnavailable(f"{where} refused the command {said}. Check what answers there.")
        if error.reason == "object too large for cache":
            return ValueTooLarge(
                f"{where} takes no item of that size. Keep large things elsewhere and their key in the session, "
                "or raise the node's max_item_size."
            )
        if error.reason == "out of memory storing object":
            return StoreUnavailable(
                f"{where} is out of memory and could not make room. Give it more memory.", sent=False
            )
        return StoreUnavailable(f"{where} failed: {error.reason!r}")
