"""What it takes to reach a node: its name's addresses, a connection, TLS; all within the running operation's time limit."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError as NotDone
from typing import Any, Final, TypeVar

from ..limit import running

P = TypeVar("P", bound=asyncio.Protocol)

# Threads that look up names, at most. A look-up cannot be ended: one that hangs keeps its thread, and whoever asks for the
# same name waits for the same look-up. Names beyond these wait for their turn.
_LOOKUPS: Final = 8
_Place = tuple[str, int]
_lookups: dict[_Place, Future[list[Any]]] = {}
_turns: deque[_Place] = deque()
_threads: set[threading.Thread] = set()
_lookups_lock: Final = threading.Lock()
# Seconds that a wait may be longer than its limit, so that not each needs a system call to say how long.
_PRECISION: Final = 0.01
# Notices a peer that is gone without a word, so that its connections do not stay in the pool.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
# How long TLS waits for the other side to say goodbye, too, in seconds.
_GOODBYE: Final = 0.1


class SlowName(TimeoutError):
    """The addresses of a name did not come in time."""


# Held while OpenSSL works on a handshake: it takes locks of its own then, and in a child that is forked meanwhile these
# would be held for ever.
_handshakes: Final = threading.RLock()


def _begin_in_child() -> None:
    for lock in (_lookups_lock, _handshakes):
        lock._at_fork_reinit()  # type: ignore[union-attr]  # as the standard library's own modules do
    for each in (_lookups, _turns, _threads):
        each.clear()  # the threads stay with the parent


os.register_at_fork(
    before=_handshakes.acquire, after_in_parent=_handshakes.release, after_in_child=_begin_in_child
)


def _look_up(host: str, port: int) -> Future[list[Any]]:
    """The addresses of `host`, as `socket.getaddrinfo` gives them, in a while."""
    place = (host, port)
    with _lookups_lock:
        if (future := _lookups.get(place)) is not None:
            return future
        future = _lookups[place] = Future()
        future.set_running_or_notify_cancel()  # several may wait for it: none may cancel it
        _turns.append(place)
        if len(_threads) < _LOOKUPS:
            thread = threading.Thread(target=_take_turns, name="looks-up-names", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not _threads:
                    _lookups.pop(place)
                    _turns.pop()
                    raise OSError(f"no thread to look up a name in: {error}") from None
            else:
                _threads.add(thread)
    return future


def _take_turns() -> None:
    """Look up one name after the other, until there is none to look up."""
    while True:
        with _lookups_lock:
            if not _turns:
                _threads.discard(threading.current_thread())
                return
            place = _turns.popleft()
        found: list[Any] | BaseException
        try:
            found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
        except BaseException as error:  # noqa: BLE001 - raised by whoever asked
            found = error
        with _lookups_lock:
            future = _lookups.pop(place)
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _addresses(host: str, port: int) -> list[Any]:
    if _is_address(host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    try:
        return _look_up(host, port).result(running().need())
    except NotDone:
        raise SlowName(f"looking up the name {host!r} took too long") from None


async def _addresses_async(host: str, port: int) -> list[Any]:
    if _is_address(host):
        return _addresses(host, port)
    try:
        async with asyncio.timeout(running().need()):
            return await asyncio.wrap_future(_look_up(host, port))
    except TimeoutError:
        raise SlowName(f"looking up the name {host!r} took too long") from None


class Watched:
    """A socket that waits no longer than the running operation may."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._is_plain = not isinstance(sock, ssl.SSLSocket)
        self._timeout = -1.0
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)

    def sendall(self, data: bytes) -> None:
        self._hold_to_limit()
        sent = self._socket.send(data)
        while sent < len(
            data
        ):  # a TLS socket's own `sendall` would take the time limit anew for each of its records
            self._hold_to_limit()
            sent += self._socket.send(memoryview(data)[sent:])

    def recv(self, size: int) -> bytes:
        self._hold_to_limit()
        return self._socket.recv(size)

    def recv_into(self, buffer: bytearray) -> int:
        self._hold_to_limit()
        return self._socket.recv_into(buffer)

    def _hold_to_limit(self) -> None:
        left = running().need()
        if not 0 <= self._timeout - left < _PRECISION:  # each time is a system call
            self._timeout = left
            self._socket.settimeout(left)

    def settimeout(self, seconds: float | None) -> None:
        """What a driver thinks right; it is not asked."""

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read, be it a late reply or the end of the connection. Where it is False, the
        connection is of no use any more.
        """
        if self._poller.poll(0):
            if self._is_plain:
                return False
        elif self._is_plain or not self._socket.pending():  # type: ignore[attr-defined]  # a TLS socket's
            return True
        try:
            self._timeout = 0.0
            self._socket.settimeout(0)  # a greenlet would wait on a socket that has another time limit
            # Read, since TLS cannot peek. Tickets for later sessions, which a server sends when it likes, are TLS's own,
            # and no data.
            self._socket.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def open_socket(host: str, port: int, tls: ssl.SSLContext | None = None) -> Watched:
    """A connection to the first address of `host` that takes one.

    Raises:
        OSError: TimeoutError, socket.gaierror, ssl.SSLError among them
    """
    failure = OSError(f"the name {host!r} has no address")
    addresses = _addresses(host, port)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            _prepare(sock)
            sock.settimeout(running().need() / (len(addresses) - number))
            sock.connect(address)
            if tls is not None:
                with _handshakes:
                    sock = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
                _shake_hands(sock, running().need() / (len(addresses) - number))
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return Watched(sock)
    raise failure


def _shake_hands(sock: Any, seconds: float) -> None:
    """Within so many seconds; with gevent, a socket's own time limit begins anew with each byte."""
    end = time.monotonic() + seconds
    poller = select.poll()
    sock.settimeout(0)
    while True:
        try:
            with _handshakes:
                sock.do_handshake()
        except ssl.SSLWantReadError:
            poller.register(sock, select.POLLIN)
        except ssl.SSLWantWriteError:
            poller.register(sock, select.POLLOUT)
        else:
            return
        if not poller.poll(max(0.0, end - time.monotonic()) * 1000):
            raise TimeoutError("the TLS handshake timed out")


async def open_stream(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `open_socket`, for asyncio."""
    loop = asyncio.get_running_loop()
    readers: list[asyncio.StreamReader] = []  # one for each address that is tried

    def made() -> asyncio.StreamReaderProtocol:
        readers.append(asyncio.StreamReader(loop=loop))
        return asyncio.StreamReaderProtocol(readers[-1], loop=loop)

    transport, protocol = await open_transport(host, port, made, tls)
    return readers[-1], asyncio.StreamWriter(transport, protocol, readers[-1], loop)


async def open_transport(
    host: str, port: int, protocol: Callable[[], P], tls: ssl.SSLContext | None = None
) -> tuple[asyncio.Transport, P]:
    """As `open_socket`, for a protocol of asyncio's."""
    failure = OSError(f"the name {host!r} has no address")
    addresses = await _addresses_async(host, port)
    for number, (*_, address) in enumerate(addresses):
        try:
            async with asyncio.timeout(running().need() / (len(addresses) - number)):
                if tls is None:
                    loop = asyncio.get_running_loop()
                    made = await loop.create_connection(protocol, address[0], address[1])
                else:
                    made = await _open_tls(address, host, protocol(), tls)
        except OSError as error:
            failure = error
        else:
            _prepare(made[0].get_extra_info("socket"))
            return made
    raise failure


async def _open_tls(address: Any, host: str, protocol: P, tls: ssl.SSLContext) -> tuple[asyncio.Transport, P]:
    """In two steps: in one, asyncio says TLS's goodbye for whoever is cancelled at the end, and the connection stays until
    the other side has said its own.
    """
    loop = asyncio.get_running_loop()
    plain, _ = await loop.create_connection(asyncio.Protocol, address[0], address[1])
    transport = await loop.start_tls(
        plain, protocol, tls, server_hostname=host, ssl_shutdown_timeout=_GOODBYE
    )
    assert transport is not None, "only where the connection was closed meanwhile, which raises"
    protocol.connection_made(transport)
    return transport, protocol


def _prepare(sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
