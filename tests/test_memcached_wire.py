"""What is sent to Memcached and what its replies mean, without a server: whatever comes, in whatever pieces, it is read
rightly or not at all.
"""

from __future__ import annotations

import dataclasses
import socket
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from pymemcache.client.base import Client

from elasticache_sessions.clients.base import ABSENT, Command, Entry, Glance, Read, Replace, Write
from elasticache_sessions.clients.memcached_asks import Left
from elasticache_sessions.clients.memcached_wire import (
    Answer,
    Incomplete,
    Misfit,
    Refused,
    glance,
    question,
    survey,
)
from elasticache_sessions.record import HEADER_BYTES

KEY, OTHERS = b"sess:mine", b"sess:others"
READ, ADD, CAS = Read(KEY), Write(KEY, b"new", 60, ABSENT), Write(KEY, b"new", 60, b"7")
REPLACE, LEFT = Replace(KEY, b"new", 60), Left(KEY)
COMMANDS: list[Command | Left] = [READ, Read(KEY, touch=60), ADD, CAS, REPLACE, LEFT]

values = st.one_of(st.binary(max_size=60), st.sampled_from([b"\r\nEND\r\n", b"VALUE ", b"x" * 70_000]))
tokens = st.integers(0, 2**64 - 1).map(b"%d".__mod__)
seconds = st.integers(-1, 2**31)
ERRORS = [
    b"ERROR\r\n",
    b"CLIENT_ERROR bad data chunk\r\n",
    b"SERVER_ERROR out of memory\r\n",
    b"SERVER_ERROR\r\n",
]


def found(key: bytes, value: bytes, token: bytes) -> bytes:
    return b"VALUE %b 0 %d %b\r\n%b\r\nEND\r\n" % (key, len(value), token, value)


entries = st.builds(Entry, values, tokens)
# A question, a reply to it, and what that means.
exchanges: st.SearchStrategy[tuple[Command | Left, bytes, Any]] = st.one_of(
    entries.map(lambda entry: (READ, found(KEY, entry.value, entry.token), entry)),
    seconds.map(lambda left: (LEFT, b"HD t%d\r\n" % left, left)),
    st.sampled_from(
        [
            (READ, b"END\r\n", None),
            (LEFT, b"EN\r\n", None),
            (CAS, b"STORED\r\n", True),
            (CAS, b"EXISTS\r\n", False),
            (CAS, b"NOT_FOUND\r\n", None),
            *[(command, b"STORED\r\n", True) for command in (ADD, REPLACE)],
            *[(command, b"NOT_STORED\r\n", False) for command in (ADD, REPLACE)],
        ]
    ),
)


def answer_to(command: Command | Left) -> Answer:
    return question(command, 1_800_000_000)[1]


@given(exchanges)
def test_a_reply_is_read_when_all_of_it_is_there_and_not_before(
    exchange: tuple[Command | Left, bytes, Any],
) -> None:
    command, reply, meaning = exchange
    answer = answer_to(command)
    assert answer(reply) == meaning
    for length in {*range(min(len(reply), 200)), *range(max(0, len(reply) - 20), len(reply))}:
        with pytest.raises(Incomplete) as more:
            answer(reply[:length])
        assert 1 <= more.value.missing <= len(reply) - length, "it would wait for what never comes"


@given(exchanges, st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from([b"END\r\n", b"STORED\r\n"])))
def test_a_reply_with_more_behind_it_is_none(
    exchange: tuple[Command | Left, bytes, Any], more: bytes
) -> None:
    command, reply, _ = exchange
    with pytest.raises(Misfit):
        answer_to(command)(reply + more)


pieces = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [b"VALUE ", KEY, OTHERS, b" 0 4 1", b" 0 4", b" 0 -4 1", b"\r\n", b"\r", b"\n", b"mine", b"END"]
    ),
    st.sampled_from(
        [b"STORED", b"EXISTS", b"NOT_FOUND", b"NOT_STORED", b"HD", b" t60", b" t-1", b"EN", b"ERROR", b"OK"]
    ),
    exchanges.map(lambda exchange: exchange[1]),
)


@given(st.sampled_from(COMMANDS), st.lists(pieces, max_size=6).map(b"".join))
@example(READ, found(OTHERS, b"of somebody else", b"1"))
@example(READ, found(KEY + b"x", b"of somebody else", b"1"))
def test_nonsense_is_never_taken_for_a_reply(command: Command | Left, reply: bytes) -> None:
    try:
        said = answer_to(command)(reply)
    except (Incomplete, Misfit, Refused):
        return
    if isinstance(command, Read):
        again = b"END\r\n" if said is None else found(KEY, said.value, said.token)
        assert reply.split(b" ")[3:] == again.split(b" ")[3:]  # all but the flags, which say nothing
    elif isinstance(command, Left):
        assert said is None or int(reply[4:-2]) == said
    else:
        assert reply.count(b"\r\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_and_a_line_without_end_say_what_they_are(command: Command | Left) -> None:
    answer = answer_to(command)
    for error in ERRORS:
        with pytest.raises(Refused) as refused:
            answer(error)
        assert refused.value.of_node == error.startswith(b"SERVER")
        assert refused.value.reason and "\r" not in refused.value.reason
    with pytest.raises(Misfit):
        answer(b"x" * 5_000)
    with pytest.raises(Misfit):
        answer(b"ERRORS of all kinds\r\n")


# Many replies at once

glances = st.one_of(
    st.none(), st.builds(Glance, st.binary(max_size=90), st.one_of(st.none(), st.integers(0, 2**31)))
)


def told(key: bytes, seen: Glance | None) -> bytes:
    if seen is None:
        return b"EN\r\n"
    ttl = b"-1" if seen.ttl_left is None else b"%d" % int(seen.ttl_left)
    return b"VA %d k%b t%b\r\n%b\r\n" % (len(seen.header), key, ttl, seen.header)


@given(st.lists(glances, min_size=1, max_size=4), st.integers(0, 400))
def test_glances_are_read_one_by_one(seen: list[Glance | None], cut: int) -> None:
    keys = [b"sess:%d" % number for number in range(len(seen))]
    replies, begin = b"".join(map(told, keys, seen)), 0
    cut = min(cut, len(replies))
    for key, expected in zip(keys, seen, strict=True):
        head = None if expected is None else Glance(expected.header[:HEADER_BYTES], expected.ttl_left)
        said, end = glance(key, replies, begin)
        assert said == head
        if begin <= cut < end:
            with pytest.raises(Incomplete) as more:
                glance(key, replies[:cut], begin)
            assert 1 <= more.value.missing <= end - cut
        if expected is not None:
            with pytest.raises(Misfit):
                glance(OTHERS, replies, begin)
        begin = end
    assert begin == len(replies)


@pytest.mark.parametrize(
    "reply", [b"HD\r\n", b"VA 1 t5\r\nx\r\n", b"VA 1 kk t5\r\nxyz", b"VA -1 kk t5\r\n", b"END\r\n"]
)
def test_a_glance_that_does_not_fit(reply: bytes) -> None:
    with pytest.raises(Misfit):
        glance(b"k", reply, 0)


# pymemcache as the judge


@given(exchanges.filter(lambda exchange: exchange[0] is not LEFT), values)
def test_it_asks_and_reads_as_pymemcache_does(exchange: tuple[Any, bytes, Any], value: bytes) -> None:
    command, reply, meaning = exchange
    if command is not READ:
        command = dataclasses.replace(command, value=value)
    assert with_pymemcache(command, reply) == (question(command, 0)[0], meaning)


def with_pymemcache(command: Any, reply: bytes) -> tuple[bytes, Any]:
    """What pymemcache sends for `command`, and what it makes of the reply."""
    ours, nodes = socket.socketpair()
    with closing(ours), closing(nodes):
        client = Client("nowhere", default_noreply=False)
        client.sock = ours
        for end in (ours, nodes):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        nodes.sendall(reply)
        if isinstance(command, Read):
            value, token = client.gets(command.key)
            said: Any = None if token is None else Entry(value, token)
        elif isinstance(command, Replace):
            said = client.replace(command.key, command.value, command.ttl)
        elif command.token == ABSENT:
            said = client.add(command.key, command.value, command.ttl)
        else:
            said = client.cas(command.key, command.value, command.token, command.ttl)
        ours.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: nodes.recv(65_536), b"")), said


@pytest.mark.parametrize(
    "key", [b"", b"two words", b"a\r\nflush_all", b"k" * 251, b"nul\0", b"del\x7f", b"end\n"]
)
def test_what_is_no_key_or_no_token_is_never_sent(key: bytes) -> None:
    for command in (
        Read(key),
        Left(key),
        Write(key, b"x", 10, ABSENT),
        Write(key, b"x", 10, b"1"),
        Replace(key, b"x", 10),
    ):
        with pytest.raises(ValueError, match="no key"):
            question(command, 0)
    with pytest.raises(ValueError, match="no key"):
        survey([KEY, key])
    for token in (b"1 noreply", b"1\r\n", b"x", b"-1"):
        with pytest.raises(ValueError, match="no token"):
            question(Write(KEY, b"x", 10, token), 0)
