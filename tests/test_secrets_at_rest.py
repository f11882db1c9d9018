"""Nobody who reads the store, its slow log, a snapshot of it, or our logs gets a usable id."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from elasticache_sessions.session import handle_of
from tests.support import resp
from tests.support.instances import CANARY, Visit, instances, use
from tests.support.load import PATIENT, manager_of, manager_session
from tests.support.servers import REDIS_7_0, VALKEY_8_1, VALKEY_9_1, Flavour, Server
from tests.support.stores import Store
from tests.support.topologies import Cluster, cluster


def forms(session_id: str) -> list[bytes]:
    """How an id could be written."""
    raw = base64.urlsafe_b64decode(session_id)
    return [
        session_id.encode(),
        raw,
        raw.hex().encode(),
        base64.b64encode(raw),
        session_id.encode().hex().encode(),
        base64.b64encode(session_id.encode()),
        repr(raw)[2:-1].encode(),
    ]


def assert_no_id(ids: set[str], text: bytes) -> None:
    assert len(ids) >= 8
    for session_id in ids:
        assert not any(form in text for form in forms(session_id))


def test_no_key_and_no_value_holds_an_id(framework: str, store: Store) -> None:
    with instances(framework, store.url) as (shop,):
        ids = use(shop)
    keys = store.keys()
    everything = b"\n".join([*keys, *[store.get(key) or b"" for key in keys]])
    assert CANARY.encode() in everything
    assert_no_id(ids, everything)


READABLE = ("--rdbcompression", "no", "--slowlog-log-slower-than", "0", "--slowlog-max-len", "10000")
"""Snapshots can be read as they are, and every command counts as slow."""


@pytest.fixture(
    scope="module",
    params=[REDIS_7_0, VALKEY_8_1, VALKEY_9_1, "cluster"],
    ids=lambda flavour: getattr(flavour, "name", flavour),
)
def readable(request: pytest.FixtureRequest) -> Iterator[Server | Cluster]:
    """A server, or a cluster, that tells all it knows."""
    flavour: Flavour | str = request.param
    with cluster(*READABLE) if isinstance(flavour, str) else Server(flavour, *READABLE) as server:
        yield server


@pytest.fixture
def server(readable: Server | Cluster) -> Server | Cluster:
    """The same with nothing in it."""
    for node in readable.nodes:
        node.command("FLUSHALL")
        node.command("SLOWLOG", "RESET")
    return readable


def everything_said(server: Server | Cluster, act: Callable[[], None]) -> bytes:
    """What MONITOR shows on every node while `act` runs."""
    said: list[bytes] = []

    def listen(monitor: resp.Connection) -> None:
        line = b""
        while b"the end of it" not in line:
            line = bytes(monitor.read())  # type: ignore[call-overload]  # MONITOR says bytes
            said.append(line)

    with ExitStack() as stack:
        monitors = [stack.enter_context(resp.Connection(node.port)) for node in server.nodes]
        assert [monitor("MONITOR") for monitor in monitors] == [b"OK"] * len(monitors)
        listeners = [threading.Thread(target=listen, args=(each,), daemon=True) for each in monitors]
        for listener in listeners:
            listener.start()
        act()
        for node in server.nodes:
            node.command("ECHO", "the end of it")
        for listener in listeners:
            listener.join(10)
            assert not listener.is_alive()
    return b"\n".join(said)


def test_monitor_shows_no_id(framework: str, server: Server | Cluster) -> None:
    ids: set[str] = set()
    with instances(framework, server.url) as (shop,):
        said = everything_said(server, lambda: ids.update(use(shop)))
    assert CANARY.encode() in said and b'"EVALSHA"' in said
    assert_no_id(ids, said)


def test_monitor_shows_no_id_of_an_event_loop(server: Server | Cluster) -> None:
    ids: set[str] = set()

    def act() -> None:
        with manager_of("asyncio", server.url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
            for _ in range(8):
                stored = manager_session(manager, a=CANARY)
                ids.add(stored.id or "")
                assert manager.load(stored.id) is not None
                manager.cycle(stored)
                ids.add(stored.id or "")
                manager.end(stored)

    said = everything_said(server, act)
    assert CANARY.encode() in said
    assert_no_id(ids, said)


def test_the_slow_log_shows_no_id(framework: str, server: Server | Cluster) -> None:
    with instances(framework, server.url) as (shop,):
        ids = use(shop)
    log = repr([node.command("SLOWLOG", "GET", "-1") for node in server.nodes]).encode()
    assert log.count(b"sess:") >= 20
    assert any(handle_of(session_id).encode() in log for session_id in ids)
    assert_no_id(ids, log)


def test_a_snapshot_holds_no_id(framework: str, server: Server | Cluster) -> None:
    with instances(framework, server.url) as (shop,):
        ids = use(shop)
    assert [node.command("SAVE") for node in server.nodes] == [b"OK"] * len(server.nodes)
    files = [path for node in server.nodes for path in node.directory.iterdir() if path.suffix == ".rdb"]
    assert len(files) == len(server.nodes)
    snapshot = b"".join(path.read_bytes() for path in files)
    assert CANARY.encode() in snapshot
    assert_no_id(ids, snapshot)


def test_what_the_server_tells_about_its_clients_and_its_scripts_holds_no_id(
    framework: str, server: Server | Cluster
) -> None:
    with instances(framework, server.url) as (shop,):
        ids = use(shop)
        told = repr(
            [
                node.command(*ask)
                for node in server.nodes
                for ask in (("CLIENT", "LIST"), ("INFO", "everything"))
            ]
        )
    assert_no_id(ids, told.encode())


def test_our_logs_hold_no_id(framework: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with instances(framework, store.url) as (shop,):
        ids = use(shop)
        # What cannot be read is logged, too.
        torn = shop.ask(lambda visit: visit.update(a=1)).session_id
        store.set(f"sess:{handle_of(torn)}".encode(), b"torn", ttl=60)
        shop.ask(dict, torn)
    ids.add(torn)
    logged = "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records)
    assert handle_of(torn) in logged and "dropped" in logged
    assert_no_id(ids, logged.encode())


def show(visit: Visit) -> str:
    """How a session, and what it holds on to, show in a traceback or on a page for debugging."""
    parts = [part for part in vars(visit.raw).values() if not isinstance(part, str)]
    return f"{visit.handle} {visit.raw!r} {visit.raw} {parts}"


def test_the_session_objects_show_no_id(framework: str, store: Store) -> None:
    with instances(framework, store.url) as (shop,):
        cookie = shop.ask(lambda visit: visit.update(a=1)).session_id
        shown = shop.ask(show, cookie).result
        shown += repr(shop.manager.load(cookie))
    assert handle_of(cookie) in shown
    assert cookie not in shown
