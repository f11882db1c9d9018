"""Every command that the package ever sends to Valkey and Redis is in a small list, and ElastiCache allows each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
import valkey
import valkey.asyncio

from elasticache_sessions import Settings
from elasticache_sessions.clients.base import (
    ABSENT,
    CacheClient,
    Look,
    Page,
    Read,
    Replace,
    Scan,
    Scanning,
    Write,
)
from elasticache_sessions.clients.choice import client_for
from tests.support import topologies
from tests.support.dialects import PASSWORD
from tests.support.instances import instances, use
from tests.support.load import PATIENT, Manager, OnLoop, contents, manager_of, manager_session
from tests.support.proxy import Proxy
from tests.support.resp import ReplyError
from tests.support.servers import Server
from tests.support.topologies import CLUSTER_RIGHTS, SERVERLESS_RIGHTS

SENT = {"AUTH", "EVALSHA", "EVAL", "GETEX", "SET", "SCAN"}
"""By a client that is made from a URL; AUTH where the URL names a user. The scripts run GET, GETEX, SET, PTTL and PEXPIRE.
SCAN where the list of a user's sessions was lost.
"""
SENT_TO_CLUSTERS = {*SENT, "CLUSTER SLOTS", "ASKING"}
"""The same in cluster mode; ASKING while slots move."""
SENT_BY_DRIVERS = {"HELLO", "CLIENT SETINFO", "CLIENT MAINT_NOTIFICATIONS"}
"""What redis-py and valkey-py send besides, where the app passes an object of its own. They live with a refusal. In cluster
mode these ask for COMMAND, too, and do not.
"""


@pytest.fixture(
    scope="module",
    params=[SERVERLESS_RIGHTS, CLUSTER_RIGHTS],
    ids=["what serverless allows", "the least rights"],
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with topologies.serverless(rights=request.param) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    server.command("SCRIPT", "FLUSH")
    server.command("ACL", "LOG", "RESET")
    with Proxy(server.port, dialect=server.dialect) as proxy:
        yield proxy


def sent(proxy: Proxy) -> set[str]:
    """The commands that went through the proxy; with its subcommand, where one has any."""
    commands = (
        command[: 2 if command[0] in (b"CLIENT", b"CLUSTER") else 1] for command in proxy.total.commands
    )
    return {b" ".join(command).decode().upper() for command in commands}


def denied(server: Server) -> list[bytes]:
    """What the package's user was refused."""
    log = server.command("ACL", "LOG")
    assert isinstance(log, list)
    return [dict(zip(entry[::2], entry[1::2], strict=True))[b"object"] for entry in log]


def use_client(client: CacheClient) -> None:
    """Every command of a client, also those that no flow asks for today."""
    for number in range(2):
        key = b"sess:%d" % number
        for token in (ABSENT, b"other!"):
            client.perform(Write(key, b"x" * 100, 60, token))
        assert client.perform(Replace(key, b"y" * 100, 60))
        for touch in (None, 60):
            assert client.perform(Read(key, touch, 1)) is not None
    assert isinstance(client, Scanning)
    keys = (b"sess:0", b"sess:1", b"sess:2")
    assert [glance is not None for glance in client.look(Look(keys))] == [True, True, False]
    page = client.scan(Scan(b"sess:"))
    assert isinstance(page, Page) and set(page.keys) == {*keys[:2]}


def use_manager(manager: Manager, proxy: Proxy) -> None:
    """Every verb, each also after a lost reply and on a connection that is made anew, and a conflict."""
    for trouble in (lambda: None, lambda: proxy.lose_reply(when="EVALSHA"), proxy.close_connections):
        session = manager_session(manager, cart=["tea"])
        other = manager.load(session.id)
        assert other is not None
        other.fields["user"] = "Ada"
        manager.save(other)
        session.fields["cart"] = ["mug"]
        trouble()
        manager.save(session)
        manager.apply(session, lambda fields: fields.update(count=1))
        manager.cycle(session, "ada")
        assert contents(manager, session.id) == {"cart": ["mug"], "user": "Ada", "count": 1}
        assert manager.end(session.id or "")


def test_a_client_sends_what_the_list_says(proxy: Proxy, server: Server) -> None:
    client = client_for(Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT), None)
    use_client(client)
    client.close()
    assert sent(proxy) == SENT
    assert denied(server) == []


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_manager_sends_what_the_list_says(proxy: Proxy, server: Server, kind: str) -> None:
    with manager_of(kind, proxy.url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
        use_manager(manager, proxy)
    assert {"AUTH", "EVALSHA", "EVAL"} <= sent(proxy) <= SENT
    assert denied(server) == []


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_cluster_mode_asks_for_the_slots_besides(proxy: Proxy, server: Server, kind: str) -> None:
    url = f"{proxy.url}?cluster=true"
    with manager_of(kind, url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
        use_manager(manager, proxy)
    assert {"AUTH", "EVALSHA", "EVAL", "CLUSTER SLOTS"} <= sent(proxy) <= SENT_TO_CLUSTERS
    assert denied(server) == []


def test_a_site_sends_what_the_list_says(proxy: Proxy, server: Server, framework: str) -> None:
    with instances(framework, proxy.url, connect_timeout=PATIENT) as (shop,):
        use(shop)
        proxy.close_connections()
        use(shop)
    assert {"AUTH", "EVALSHA", "EVAL"} <= sent(proxy) <= SENT
    assert denied(server) == []


def test_a_command_that_is_not_in_the_list_would_show(proxy: Proxy, server: Server) -> None:
    with proxy.dialect.connection(proxy.port) as connection:
        connection("AUTH", "sessions", PASSWORD)
        for command in (("CLIENT", "LIST"), ("KEYS", "*"), ("WAIT", 0, 0)):
            with pytest.raises(ReplyError, match="NOPERM"):
                connection(*command)
    assert sent(proxy) == {"AUTH", "CLIENT LIST", "KEYS", "WAIT"}
    assert denied(server) == [b"wait", b"keys", b"client|list"]


@pytest.mark.parametrize("made_of", [redis, valkey], ids=lambda module: module.__name__)
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_an_object_that_the_app_made_greets_besides(
    proxy: Proxy, server: Server, kind: str, made_of: Any
) -> None:
    name = "Redis" if made_of is redis else "Valkey"
    login = {"host": proxy.host, "port": proxy.port, "username": "sessions", "password": PASSWORD}
    module = made_of.asyncio if kind == "asyncio" else made_of

    async def made() -> Any:
        return getattr(module, name)(**login, socket_timeout=PATIENT)

    client = asyncio.run(made())
    with manager_of(kind, "", timeout=PATIENT, client=client) as manager:
        use_manager(manager, proxy)
        if isinstance(manager, OnLoop):
            manager.runner.run(client.aclose())
        else:
            client.close()
    assert sent(proxy) <= SENT | SENT_BY_DRIVERS
    # Whoever may do little is refused that greeting, and the driver lives with it.
    assert set(denied(server)) <= {b"client|setinfo", b"client|maint_notifications"}
