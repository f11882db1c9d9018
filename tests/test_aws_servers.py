"""IAM against real servers: an ACL user whose password is the token, as AWS checks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from elasticache_sessions import AsyncSessionManager, SessionManager, Settings, StoreUnavailable
from tests.support import topologies
from tests.support.aws import NOON, Plain, Process, stop_clock, token, with_keys
from tests.support.demo import wait_until
from tests.support.dialects import Access
from tests.support.load import PATIENT, Manager, OnLoop, contents, stored_id
from tests.support.proxy import Command, Proxy
from tests.support.servers import REDIS_7_0, VALKEY_9_1, Server
from tests.support.topologies import Cluster

Upstream = Server | Cluster


UPSTREAMS: dict[str, Callable[[], AbstractContextManager[Upstream]]] = {
    "valkey-9.1": lambda: Server(VALKEY_9_1),
    "cluster": topologies.cluster,
    "tls": lambda: Server(REDIS_7_0, access=Access(tls=True)),
}


@pytest.fixture(scope="module", params=UPSTREAMS)
def upstream(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    with UPSTREAMS[request.param]() as upstream:
        yield upstream


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[Proxy]:
    with Proxy(*upstream.ports, dialect=upstream.dialect) as proxy:
        yield proxy


def as_app(proxy: Proxy, connect_timeout: float = PATIENT) -> Settings:
    """To sign in as `app` to the cache `shop`, which is at the proxy."""
    options = "iam_user=app&iam_cache=shop"
    url = f"{proxy.url}{'&' if '?' in proxy.url else '?'}{options}"
    kind = Settings if proxy.dialect.tls else Plain
    return kind(url=url.replace("redis://", "rediss://"), timeout=PATIENT, connect_timeout=connect_timeout)


@pytest.fixture(params=["for threads", "for asyncio"])
def manager(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Manager]:
    settings = as_app(proxy)
    manager: Manager
    if request.param == "for threads":
        manager = SessionManager.connect(settings)
    else:
        manager = OnLoop(AsyncSessionManager.connect(settings))
    yield manager
    manager.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is noon, and there are AWS credentials."""
    with_keys(monkeypatch, tmp_path)
    stop_clock(monkeypatch, NOON)


def accept(upstream: Upstream, *tokens: str) -> None:
    """Let the user `app` in by these tokens and no other; who is in stays in."""
    for node in upstream.nodes:
        node.command("ACL", "SETUSER", "app", "on", "resetpass", "~*", "+@all", *(f">{t}" for t in tokens))


def close_connections(upstream: Upstream) -> None:
    """As ElastiCache does after twelve hours."""
    for node in upstream.nodes:
        node.command("CLIENT", "KILL", "USER", "app")


@pytest.fixture
def signings(proxy: Proxy) -> list[Command]:
    """The AUTH commands that the servers are sent."""
    seen: list[Command] = []
    proxy.on_request(lambda exchange: seen.append(exchange.command), when="AUTH", times=None)
    return seen


@pytest.mark.usefixtures("clock")
def test_each_connection_has_a_token_of_its_own_moment(
    monkeypatch: pytest.MonkeyPatch, upstream: Upstream, manager: Manager, signings: list[Command]
) -> None:
    first = token("app", "shop")
    accept(upstream, first)
    ids = [stored_id(manager, number=number) for number in range(12)]  # on every node
    assert signings
    assert {(bytes(user), bytes(given)) for _, user, given in signings} == {(b"app", first.encode())}

    # A quarter of a day later the first token is long over; those who are in stay in, until they are thrown out.
    stop_clock(monkeypatch, NOON + timedelta(hours=6))
    second = token("app", "shop")
    assert second != first
    accept(upstream, second)
    signings.clear()
    assert [contents(manager, one) for one in ids] == [{"number": number} for number in range(12)]
    assert signings == []

    for _ in range(2):  # twice twelve hours
        close_connections(upstream)
        assert [contents(manager, one) for one in ids] == [{"number": number} for number in range(12)]
    assert {bytes(given) for _, _, given in signings} == {second.encode()}


@pytest.mark.usefixtures("clock")
def test_while_tokens_rotate_both_let_in(
    monkeypatch: pytest.MonkeyPatch, upstream: Upstream, manager: Manager
) -> None:
    first = token("app", "shop")
    stop_clock(monkeypatch, NOON + timedelta(seconds=1))
    accept(upstream, first, token("app", "shop"))
    one = stored_id(manager, n=1)
    stop_clock(monkeypatch, NOON)
    close_connections(upstream)
    assert contents(manager, one) == {"n": 1}


@pytest.mark.usefixtures("clock")
def test_a_token_that_is_refused_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, upstream: Upstream, manager: Manager, signings: list[Command]
) -> None:
    accept(upstream, "something else")
    with pytest.raises(StoreUnavailable, match=r"refused the user.*in the cache's user group") as failed:
        manager.load("a" * 40)
    assert len(signings) == 1
    assert not failed.value.retry and not failed.value.sent
    assert signings[0][2].decode() not in str(failed.value)

    accept(upstream, token("app", "shop"))
    assert contents(manager, stored_id(manager, n=1)) == {"n": 1}
    close_connections(upstream)
    accept(upstream, "something else")
    signings.clear()
    with pytest.raises(StoreUnavailable, match="refused the user"):
        manager.load("a" * 40)
    asked = len(signings)
    assert asked == 1 or isinstance(upstream, Cluster)
    assert asked <= 3  # in cluster mode, the map of slots is asked for anew beside the request


def test_without_credentials_nothing_is_sent_and_what_was_connected_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    upstream: Upstream,
    proxy: Proxy,
    signings: list[Command],
) -> None:
    process = Process(monkeypatch, tmp_path)
    process.says("ENDED", timedelta(seconds=-1))
    for node in upstream.nodes:
        node.command("ACL", "SETUSER", "app", "reset", "on", "nopass", "~*", "+@all")
    settings = as_app(proxy)
    threads = SessionManager.connect(settings)
    loops = OnLoop(AsyncSessionManager.connect(settings))
    for manager in (threads, loops):
        with pytest.raises(StoreUnavailable, match=r"^the AWS credentials have expired") as failed:
            manager.load("a" * 40)
        assert not failed.value.retry and not failed.value.sent
    assert proxy.total.commands == []
    wait_until(lambda: proxy.open_connections == 0, PATIENT, "a connection that did not sign in is closed")
    process.says("NEW", timedelta(hours=6))
    for manager in (threads, loops):
        wait_until(lambda: _answers(manager), PATIENT, "new credentials")
        manager.close()
    assert signings


def test_a_connection_waits_for_credentials_within_connect_timeout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, single_proxy: Proxy
) -> None:
    process = Process(monkeypatch, tmp_path)
    process.hangs()
    settings = as_app(single_proxy, connect_timeout=2.0)
    threads, loops = SessionManager.connect(settings), OnLoop(AsyncSessionManager.connect(settings))
    with pytest.raises(StoreUnavailable, match=r"^AWS credentials did not come within CONNECT_TIMEOUT"):
        threads.load("a" * 40)
    # An event loop that is held up may find that CONNECT_TIMEOUT is over before it sees what it waited for.
    with pytest.raises(StoreUnavailable, match=r"did not come within CONNECT_TIMEOUT|TimeoutError"):
        loops.load("a" * 40)
    assert single_proxy.total.commands == []
    process.answers("LATE", timedelta(hours=6))
    threads.close()
    loops.close()


def _answers(manager: Manager) -> bool:
    try:
        return bool(stored_id(manager, n=1))
    except StoreUnavailable:
        return False
