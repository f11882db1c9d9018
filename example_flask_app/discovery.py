"""ElastiCache's auto discovery, for the demo: which nodes of Memcached belong to the cluster, told to whoever asks.

The protocol is that of a configuration endpoint
(https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/AutoDiscovery.AddingToYourClientLibrary.html):
`config get cluster` is answered with a version, which grows with every change, and a line of `host|address|port`.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Final

HOST: Final = "127.0.0.1"


def node_name(port: int) -> str:
    """As the clients call the node."""
    return f"{HOST}:{port}"


class Listing:
    """Which nodes are listed. A file holds the very answer, so that the list outlives who tells it."""

    def __init__(self, path: Path, *at_first: int) -> None:
        self._path = path
        self._change = threading.Lock()
        if not path.exists():
            self._write(1, at_first)

    def answer(self) -> bytes:
        return self._path.read_bytes()

    @property
    def version(self) -> int:
        return int(self.answer().split()[0])

    @property
    def ports(self) -> list[int]:
        """Those of the nodes that are listed."""
        return [int(node.rpartition(b"|")[2]) for node in self.answer().split()[1:]]

    def add(self, port: int) -> None:
        with self._change:
            self._write(self.version + 1, [*self.ports, port])

    def remove(self, port: int) -> None:
        with self._change:
            self._write(self.version + 1, [other for other in self.ports if other != port])

    def _write(self, version: int, ports: Iterable[int]) -> None:
        nodes = " ".join(f"{HOST}|{HOST}|{port}" for port in sorted(ports))
        new = self._path.with_suffix(".new")
        new.write_bytes(f"{version}\n{nodes}\n".encode())
        new.replace(self._path)


class Endpoint(ThreadingTCPServer):
    """The configuration endpoint. It tells of the nodes, and keeps nothing itself."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, listing: Listing) -> None:
        super().__init__((HOST, port), _Talk)
        self.listing = listing


class _Talk(StreamRequestHandler):
    """One client, question by question."""

    server: Endpoint

    def handle(self) -> None:
        for line in self.rfile:
            match line.split():
                case [b"config", b"get", b"cluster"]:
                    nodes = self.server.listing.answer()
                    self.wfile.write(b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(nodes), nodes))
                case [b"version"]:
                    self.wfile.write(b"VERSION 1.6.22\r\n")
                case [b"quit"]:
                    return
                case _:
                    self.wfile.write(b"ERROR\r\n")
