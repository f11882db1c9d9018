"""TLS to each kind of store: whom it trusts, what it says where it fails, and that its connections are kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from elasticache_sessions import (
    AsyncSessionManager,
    ConfigurationError,
    SessionManager,
    Settings,
    StoreUnavailable,
)
from elasticache_sessions.clients.base import ABSENT, Read, Write
from elasticache_sessions.clients.memcached_connection import Connection
from elasticache_sessions.clients.redis_connection import AsyncConnection
from elasticache_sessions.clients.tls import context
from elasticache_sessions.limit import TimeLimit
from tests.support import topologies
from tests.support.certificates import authority
from tests.support.demo import wait_until
from tests.support.dialects import PASSWORD, Access
from tests.support.load import PATIENT, OnLoop, contents, manager_of, once_back, stored_id
from tests.support.servers import MEMCACHED, REDIS_7_0, Server
from tests.support.topologies import LEAST_RIGHTS

CONNECT_TIMEOUT = 2.0
# What a busy machine may add to a time limit.
GRACE = 10.0
OTHER_HOST = "127.0.0.2"
SECURE, PLAIN = Access(tls=True), Access()
OWN_CA, OTHER_CA = "own", "other"

Urls = Callable[..., str]


@pytest.fixture(scope="module", params=["redis", "cluster", "memcached"])
def urls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    """Makes the URL of a store with TLS, or of one without: as one with TLS or without, by another host name, with another
    CA.
    """
    kind = request.param
    other_ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(other_ca)
    files = {OWN_CA: authority().ca_file, OTHER_CA: other_ca}
    flavour = MEMCACHED if kind == "memcached" else REDIS_7_0
    hosts = ("-l", OTHER_HOST) if kind == "memcached" else ("--bind", "127.0.0.1", OTHER_HOST)
    with ExitStack() as stack:
        ports = {}
        for access in (SECURE, PLAIN):
            if kind == "cluster":
                cluster = topologies.cluster(*hosts, size=1, flavour=flavour, access=access)
                ports[access] = stack.enter_context(cluster).port
            else:
                ports[access] = stack.enter_context(Server(flavour, *hosts, access=access)).port

        def url(
            access: Access, *, asks_for: Access = SECURE, host: str = "127.0.0.1", ca: str | None = OWN_CA
        ) -> str:
            options = ["tls=true"] if kind == "memcached" and asks_for.tls else []
            options += ["cluster=true"] if kind == "cluster" else []
            options += [f"ca_file={files[ca]}"] if ca and asks_for.tls else []
            scheme = "memcached" if kind == "memcached" else "rediss" if asks_for.tls else "redis"
            return f"{scheme}://{host}:{ports[access]}?{'&'.join(options)}"

        yield url


@pytest.fixture(params=["threads", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_session_is_kept_behind_a_private_ca(urls: Urls, kind: str) -> None:
    with manager_of(kind, urls(SECURE), timeout=PATIENT, connect_timeout=PATIENT) as manager:
        assert contents(manager, stored_id(manager, cart=["tea"])) == {"cart": ["tea"]}


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ({"access": SECURE, "ca": OTHER_CA}, "not to be trusted.*write ca_file=/path"),
        ({"access": SECURE, "ca": None}, "not to be trusted.*write ca_file=/path"),
        ({"access": SECURE, "host": OTHER_HOST}, "is for another name.*127.0.0.2.*Write one of its names"),
        ({"access": PLAIN}, "Check .*that? TLS is on there"),
        ({"access": SECURE, "asks_for": PLAIN}, "If TLS is on there, write .*rediss://"),
    ],
    ids=["other CA", "the system's CAs", "other name", "no TLS there", "TLS there"],
)
def test_what_is_no_tls_to_be_trusted_says_what_to_check_in_time(
    urls: Urls, kind: str, which: dict[str, object], said: str
) -> None:
    began = time.monotonic()
    limits = {"timeout": CONNECT_TIMEOUT, "connect_timeout": CONNECT_TIMEOUT}
    with manager_of(kind, urls(**which), **limits) as manager, pytest.raises(StoreUnavailable, match=said):
        stored_id(manager, cart=["tea"])
    assert time.monotonic() - began < 2 * CONNECT_TIMEOUT + GRACE


@pytest.mark.parametrize("scheme", ["rediss://host?", "memcached://host?tls=true&"])
def test_a_ca_file_that_is_none_is_known_at_once(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        settings = Settings(url=f"{scheme}ca_file={tmp_path / name}")
        for connect in (SessionManager.connect, AsyncSessionManager.connect):
            with pytest.raises(ConfigurationError, match=f"{name}.*Name a file in PEM"):
                connect(settings)


def test_a_new_connection_is_used_although_tls_has_something_to_say(kind: str) -> None:
    """redis-py with hiredis takes the tickets that follow a handshake for a reply, and connects again."""
    with Server(REDIS_7_0, access=SECURE) as server:

        def made() -> int:
            info = server.command("INFO", "stats")
            assert isinstance(info, bytes)
            return int(info.partition(b"total_connections_received:")[2].split()[0])

        before = made()
        for _ in range(20):
            with manager_of(kind, server.url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
                assert contents(manager, stored_id(manager, cart=["tea"])) == {"cart": ["tea"]}
        assert made() - before == 20 + 1


def test_a_connection_is_not_kept_where_the_reply_to_auth_is_still_to_come() -> None:
    """An OK would be taken for the next reply."""

    class HeldUp(AsyncConnection):
        async def send_command(self, *arguments: Any, **options: Any) -> None:
            await super().send_command(*arguments, **options)
            time.sleep(1.5 * CONNECT_TIMEOUT)  # noqa: ASYNC251 - the whole event loop is held up

    async def connect(port: int) -> None:
        connection = HeldUp(host="127.0.0.1", port=port, username="sessions", password=PASSWORD, protocol=2)
        with TimeLimit(PATIENT, CONNECT_TIMEOUT), pytest.raises((TimeoutError, redis.TimeoutError)):
            await connection.connect()  # type: ignore[no-untyped-call]  # untyped in redis-py
        assert not connection.is_connected

    with Server(REDIS_7_0, access=Access(user="sessions", rights=LEAST_RIGHTS)) as server:
        asyncio.run(connect(server.port))


def test_a_hung_store_keeps_no_connection_of_an_event_loop() -> None:
    """TLS wants to say goodbye, and waits for the other side to do so, too."""
    with (
        Server(REDIS_7_0, access=SECURE) as server,
        manager_of("asyncio", server.url, timeout=1.0, connect_timeout=PATIENT) as manager,
    ):
        assert isinstance(manager, OnLoop)
        stored = once_back(lambda: stored_id(manager, cart=["tea"]))
        assert connections_to(server.port) == 1
        server.pause()
        with pytest.raises(StoreUnavailable):
            manager.load(stored)

        def are_gone() -> bool:
            manager.runner.run(asyncio.sleep(0.01))  # the event loop closes what was given up
            return not connections_to(server.port)

        wait_until(are_gone, 10, "closed")


def connections_to(port: int) -> int:
    """How many are open on this side."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    established = "01"
    return sum(line.split()[2:4] == [f"0100007F:{port:04X}", established] for line in lines)


def test_tls_connections_to_memcached_are_quiet_until_something_comes_late() -> None:
    """Session tickets come after the handshake, and are nobody's reply."""
    with Server(MEMCACHED, access=SECURE) as server, TimeLimit(PATIENT, PATIENT):
        connection = Connection((server.host, server.port), context(Settings(url=server.url).endpoint))
        for number in range(50):
            assert connection.is_usable
            assert connection.ask(Write(b"key-%d" % number, b"x" * 100_000, 60, ABSENT))
            entry = connection.ask(Read(b"key-%d" % number))
            assert entry is not None and len(entry.value) == 100_000
        connection.sock.sendall(b"version\r\n")
        deadline = time.monotonic() + PATIENT
        while connection.is_usable:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        connection.close()
