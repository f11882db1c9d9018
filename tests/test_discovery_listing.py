"""What a configuration endpoint says is taken for a list of nodes, or for none: never for half of one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from elasticache_sessions.clients.memcached_listing import (
    LONGEST,
    Listing,
    is_whole,
    name_of,
    parse,
    place_of,
)


def reply(*nodes: str, version: object = 12, newline: str = "\n", end: str = "\r\nEND\r\n") -> bytes:
    """As ElastiCache writes it."""
    told = f"{version}{newline}{' '.join(nodes)}{newline}"
    return f"CONFIG cluster 0 {len(told)}\r\n{told}{end}".encode()


USUAL = "shop.0001.cache.test|10.0.0.1|11211", "shop.0002.cache.test|10.0.0.2|11212"
NAMES = "shop.0001.cache.test:11211", "shop.0002.cache.test:11212"


@pytest.mark.parametrize(
    ("data", "nodes"),
    [
        (reply(*USUAL), NAMES),
        (reply(*USUAL, newline="\r\n"), NAMES),
        (reply(*USUAL).replace(b"\r\n", b"\n"), NAMES),
        (reply(*USUAL, end="END\r\n"), NAMES),
        (reply(*USUAL, end="\r\n\r\nEND\r\n"), NAMES),
        (reply("A||1"), ("a:1",)),
        (reply("|10.0.0.1|11211"), ("10.0.0.1:11211",)),
        (reply("|FE80:0::1|11211", "::1||65535"), ("[fe80::1]:11211", "[::1]:65535")),
        (reply("a|what is here matters to nobody|1".replace(" ", "-")), ("a:1",)),
        (reply("b||2", "a||1", "B|10.0.0.1|2", "b||3"), ("b:2", "a:1", "b:3")),
        (reply(*(f"n{number}||11211" for number in range(300))), tuple(f"n{n}:11211" for n in range(300))),
    ],
)
def test_the_nodes_are_told_by_name_in_order_and_once(data: bytes, nodes: tuple[str, ...]) -> None:
    assert parse(data) == Listing(12, nodes)
    assert is_whole(data)
    assert not any(is_whole(data[:size]) for size in range(len(data) - len(b"END\r\n") + 1))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it says b''"),
        (b"ERROR\r\n", "it says b'ERROR'"),
        (b"SERVER_ERROR out of memory\r\n", "it says b'SERVER_ERROR"),
        (b"END\r\n", "it says b'END'"),
        (b"CONFIG other 0 3\r\n1\na||1\n\r\nEND\r\n", "it says b'CONFIG other"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it says b'HTTP"),
        (reply(), "without nodes"),
        (reply(*USUAL, end=""), "without its end"),
        (reply(*USUAL, end="\r\nEN"), "without nodes, without its end, or with more"),
        (reply(*USUAL) + reply(*USUAL), "with more than that"),
        (reply(*USUAL) + b"STORED\r\n", "with more than that"),
        (reply(*USUAL, version=""), "without nodes"),
        (reply(*USUAL, version="twelve"), "a version b'twelve'"),
        (reply(*USUAL, version=-1), "a version b'-1'"),
        (reply(*USUAL, version="1" * 19), "a version"),
        (reply("a|10.0.0.1"), "a node 'a|10.0.0.1'"),
        (reply("a:11211"), "a node 'a:11211'"),
        (reply("a|b|c|11211"), "a node"),
        (reply("a||"), "a node"),
        (reply("a||0"), "a node"),
        (reply("a||65536"), "a node"),
        (reply("a||-1"), "a node"),
        (reply("a||\u0661"), "ascii"),
        (reply("é||1"), "ascii"),
        (reply("a..b||1"), "a node"),
        (reply(".||1"), "a node"),
        (reply("a/b||1"), "a node"),
        (reply("a@b||1"), "a node"),
        (reply(f"{'x' * 64}.org||1"), "a node"),
        (reply(f"{'x.' * 200}org||1"), "a node"),
        (reply("::g||1"), "::g"),
        (reply("||11211"), "address"),
        (reply("|10.0.0.256|11211"), "10.0.0.256"),
        (reply("|fe80::1%eth0|11211"), "a node"),
        (reply("a||1", "nothing"), "a node 'nothing'"),
        (reply(*(f"n{number}||11211" for number in range(301))), "301 nodes"),
        (reply(*(f"n{number}||11211" for number in range(20_000))), f"more than {LONGEST} bytes"),
        (reply("a||1", version="\0"), "a version"),
    ],
)
def test_what_is_no_list_of_nodes_is_refused_and_told(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("|", r"\|")):
        parse(data)


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [("a.b", 1, "a.b:1"), ("10.0.0.1", 11211, "10.0.0.1:11211"), ("::1", 2, "[::1]:2")],
)
def test_a_name_leads_back_to_its_place(host: str, port: int, name: str) -> None:
    assert name_of(host, port) == name
    assert place_of(name) == (host, port)


def outcome(data: bytes) -> Listing | None:
    try:
        found = parse(data)
    except ValueError:
        return None
    assert 0 < len(found.nodes) <= 300
    assert len(set(found.nodes)) == len(found.nodes)
    for name in found.nodes:
        host, port = place_of(name)
        assert host and 0 < port < 2**16
        assert name_of(host, port) == name
    return found


@given(st.binary(max_size=300))
def test_any_bytes_are_nodes_or_refused(data: bytes) -> None:
    outcome(data)
    outcome(b"CONFIG cluster 0 40\r\n1\n" + data)
    outcome(b"CONFIG cluster 0 40\r\n1\na||1 " + data + b"\n\r\nEND\r\n")


@given(st.text(st.characters(max_codepoint=0x7F), max_size=80))
def test_any_text_is_a_node_or_refused(text: str) -> None:
    for node in (text, f"{text}||1", f"|{text}|1", f"a||{text}"):
        outcome(reply("b||2", node))


HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z0-9]{1,10}){0,3}", fullmatch=True)
NODES = st.lists(
    st.one_of(
        st.tuples(HOSTS, st.ip_addresses().map(str) | st.just(""), st.integers(1, 65535)),
        st.tuples(st.just(""), st.ip_addresses().map(str), st.integers(1, 65535)),
    ),
    min_size=1,
    max_size=20,
)


@given(NODES, st.integers(0, 10**18 - 1), st.randoms(use_true_random=False), st.integers(1, 3))
def test_a_reply_that_got_damaged_is_nodes_or_refused(
    nodes: list[tuple[str, str, int]], version: int, chance: random.Random, faults: int
) -> None:
    whole = reply(*(f"{host}|{address}|{port}" for host, address, port in nodes), version=version)
    names = tuple(dict.fromkeys(name_of(host or address, port) for host, address, port in nodes))
    assert outcome(whole) == Listing(version, names)
    for size in range(len(whole) - len(b"\r\nEND\r\n") + 1):
        assert outcome(whole[:size]) is None, "half of a reply was taken"
    damaged = bytearray(whole)
    for _ in range(faults):
        place, size = chance.randrange(len(damaged)), chance.randrange(8)
        other = chance.choice(
            [b"", b"\n", b"\r\n", b" ", b"|", b"END\r\n", b"0", bytes([chance.randrange(256)])]
        )
        damaged[place : place + size] = other * chance.choice([1, 1, 1, 50])
        outcome(bytes(damaged))
