"""Several servers that are one store together, as ElastiCache has them, and one that behaves as its serverless caches do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations
from typing import Final

from tests.support import dialects, resp
from tests.support.dialects import OPEN, Access, Dialect
from tests.support.discovery import DiscoveryEndpoint
from tests.support.servers import (
    MEMCACHED,
    REDIS_7_0,
    START_TIMEOUT,
    VALKEY_9_1,
    Flavour,
    Server,
    ServerFailed,
)

SLOTS: Final = 16_384

LEAST_RIGHTS: Final = (
    "~sess:*",
    "-@all",
    "+get",
    "+getex",
    "+set",
    "+pttl",
    "+pexpire",
    "+eval",
    "+evalsha",
    "+scan",
)
"""All that the package needs of a single endpoint."""
CLUSTER_RIGHTS: Final = (*LEAST_RIGHTS, "+cluster|slots", "+asking")
"""The same of cluster mode."""
_NOT_ON_SERVERLESS: Final = (
    *("@admin", "keys", "object", "memory", "latency", "lastsave", "role", "randomkey", "select", "move"),
    *("swapdb", "migrate", "restore", "wait", "waitaof", "function", "fcall", "fcall_ro"),
    *("client|id", "client|info", "client|list", "client|kill", "client|tracking", "client|trackinginfo"),
    *("client|caching", "client|getredir", "client|no-evict", "client|unblock"),
)
SERVERLESS_RIGHTS: Final = ("~*", "&*", "+@all", *(f"-{name}" for name in _NOT_ON_SERVERLESS))
"""What ElastiCache Serverless lets anybody do."""

# A replica gets what the primary has at once, not when others may have come, and counts once it was sent something.
_PROMPT: Final = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class _Several:
    """Servers that are one store together."""

    host = "127.0.0.1"

    def __init__(self, nodes: tuple[Server, ...], name: str) -> None:
        self.nodes = nodes
        self.name = name

    @property
    def dialect(self) -> Dialect:
        return self.nodes[0].dialect

    @property
    def port(self) -> int:
        return self.nodes[0].port

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(node.port for node in self.nodes)

    @property
    def url(self) -> str:
        return self.dialect.url(self.ports)


class Cluster(_Several):
    """Nodes that share the slots. What is primary and replica here was so at first; failovers change it."""

    def __init__(self, primaries: tuple[Server, ...], replicas: tuple[Server, ...] = ()) -> None:
        super().__init__((*primaries, *replicas), "cluster")
        self.primaries, self.replicas = primaries, replicas

    def replica_of(self, primary: Server) -> Server:
        return self.replicas[self.primaries.index(primary)]

    def owner(self, key: resp.Argument) -> Server:
        """The node that serves `key` just now. Fails while none does."""
        port = self._serving(lambda port: self.dialect.command(port, "EXISTS", key))[0]
        return next(node for node in self.nodes if node.port == port)

    def command(self, *arguments: resp.Argument) -> object:
        """One command on the node that has its key."""
        return self._serving(lambda port: self.dialect.command(port, *arguments))[1]

    def _serving(self, ask: Callable[[int], object]) -> tuple[int, object]:
        port = next(node.port for node in self.nodes if node.pid is not None)
        while True:
            try:
                return port, ask(port)
            except resp.ReplyError as error:
                if not str(error).startswith("MOVED "):
                    raise
                port = int(str(error).rpartition(":")[2])

    def in_sync(self) -> None:
        """Wait until each replica has what its primary has."""
        for primary, replica in zip(self.primaries, self.replicas, strict=bool(self.replicas)):
            _in_sync(primary, replica)


@contextmanager
def cluster(
    *options: str,
    size: int = 3,
    replicas: bool = False,
    flavour: Flavour = VALKEY_9_1,
    access: Access = OPEN,
    node_timeout: float = 15,
) -> Iterator[Cluster]:
    """A cluster of `size` primaries, each with a replica if so wanted, whose every node knows all the others. `options`
    as for `Server`; after `node_timeout` seconds a node that is silent counts as dead.
    """
    options = ("--cluster-node-timeout", str(int(node_timeout * 1000)), *options)
    with ExitStack() as stack:

        def started(count: int) -> tuple[Server, ...]:
            servers = (
                Server(flavour, *_PROMPT, *options, access=access, cluster_node=True) for _ in range(count)
            )
            return tuple(stack.enter_context(server) for server in servers)

        made = Cluster(started(size), started(size if replicas else 0))
        for number, node in enumerate(made.primaries):
            first, last = SLOTS * number // size, SLOTS * (number + 1) // size - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(made.nodes):
            # Two nodes that begin with the same epoch settle it between them later, amid the tests.
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            # They tell each other what is new sooner the shorter it is.
            node.command("CONFIG", "SET", "cluster-node-timeout", 500, "cluster-replica-no-failover", "yes")
        for node, other in combinations(made.nodes, 2):
            assert other.bus_port is not None
            node.command("CLUSTER", "MEET", other.host, other.port, other.bus_port)
        _until(lambda: all(_knows(node, len(made.nodes)) for node in made.nodes), made.nodes[0])
        for primary, replica in zip(made.primaries, made.replicas, strict=replicas):
            name = primary.command("CLUSTER", "MYID")
            assert isinstance(name, bytes)
            replica.command("CLUSTER", "REPLICATE", name)
        _until(lambda: all(_serves(node, size, replicas) for node in made.nodes), made.nodes[0])
        for node in made.nodes:
            node.command("CONFIG", "SET", "cluster-node-timeout", int(node_timeout * 1000))
            node.command("CONFIG", "SET", "cluster-replica-no-failover", "no")
        made.in_sync()
        yield made


def _until(done: Callable[[], bool], node: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not done():
        if time.monotonic() > deadline:
            raise ServerFailed(f"the cluster did not form: {node.command('CLUSTER', 'NODES')!r}")
        time.sleep(0.02)


def _knows(node: Server, count: int) -> bool:
    told = node.command("CLUSTER", "NODES")
    assert isinstance(told, bytes)
    return len(told.splitlines()) == count and b"handshake" not in told


def _serves(node: Server, size: int, replicas: bool) -> bool:
    info, slots = node.command("CLUSTER", "INFO"), node.command("CLUSTER", "SLOTS")
    assert isinstance(info, bytes) and isinstance(slots, list)
    return (
        b"cluster_state:ok" in info
        and len(slots) == size
        and all(len(served) == 3 + replicas for served in slots)
    )


class Replicated(_Several):
    """A primary and its replica, cluster mode disabled. What connects to it is told of the primary alone."""

    def __init__(self, primary: Server, replica: Server) -> None:
        super().__init__((primary, replica), "primary")
        self.primary, self.replica = primary, replica

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.primary.port,)

    def command(self, *arguments: resp.Argument) -> object:
        return self.primary.command(*arguments)

    def in_sync(self) -> None:
        """Wait until the replica has what the primary has."""
        _in_sync(self.primary, self.replica)


@contextmanager
def replicated(*options: str, flavour: Flavour = REDIS_7_0, access: Access = OPEN) -> Iterator[Replicated]:
    """`options` as for `Server`, of both."""
    with (
        Server(flavour, *_PROMPT, *options, access=access) as primary,
        Server(flavour, *_PROMPT, *options, access=access) as replica,
    ):
        replica.command("REPLICAOF", primary.host, primary.port)
        made = Replicated(primary, replica)
        made.in_sync()
        yield made


def _in_sync(primary: Server, replica: Server) -> None:
    """Wait until the replica has what the primary has had until now."""
    deadline = time.monotonic() + START_TIMEOUT
    written = _replication(primary, "master_repl_offset")
    while _replication(replica, "master_link_status") != "up" or int(
        _replication(replica, "slave_repl_offset")
    ) < int(written):
        assert time.monotonic() < deadline, replica.command("INFO", "replication")
        time.sleep(0.01)


def _replication(node: Server, name: str) -> str:
    info = node.command("INFO", "replication")
    assert isinstance(info, bytes)
    found = re.search(rf"^{name}:(\S+)", info.decode(), re.MULTILINE)
    return found[1] if found else "-1"


@contextmanager
def serverless(*options: str, rights: tuple[str, ...] = SERVERLESS_RIGHTS) -> Iterator[Server]:
    """One node that owns all slots, and a user who may do what ElastiCache Serverless lets him do. Without TLS, which
    this Valkey lacks.
    """
    access = Access(user="sessions", rights=rights)
    with Server(VALKEY_9_1, *options, access=access, cluster_node=True) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        _until(lambda: _serves(server, 1, False), server)
        yield server


class Nodes(_Several):
    """Several Memcached nodes, which know nothing of each other."""

    def __init__(self, nodes: tuple[Server, ...]) -> None:
        super().__init__(nodes, f"memcached-{len(nodes)}")


@contextmanager
def nodes(size: int = 3) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(tuple(stack.enter_context(Server(MEMCACHED)) for _ in range(size)))


class Copies(_Several):
    """Memcached nodes behind a configuration endpoint, each key on the two that rank first for it."""

    copies = 2

    def __init__(self, nodes: tuple[Server, ...], endpoint: DiscoveryEndpoint) -> None:
        super().__init__(nodes, "memcached-copies")
        self.endpoint = endpoint

    @property
    def dialect(self) -> Dialect:
        return dialects.memcached_for(copies=self.copies)

    @property
    def url(self) -> str:
        return self.endpoint.url_with(copies=self.copies)


@contextmanager
def copies(size: int = 3) -> Iterator[Copies]:
    with nodes(size) as made, DiscoveryEndpoint(*made.ports) as endpoint:
        yield Copies(made.nodes, endpoint)
