"""One view of every store for the tests: the raw keys, past the package and past every driver."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Protocol

from elasticache_sessions.clients.base import Entry, Read
from elasticache_sessions.clients.memory import MemoryClient
from tests.support import memcached, resp, servers, topologies
from tests.support.dialects import Access, Dialect
from tests.support.servers import Server
from tests.support.topologies import CLUSTER_RIGHTS, LEAST_RIGHTS, Cluster, Copies, Nodes, Replicated

TOPOLOGIES = ("primary-tls", "cluster-tls", "serverless", "memcached-tls", "memcached-copies")
"""As ElastiCache sets them up. Tests meet them only where `--stores` asks for them."""
BY_NOX = ("redis-7.0", "valkey-8.1")
"""`make test` meets them where a test names them; all tests of stores do in nox, with the Pythons and packages it has anyway."""
REDIS = ("redis-7.0", "valkey-8.1", "valkey-9.1", "cluster", "primary-tls", "cluster-tls", "serverless")
MEMCACHED = ("memcached", "memcached-3", "memcached-tls", "memcached-copies")
TWO_COPIES = ("memcached-copies",)
NETWORKED = (*REDIS, *MEMCACHED)
LOOKING = (*REDIS, "memory")
"""Those that look at what is there before they touch it."""
ALL = (*NETWORKED, "memory")


class Store(Protocol):
    """A store that a test is given, with nothing in it."""

    name: str

    @property
    def url(self) -> str:
        """What the package is told to connect to."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Of its servers: `Proxy(*store.ports)`; none for `memory`."""

    @property
    def dialect(self) -> Dialect:
        """What its servers speak; fails for `memory`."""

    def flush(self) -> None: ...

    def keys(self) -> list[bytes]:
        """All of them, sorted."""

    def get(self, key: bytes) -> bytes | None: ...

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        """`ttl` in seconds; None: for ever."""

    def expire(self, key: bytes, ttl: int) -> None:
        """Give what is there, which must be, that TTL in seconds."""

    def ttl(self, key: bytes) -> int | None:
        """Whole seconds; None where there is no key, or one without an end."""

    def raw(self, *arguments: resp.Argument) -> object:
        """Any command of its dialect, on the node that has its key; fails for `memory`."""


class _Networked:
    """What stores behind a network have in common: where they are, and one connection to each server."""

    def __init__(self, server: Server | Cluster | Replicated | Nodes | Copies) -> None:
        self.name = server.name
        self.dialect = server.dialect
        self.url = server.url
        self.ports = server.ports
        self._connections: dict[int, resp.Connection] = {}

    def _ask(self, port: int, *arguments: resp.Argument) -> object:
        if port not in self._connections:
            self._connections[port] = self.dialect.connection(port)
        try:
            return self._connections[port](*arguments)
        except OSError:  # what was said on it is unknown now; and a test may have restarted the server
            self._connections.pop(port).close()
            raise

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class RedisStore(_Networked):
    """One server, or a cluster's nodes."""

    def __init__(self, server: Server | Cluster | Replicated | Nodes | Copies) -> None:
        super().__init__(server)
        # FLUSHALL is not for the others, and their keys are their primary's.
        self._primaries = tuple(node.port for node in getattr(server, "primaries", ())) or self.ports

    def flush(self) -> None:
        for port in self._primaries:
            self._ask(port, "FLUSHALL")

    def keys(self) -> list[bytes]:
        found: list[bytes] = []
        for port in self._primaries:
            reply = self._ask(port, "KEYS", "*")
            assert isinstance(reply, list)
            found += reply
        return sorted(found)

    def get(self, key: bytes) -> bytes | None:
        value = self.raw("GET", key)
        assert value is None or isinstance(value, bytes)
        return value

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        assert self.raw("SET", key, value, *(() if ttl is None else ("EX", ttl))) == b"OK"

    def expire(self, key: bytes, ttl: int) -> None:
        assert self.raw("EXPIRE", key, ttl) == 1

    def ttl(self, key: bytes) -> int | None:
        left = self.raw("TTL", key)
        assert isinstance(left, int)
        return None if left < 0 else left

    def raw(self, *arguments: resp.Argument) -> object:
        port = self.ports[0]
        while True:
            try:
                return self._ask(port, *arguments)
            except resp.ReplyError as error:
                if not str(error).startswith("MOVED "):
                    raise
                port = int(str(error).rpartition(":")[2])


class MemcachedStore(_Networked):
    """One Memcached node, or several, with one copy of each key or with two."""

    def flush(self) -> None:
        # Not `flush_all`: it counts in whole seconds, and would drop what a test stores in this one.
        for port in self.ports:
            for key in self._keys(port):
                self._ask(port, "delete", key)
        assert self.keys() == []

    def keys(self) -> list[bytes]:
        # Without what the nodes keep for discovery: which nodes there were before.
        return sorted({key for port in self.ports for key in self._keys(port) if not key.endswith(b":nodes")})

    def _keys(self, port: int) -> list[bytes]:
        return memcached.keys(partial(self._ask, port))

    def get(self, key: bytes) -> bytes | None:
        lines = self.raw("get", key)
        assert isinstance(lines, list)
        return lines[1] if lines else None

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        assert self.raw("set", key, 0, ttl or 0, len(value), value) == b"STORED"

    def expire(self, key: bytes, ttl: int) -> None:
        assert self.raw("touch", key, ttl) == b"TOUCHED"

    def ttl(self, key: bytes) -> int | None:
        line = self.raw("mg", key, "t")
        assert isinstance(line, bytes)
        return None if line in (b"EN", b"HD t-1") else int(line.removeprefix(b"HD t"))

    def raw(self, *arguments: resp.Argument) -> object:
        """On each node that has the key's place; the answer of the first that has the key."""
        words, _ = self.dialect.parse_command(memcached.encode(*arguments))
        owners = memcached.by_claim(self.ports, memcached.key_of(words))[: self.dialect.copies]
        said = [self._ask(port, *arguments) for port in owners]
        return next((answer for answer in said if answer not in _NOTHING), said[0])


_NOTHING: tuple[object, ...] = ([], b"EN", b"NOT_FOUND")
"""What Memcached answers about a key that it does not have."""


_numbers = itertools.count(1)


class MemoryStore:
    """The package's own store; it has no port to look in through, so this asks its client."""

    name = "memory"
    ports: tuple[int, ...] = ()

    def __init__(self) -> None:
        name = f"test-{os.getpid()}-{next(_numbers)}"
        self.url = f"memory://{name}"
        self._client = MemoryClient.shared(name)

    @property
    def dialect(self) -> Dialect:
        raise AssertionError("memory:// has no server: use networked_store")

    def raw(self, *arguments: resp.Argument) -> object:
        raise AssertionError("memory:// knows no commands: use networked_store")

    def flush(self) -> None:
        self._client.clear()

    def keys(self) -> list[bytes]:
        return sorted(self._client.keys())

    def get(self, key: bytes) -> bytes | None:
        entry = self._client.perform(Read(key))
        assert entry is None or isinstance(entry, Entry)
        return None if entry is None else entry.value

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        self._client.put(key, value, math.inf if ttl is None else ttl)

    def expire(self, key: bytes, ttl: int) -> None:
        value = self.get(key)
        assert value is not None
        self.set(key, value, ttl)

    def ttl(self, key: bytes) -> int | None:
        left = self._client.ttl(key)
        return None if left is None or left == math.inf else round(left)


_MADE: dict[str, Callable[[], AbstractContextManager[Server | Cluster | Replicated | Nodes | Copies]]] = {
    **{
        flavour.name: partial(Server, flavour)
        for flavour in (servers.REDIS_7_0, servers.VALKEY_8_1, servers.VALKEY_9_1, servers.MEMCACHED)
    },
    "cluster": topologies.cluster,
    "memcached-3": topologies.nodes,
    "primary-tls": partial(
        topologies.replicated, access=Access(tls=True, user="sessions", rights=LEAST_RIGHTS)
    ),
    "cluster-tls": partial(
        topologies.cluster,
        replicas=True,
        flavour=servers.REDIS_7_0,
        access=Access(tls=True, user="sessions", rights=CLUSTER_RIGHTS),
    ),
    "serverless": topologies.serverless,
    "memcached-copies": topologies.copies,
    "memcached-tls": partial(Server, servers.MEMCACHED, access=Access(tls=True)),
}


@contextmanager
def store_factory() -> Iterator[Callable[[str], Store]]:
    """Gives each store by its name, emptied; its servers start when it is first asked for, and end with the block."""
    running: dict[str, RedisStore | MemcachedStore] = {}
    with ExitStack() as stack:

        def give(name: str) -> Store:
            if name == "memory":
                return MemoryStore()
            if name not in running:
                server = stack.enter_context(_MADE[name]())
                running[name] = (MemcachedStore if name in MEMCACHED else RedisStore)(server)
                stack.callback(running[name].close)
            running[name].flush()
            return running[name]

        yield give
