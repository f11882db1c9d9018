"""A proxy's sockets where the store speaks TLS: it ends TLS on both sides, so that it sees what passes."""

from __future__ import annotations

import socket
import ssl
import threading

from tests.support.certificates import authority
from tests.support.dialects import HOST


class Secured:
    """A connected socket, over TLS from `begin` on. Like the socket, but for `recv`."""

    def __init__(self, sock: socket.socket, *, server_side: bool) -> None:
        files = authority()
        context = files.server if server_side else files.client
        self._socket: ssl.SSLSocket = context.wrap_socket(
            sock,
            server_side=server_side,
            do_handshake_on_connect=False,
            server_hostname=None if server_side else HOST,
        )
        # A test pushes bytes while the link's own thread reads.
        self._lock = threading.Lock()
        self._begun = False

    def begin(self) -> None:
        """The handshake, which waits for the other side."""
        if not self._begun:
            self._socket.do_handshake()
            self._begun = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, size: int) -> bytes:
        """Raises BlockingIOError where nothing came but what TLS sends for itself."""
        self.begin()
        with self._lock:
            patience = self._socket.gettimeout()
            self._socket.settimeout(0)
            try:
                data = self._socket.recv(size)
                while self._socket.pending():  # the selector does not know of it
                    data += self._socket.recv(size)
            except ssl.SSLWantReadError:
                raise BlockingIOError from None
            finally:
                self._socket.settimeout(patience)
        return data

    def sendall(self, data: bytes | bytearray) -> None:
        self.begin()
        with self._lock:
            self._socket.sendall(data)

    def shutdown(self, how: int) -> None:
        socket.socket.shutdown(
            self._socket, how
        )  # TLS's own would take the layer from under the other thread

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self._socket.setsockopt(level, name, value)

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def close(self) -> None:
        self._socket.close()
