"""Slots that move from one node of a cluster to another, and nodes that come and go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.support.demo import wait_until
from tests.support.load import PATIENT
from tests.support.servers import Server


def name_of(node: Server) -> bytes:
    name = node.command("CLUSTER", "MYID")
    assert isinstance(name, bytes)
    return name


def move(slot: int, source: Server, target: Server, nodes: Iterable[Server]) -> Iterator[str]:
    """The steps of moving a slot: it is on its way, its keys have gone, it has arrived."""
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", name_of(source))
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", name_of(target))
    yield "on its way"
    while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 10):
        assert isinstance(keys, list)
        source.command("MIGRATE", target.host, target.port, "", 0, 10_000, "KEYS", *keys)
    yield "keys have gone"
    for node in (target, source, *nodes):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", name_of(target))
    yield "arrived"


def migrate(first: int, last: int, source: Server, target: Server) -> None:
    """Move these slots all at once, as Valkey 9 does it."""
    source.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", name_of(target))
    wait_until(lambda: served_by(target, first) == target.port, PATIENT, f"slots {first} to {last} arrived")


def served_by(node: Server, slot: int) -> int | None:
    """The port of the node that serves a slot, as `node` sees it."""
    ranges = node.command("CLUSTER", "SLOTS")
    assert isinstance(ranges, list)
    return next((primary[1] for first, last, primary, *_ in ranges if first <= slot <= last), None)


def join(cluster: Iterable[Server], new: Server) -> None:
    """Make `new` a node of the cluster, as yet without slots."""
    nodes = [node for node in cluster if node.pid is not None]
    assert new.bus_port is not None
    nodes[0].command("CLUSTER", "MEET", new.host, new.port, new.bus_port)
    wait_until(
        lambda: all(_knows(node, other) for node in (*nodes, new) for other in (*nodes, new)),
        PATIENT,
        "all nodes know the new one",
    )
    wait_until(lambda: b"cluster_state:ok" in _info(new), PATIENT, "the new node would serve slots")


def _info(node: Server) -> bytes:
    info = node.command("CLUSTER", "INFO")
    assert isinstance(info, bytes)
    return info


def _knows(node: Server, other: Server) -> bool:
    flags = _flags(other, node)
    return bool(flags) and b"handshake" not in flags


def is_dead(node: Server, other: Server) -> bool:
    """Whether the cluster has declared `node` dead, as `other` sees it."""
    return b"fail" in _flags(node, other)


def _flags(node: Server, other: Server) -> list[bytes]:
    """What `other` says of `node`; nothing if it does not know it."""
    told = other.command("CLUSTER", "NODES")
    assert isinstance(told, bytes)
    found = (line.split() for line in told.splitlines() if b":%d@" % node.port in line)
    return next((words[2].split(b",") for words in found), [])


def leave(cluster: Iterable[Server], old: Server) -> None:
    """Take `old`, which has no slots any more, out of the cluster, and end it."""
    name = name_of(old)
    for node in cluster:
        if node is not old and node.pid is not None:
            node.command("CLUSTER", "FORGET", name)
    old.kill()
