"""The tests' own tools for Memcached: its protocol, its servers, and the proxy before them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import memcached, servers
from tests.support.proxy import Proxy
from tests.support.resp import Argument, Incomplete, ReplyError
from tests.support.servers import Server, ServerMissing
from tests.support.stores import MEMCACHED as NAMES, Store

# The protocol


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("gets", "key"), b"gets key\r\n"),
        (("gats", 600, b"key"), b"gats 600 key\r\n"),
        (("set", "key", 0, 10, 4, b"a\r\nb"), b"set key 0 10 4\r\na\r\nb\r\n"),
        (("cas", "key", 0, 10, 0, 77, b""), b"cas key 0 10 0 77\r\n\r\n"),
        (("mg", "key", "t"), b"mg key t\r\n"),
    ],
)
def test_a_command_is_read_as_it_was_written(command: tuple[Argument, ...], said: bytes) -> None:
    assert memcached.encode(*command) == said
    words, end = memcached.parse_command(said + b"rest")
    assert (memcached.encode(*words), end) == (said, len(said))
    for length in range(len(said)):
        with pytest.raises(Incomplete):
            memcached.parse_command(said[:length])


@pytest.mark.parametrize(
    ("asked", "said", "value"),
    [
        (b"gets", b"END\r\n", []),
        (b"gets", b"VALUE k 0 5 7\r\nEND\r\n\r\nEND\r\n", [b"VALUE k 0 5 7", b"END\r\n"]),
        (b"gats", b"VALUE k 0 0 7\r\n\r\nEND\r\n", [b"VALUE k 0 0 7", b""]),
        (b"stats", b"STAT pid 1\r\nSTAT version 1.6\r\nEND\r\n", [b"STAT pid 1", b"STAT version 1.6"]),
        (b"lru_crawler", b"key=a exp=-1\nkey=b exp=-1\nEND\r\n", [b"key=a exp=-1", b"key=b exp=-1"]),
        (
            b"lru_crawler",
            b"BUSY currently processing crawler request\r\n",
            b"BUSY currently processing crawler request",
        ),
        (b"cas", b"NOT_FOUND\r\n", b"NOT_FOUND"),
        (b"mg", b"HD t100\r\n", b"HD t100"),
        (b"mg", b"VA 2 t100\r\n\r\n\r\n", [b"VA 2 t100", b"\r\n"]),
    ],
)
def test_a_reply_is_read_whole_or_not_at_all(asked: bytes, said: bytes, value: object) -> None:
    assert memcached.parse_reply(said + b"END\r\n", [asked]) == (value, len(said))
    for length in range(len(said)):
        with pytest.raises(Incomplete):
            memcached.parse_reply(said[:length], [asked])


@pytest.mark.parametrize("asked", [b"gets", b"cas", b"stats"])
@pytest.mark.parametrize("said", ["ERROR", "CLIENT_ERROR bad data chunk", "SERVER_ERROR out of memory"])
def test_an_error_is_read_as_an_error(asked: bytes, said: str) -> None:
    error, end = memcached.parse_reply(f"{said}\r\n".encode(), [asked])
    assert isinstance(error, ReplyError) and str(error) == said and end == len(said) + 2


# The server


@pytest.fixture
def own_memcached() -> Iterator[Server]:
    with Server(servers.MEMCACHED) as server:
        yield server


def test_a_missing_memcached_fails_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServerMissing, match="apt-get install memcached"):
        Server(servers.MEMCACHED)


def test_a_memcached_comes_back_empty_on_its_port(own_memcached: Server) -> None:
    port, pid = own_memcached.port, own_memcached.pid
    own_memcached.command("set", "key", 0, 0, 1, "a")
    for end in (own_memcached.stop, own_memcached.kill):
        end()
        with pytest.raises(ConnectionRefusedError):
            own_memcached.command("version")
        own_memcached.start()
        assert (own_memcached.port, own_memcached.pid != pid) == (port, True)
        assert own_memcached.command("get", "key") == []


def test_a_memcached_whose_port_is_taken_tries_another(
    monkeypatch: pytest.MonkeyPatch, own_memcached: Server
) -> None:
    free_port = servers.free_port
    offers = iter([own_memcached.port])
    monkeypatch.setattr(servers, "free_port", lambda: next(offers, None) or free_port())
    with Server(servers.MEMCACHED) as server:
        assert server.port != own_memcached.port


def test_a_paused_memcached_does_not_answer_until_it_is_resumed(own_memcached: Server) -> None:
    with memcached.Connection(own_memcached.port, timeout=0.2) as connection:
        own_memcached.pause()
        with pytest.raises(TimeoutError):
            connection("get", "key")
        own_memcached.resume()
        assert connection.read() == []


def test_a_memcached_that_cannot_start_says_why() -> None:
    with pytest.raises(servers.ServerFailed, match="memcached did not start"):
        Server(servers.MEMCACHED, "--no-such-option")


# The store


def test_what_was_stored_right_after_a_flush_stays(give_store: Callable[[str], Store]) -> None:
    """`flush_all` would take it."""
    for _ in range(3):
        store = give_store("memcached")
        assert store.keys() == []
        store.set(b"key", b"value", 100)
        time.sleep(0.01)
        assert store.keys() == [b"key"]
        assert store.get(b"key") == b"value"


def test_a_store_lists_all_its_keys_while_they_are_used(give_store: Callable[[str], Store]) -> None:
    store = give_store("memcached")
    keys = [b"key-%d%%" % number for number in range(300)]
    for number, key in enumerate(keys):
        store.set(key, b"x" * number, 100)
        store.get(key)  # twice: it moves to another list of the LRU
        store.get(key)
    for _ in range(5):
        assert store.keys() == sorted(keys)


# The proxy


@pytest.mark.parametrize("name", NAMES)
def test_the_proxy_brings_a_key_to_the_node_that_clients_past_it_choose(
    give_store: Callable[[str], Store], name: str
) -> None:
    store, keys = give_store(name), [b"key-%d" % number for number in range(20)]
    with Proxy(*store.ports, dialect=store.dialect) as proxy:
        assert proxy.url.removeprefix("memcached://").partition("?")[0].split(",") == [
            f"127.0.0.1:{port}" for port in proxy.ports
        ]
        with store.dialect.connection(proxy.ports[-1]) as connection:  # whichever door they come in by
            for key in keys:
                assert connection("set", key, 0, 100, 6, b"\r\n" + key[:4]) == b"STORED"
            with proxy.counting() as count:
                for key in keys:
                    found = connection("gats", 50, key)
                    assert isinstance(found, list) and found[1] == b"\r\nkey-"
    assert (count.round_trips, count.connections) == (20, 0)
    assert count.commands == [[b"gats", b"50", key] for key in keys]
    assert count.names == ["GATS"] * 20
    assert proxy.total.commands[0] == [b"set", keys[0], b"0", b"100", b"6", b"\r\nkey-"]
    assert store.keys() == sorted(keys)
    assert {store.ttl(key) for key in keys} <= {49, 50}


@pytest.mark.parametrize("name", NAMES)
def test_the_proxy_loses_cuts_and_replaces_replies(give_store: Callable[[str], Store], name: str) -> None:
    store = give_store(name)
    with Proxy(*store.ports, dialect=store.dialect) as proxy:
        lost = proxy.lose_reply(when="set")
        with store.dialect.connection(proxy.port) as connection, pytest.raises(ConnectionError):
            connection("set", "key", 0, 100, 5, "value")
        assert (lost.fired, store.get(b"key")) == (1, b"value")
        proxy.lose_request(when="SET")
        with store.dialect.connection(proxy.port) as connection, pytest.raises(ConnectionError):
            connection("set", "key", 0, 100, 5, "other")
        assert store.get(b"key") == b"value"
        proxy.replace_reply(b"SERVER_ERROR out of memory\r\n")
        with (
            store.dialect.connection(proxy.port) as connection,
            pytest.raises(ReplyError, match="out of memory"),
        ):
            connection("get", "key")
        proxy.cut_reply(when=lambda command: command[:2] == [b"get", b"key"])
        with store.dialect.connection(proxy.port) as connection, pytest.raises(ConnectionError):
            connection("get", "key")
