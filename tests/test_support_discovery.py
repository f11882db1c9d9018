"""The tests' own configuration endpoint, and the store of three nodes with two copies behind it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import pytest

from tests.support.certificates import authority
from tests.support.discovery import DiscoveryEndpoint
from tests.support.load import at_once
from tests.support.memcached import by_claim
from tests.support.proxy import Proxy
from tests.support.stores import Store

ASK = b"config get cluster\r\n"


def said(endpoint: DiscoveryEndpoint, *lines: bytes, timeout: float = 5.0, tls: bool = False) -> bytes:
    """All that it says to these lines, until it closes the connection, after `quit`, or is silent."""
    connection = socket.create_connection((endpoint.host, endpoint.port), timeout)
    if tls:
        connection = authority().client.wrap_socket(connection, server_hostname=endpoint.host)
    with connection:
        connection.sendall(b"".join(lines) + b"quit\r\n")
        answer = b""
        try:
            while data := connection.recv(4096):
                answer += data
        except TimeoutError:
            answer += b"<silence>"
        return answer


def test_the_endpoint_tells_which_nodes_there_are() -> None:
    with DiscoveryEndpoint(20_001, "a.cache.test:11211", "b.cache.test|10.0.0.1|11212") as endpoint:
        first = b"1\n127.0.0.1|127.0.0.1|20001 a.cache.test||11211 b.cache.test|10.0.0.1|11212\n"
        answer = b"CONFIG cluster 0 %d\r\n%s\r\nEND\r\n" % (len(first), first)
        assert said(endpoint, ASK) == answer == endpoint.answer
        assert said(endpoint, b"version\r\n", ASK) == b"ERROR\r\n" + answer
        endpoint.set_nodes(20_002)
        assert (
            said(endpoint, ASK, ASK)
            == 2 * b"CONFIG cluster 0 28\r\n2\n127.0.0.1|127.0.0.1|20002\n\r\nEND\r\n"
        )
        assert endpoint.asked == 4
        assert endpoint.url == f"memcached+discovery://127.0.0.1:{endpoint.port}"
        assert endpoint.url_with(copies=2) == f"{endpoint.url}?copies=2"


def test_the_endpoint_tells_many_at_once() -> None:
    with DiscoveryEndpoint(20_001) as endpoint, socket.create_connection((endpoint.host, endpoint.port)):
        assert set(at_once(*[lambda: said(endpoint, ASK, ASK)] * 10)) == {2 * endpoint.answer}
        assert endpoint.asked == 20


def test_the_endpoint_speaks_tls() -> None:
    with DiscoveryEndpoint(20_001, tls=True) as endpoint:
        assert said(endpoint, ASK, tls=True) == endpoint.answer
        with (
            pytest.raises(ssl.SSLError),
            ssl.create_default_context().wrap_socket(
                socket.create_connection((endpoint.host, endpoint.port)), server_hostname=endpoint.host
            ),
        ):
            pass
        assert endpoint.url_with(copies=2).endswith(f"?tls=true&ca_file={authority().ca_file}&copies=2")


def test_the_endpoint_breaks_as_it_is_told() -> None:
    with DiscoveryEndpoint(20_001) as endpoint:
        endpoint.reply_with(b"SERVER_ERROR busy\r\n")
        assert said(endpoint, ASK) == b"SERVER_ERROR busy\r\n"
        endpoint.reply_with(None)
        with socket.create_connection((endpoint.host, endpoint.port), 0.1) as connection:
            connection.sendall(ASK)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        endpoint.reply_with(b"")
        endpoint.close_when_asked()
        assert said(endpoint, ASK, ASK) == b""
        endpoint.heal()
        endpoint.close_when_asked()
        assert said(endpoint, ASK, ASK) == endpoint.answer
        endpoint.heal()
        endpoint.drip(0.001)
        assert said(endpoint, ASK) == endpoint.answer
        endpoint.go_down()
        with pytest.raises(ConnectionRefusedError):
            said(endpoint, ASK)
        endpoint.heal()
        assert said(endpoint, ASK) == endpoint.answer


def test_a_key_with_two_copies_is_on_the_two_nodes_that_rank_first(
    give_store: Callable[[str], Store],
) -> None:
    store = give_store("memcached-copies")
    assert store.url.startswith("memcached+discovery://") and store.url.endswith("?copies=2")
    keys = [b"key-%d" % number for number in range(20)]
    for key in keys:
        store.set(key, b"value", 100)
        owners = by_claim(store.ports, key)
        has = [bool(store.dialect.command(port, "get", key)) for port in owners]
        assert has == [True, True, False]
        store.dialect.command(owners[0], "delete", key)
        assert (store.get(key), store.ttl(key)) in ((b"value", 100), (b"value", 99))
        store.set(key, b"other", 100)
        store.expire(key, 50)
        assert [store.dialect.command(port, "mg", key, "t") for port in owners[:2]] == [b"HD t50"] * 2
    assert store.keys() == sorted(keys)


def test_a_proxy_keeps_the_two_copies_apart(give_store: Callable[[str], Store]) -> None:
    store = give_store("memcached-copies")
    with Proxy(*store.ports, dialect=store.dialect) as proxy:
        assert proxy.url.endswith("?copies=2")
        for key in (b"key-%d" % number for number in range(20)):
            doors = by_claim(proxy.ports, key)
            for number, door in enumerate(doors[:2]):
                assert store.dialect.command(door, "set", key, 0, 100, 1, str(number)) == b"STORED"
            owners = by_claim(store.ports, key)
            values = [store.dialect.command(port, "get", key) for port in owners]
            assert [value[1] if value else None for value in values if isinstance(value, list)] == [
                b"0",
                b"1",
                None,
            ]
