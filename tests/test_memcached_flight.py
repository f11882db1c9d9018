"""Several Memcached nodes asked at once: all of it under way before the first reply, and whatever fails on one of them,
each answer is that node's own, and the next question gets its own, too.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from elasticache_sessions import Settings, StoreUnavailable, ValueTooLarge
from elasticache_sessions.clients import breaker
from elasticache_sessions.clients.base import (
    ABSENT,
    Command,
    Conflict,
    Entry,
    Read,
    Replace,
    Stored,
    Write,
)
from elasticache_sessions.clients.breaker import Breakers
from elasticache_sessions.clients.memcached_asks import DOWN, Answer, Ask, Left
from elasticache_sessions.clients.memcached_connection import Connection
from elasticache_sessions.clients.memcached_flight import Flights
from elasticache_sessions.clients.pool import Pool
from elasticache_sessions.clients.tls import context
from elasticache_sessions.limit import TimeLimit, Timeouts, running
from tests.support.demo import wait_until
from tests.support.dialects import HOST, Access
from tests.support.load import PATIENT, at_once
from tests.support.proxy import Proxy
from tests.support.scripts import run
from tests.support.servers import MEMCACHED, Server
from tests.support.topologies import nodes

FAILURES = 3
MANY = 1_000_000
_keys = count()


class Bed:
    """Two nodes, each behind a proxy of its own, in the order in which they are asked; and one client with two pools."""

    def __init__(self, servers: Sequence[Server], proxies: Sequence[Proxy]) -> None:
        by_name = sorted(zip(proxies, servers, strict=True), key=lambda pair: f"{HOST}:{pair[0].port}")
        self.proxies = [proxy for proxy, _ in by_name]
        self.servers = [server for _, server in by_name]
        self.names = [f"{HOST}:{proxy.port}" for proxy in self.proxies]
        self.taken: list[str] = []
        self.pools: dict[str, Pool[Connection]] = {}
        self.client()

    def client(self, *, failures: int = FAILURES, size: int = 1) -> None:
        """Begin anew: breakers that open after so many failures, and pools of that size."""
        self.close()
        tls = context(Settings(url=self.servers[0].url).endpoint)
        self.pools = {
            name: Pool(partial(Connection, (HOST, proxy.port), tls), size)
            for name, proxy in zip(self.names, self.proxies, strict=True)
        }
        self.breakers = Breakers(Timeouts(PATIENT, PATIENT), failures)
        self.flights = Flights(self.pool_of, self.breakers)

    def close(self) -> None:
        for pool in self.pools.values():
            pool.close()

    def pool_of(self, name: str) -> Pool[Connection]:
        self.taken.append(name)
        return self.pools[name]

    def ask(
        self, *commands: Command | Left, timeout: float = PATIENT, connect_timeout: float = PATIENT
    ) -> list[Answer]:
        """One command to each node, in one flight."""
        asks = [Ask(name, command) for name, command in zip(self.names, commands, strict=False)]
        with TimeLimit(timeout, connect_timeout):
            return self.flights.fly(asks)

    def each(self, value: bytes = b"there") -> Entries:
        """A new key with a value on either node, stored past the proxies."""
        key = b"key-%d" % next(_keys)
        for server in self.servers:
            server.command("set", key, 0, 100, len(value), value)
        tokens = []
        for answer in self.ask(Read(key), Read(key)):
            assert isinstance(answer, Entry)
            tokens.append(answer.token)
        return Entries(key, value, tokens)

    def held(self, key: bytes) -> list[bytes | None]:
        """What either node holds, past the proxies."""
        found = []
        for server in self.servers:
            lines = server.command("get", key)
            assert isinstance(lines, list)
            found.append(lines[1] if lines else None)
        return found

    def all_is_well(self) -> None:
        """Every question gets its own reply, whichever connections are there."""
        for proxy in self.proxies:
            proxy.heal()
        for name in self.names:
            self.breaker(name)._failures = 0
        for _ in range(3):
            here = self.each(b"value %d" % next(_keys))
            entry, left = self.ask(Read(here.key), Left(here.key))
            assert entry == here.entry(0) and about(100)(left)
            assert self.ask(Replace(here.key, b"new", 50), Read(b"nothing")) == [True, None]
            assert self.ask(Read(b"nothing"), here.write(1, b"newer")) == [None, Stored(None)]

    def breaker(self, name: str) -> Any:
        return self.breakers.of(f"the Memcached node {name}")


def about(seconds: int) -> Callable[[Answer], bool]:
    """Memcached's clock ticks once a second, and the machine may be busy."""
    return lambda answer: type(answer) is int and seconds - 10 < answer <= seconds


class Entries(SimpleNamespace):
    """What both nodes hold under one key."""

    def __init__(self, key: bytes, value: bytes, tokens: list[bytes]) -> None:
        super().__init__()
        self.key, self.value, self.tokens = key, value, tokens

    def entry(self, number: int) -> Entry:
        return Entry(self.value, self.tokens[number])

    def write(self, number: int, value: bytes, *, stale: bool = False) -> Write:
        return Write(self.key, value, 100, b"1" if stale else self.tokens[number])

    def writes(self, value: bytes) -> list[Write]:
        return [self.write(0, value), self.write(1, value)]

    @property
    def reads(self) -> list[Read]:
        return [Read(self.key), Read(self.key)]

    @property
    def entries(self) -> list[Entry]:
        return [self.entry(0), self.entry(1)]


@contextmanager
def bed_of(servers: Sequence[Server]) -> Iterator[Bed]:
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(server.port, dialect=server.dialect)) for server in servers]
        made = Bed(servers, proxies)
        stack.callback(made.close)
        yield made


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, ...]]:
    with nodes(2) as made:
        yield made.nodes


@pytest.fixture
def bed(servers: tuple[Server, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    monkeypatch.setattr(
        breaker, "FIRST_PAUSE", 600.0
    )  # a node that is left alone stays so until a test lets it be asked
    monkeypatch.setattr(breaker, "LONGEST_PAUSE", 600.0)
    with bed_of(servers) as made:
        yield made


@pytest.fixture(params=[0, 1], ids=["the first", "the second"])
def bad(request: pytest.FixtureRequest) -> int:
    """Either node in turn: the one that fails."""
    assert isinstance(request.param, int)
    return request.param


# What is asked, and what is answered


def test_every_question_has_its_answer_whatever_the_other_node_is_asked(bed: Bed) -> None:
    here, gone = bed.each(), b"nothing"
    forever = b"for-ever-%d" % next(_keys)
    for server in bed.servers:
        server.command("set", forever, 0, 0, 1, b"x")

    def questions(number: int) -> Iterator[tuple[Command | Left, Callable[[Answer], bool]]]:
        def is_(expected: object) -> Callable[[Answer], bool]:
            return lambda answer: answer == expected and type(answer) is type(expected)

        yield Read(here.key), is_(here.entry(number))
        yield Read(here.key, touch=50), is_(here.entry(number))
        yield Left(here.key), about(50)
        yield Left(forever), is_(-1)
        yield Read(here.key, touch=0), is_(here.entry(number))
        yield Left(gone), is_(None)
        yield Read(gone), is_(None)
        yield Replace(here.key, b"x" * 200_000, 90), is_(True)
        yield Left(here.key), about(90)
        yield Replace(gone, b"x", 90), is_(False)
        yield here.write(number, b"mine"), is_(Conflict(None))
        yield Write(gone, b"mine", 100, b"1"), is_(Conflict(None))
        yield Write(here.key, b"mine", 100, ABSENT), is_(Conflict(None))
        yield Write(b"new-%d" % next(_keys), b"mine", 100, ABSENT), is_(Stored(None))
        yield Read(here.key), lambda answer: isinstance(answer, Entry) and answer.value == b"x" * 200_000

    firsts, seconds = list(questions(0)), list(questions(1))
    for (first, fits_first), (second, fits_second) in zip(firsts, seconds, strict=True):
        one, two = bed.ask(first, second)
        assert fits_first(one), (first, one)
        assert fits_second(two), (second, two)
    for proxy in bed.proxies:
        assert proxy.total.connections == 1


def test_answers_come_in_the_order_of_the_questions_and_nodes_are_asked_in_one_order(bed: Bed) -> None:
    """So that of two threads, which each hold a connection, none waits for the other's."""
    here = bed.each()
    there = bed.each(b"somewhere else")
    one, two = bed.names
    for asks, answers in (
        ([Ask(one, Read(here.key)), Ask(two, Read(there.key))], [here.entry(0), there.entry(1)]),
        ([Ask(two, Read(there.key)), Ask(one, Read(here.key))], [there.entry(1), here.entry(0)]),
    ):
        bed.taken.clear()
        with TimeLimit(PATIENT, PATIENT):
            assert bed.flights.fly(asks) == answers
        assert bed.taken == [one, two]
    with TimeLimit(PATIENT, PATIENT):
        assert bed.flights.fly([]) == []
        with pytest.raises(AssertionError, match="once"):
            bed.flights.fly([Ask(one, Read(b"a")), Ask(one, Read(b"b"))])


def test_both_questions_are_under_way_before_a_reply_is_read(bed: Bed) -> None:
    both = threading.Barrier(2)
    here = bed.each()
    for commands in (here.reads, here.writes(b"new"), [Left(here.key), Replace(here.key, b"newer", 100)]):
        rules = [proxy.on_reply(lambda exchange: both.wait(PATIENT / 2)) for proxy in bed.proxies]
        bed.ask(*commands)
        assert [rule.fired for rule in rules] == [1, 1]


def test_threads_that_ask_pairs_of_nodes_never_wait_for_each_other_in_a_circle(bed: Bed) -> None:
    there = [bed.each(b"value %d" % number) for number in range(4)]
    one, two = bed.names

    def work(number: int) -> None:
        mine = there[number % len(there)]
        asks = [Ask(one, Read(mine.key)), Ask(two, Read(mine.key))]
        expected = mine.entries
        if number % 2:
            asks.reverse()
            expected.reverse()
        for _ in range(100):
            with TimeLimit(PATIENT, PATIENT):
                assert bed.flights.fly(asks) == expected

    at_once(*[partial(work, number) for number in range(8)])
    assert [proxy.total.connections for proxy in bed.proxies] == [1, 1]


def test_a_lone_question_is_asked_once_and_has_all_the_time(bed: Bed) -> None:
    bed.each()
    with bed.proxies[0].counting() as asked:
        bed.proxies[0].lose_reply()
        with pytest.raises(StoreUnavailable) as failed:
            bed.ask(Read(b"key"))
        assert (failed.value.retry, failed.value.sent, failed.value.silent) == (True, True, None)
        assert asked.names == ["GETS"]
    bed.all_is_well()


class Slow:
    """In the place of a connection: notes how long it might have waited."""

    is_usable = True

    def __init__(self, waits: list[float]) -> None:
        self._waits = waits

    def begin(self, command: object) -> None:
        self._waits.append(running().left())

    def finish(self) -> None:
        self._waits.append(running().left())

    def close(self) -> None: ...


def test_whoever_is_asked_beside_another_has_half_of_the_time_and_whoever_is_left_all_of_it() -> None:
    waits: list[float] = []
    breakers = Breakers(Timeouts(PATIENT, PATIENT), 1)
    pool: Pool[Any] = Pool(partial(Slow, waits), 2)
    flights = Flights(lambda name: pool, breakers)
    one, two = Ask("a", Read(b"key")), Ask("b", Read(b"key"))
    for asks, share in (([one], 1.0), ([one, two], 0.5)):
        waits.clear()
        with TimeLimit(600, 600):
            flights.fly(asks)
        assert {round(wait / 600, 1) for wait in waits} == {share}
    with pytest.raises(StoreUnavailable), breakers.of("the Memcached node a"):
        raise StoreUnavailable("no reply", silent=True)
    waits.clear()
    with TimeLimit(600, 600):
        assert flights.fly([one, two]) == [DOWN, None]
    assert {round(wait / 600, 1) for wait in waits} == {1.0}


# One of two fails once


Inject = Callable[[Proxy], Any]
ONCE: dict[str, Inject] = {
    "a connection that closes before it asks": lambda proxy: proxy.lose_request(),
    "a reply that is lost": lambda proxy: proxy.lose_reply(),
    "a part of the reply": lambda proxy: proxy.cut_reply(at=0.6),
    "no reply": lambda proxy: proxy.cut_reply(at=0, closes=False),
    "a part of the reply, and silence": lambda proxy: proxy.cut_reply(at=0.6, closes=False),
    "garbage": lambda proxy: proxy.replace_reply(b"hello\r\n"),
    "another's reply": lambda proxy: proxy.replace_reply(b"VALUE other 0 1 1\r\nx\r\nEND\r\n"),
    "too much": lambda proxy: proxy.extend_reply(b"END\r\n"),
}


@pytest.mark.parametrize("fault", ONCE)
def test_who_fails_once_is_asked_again_and_the_other_is_not(bed: Bed, bad: int, fault: str) -> None:
    bed.client(failures=MANY)
    timeout = 1.0 if "no" in fault.split() or "silence" in fault else PATIENT
    for kind in ("read", "write"):
        here = bed.each()
        with bed.proxies[1 - bad].counting() as asked:
            rule = ONCE[fault](bed.proxies[bad])
            answers = bed.ask(*(here.reads if kind == "read" else here.writes(b"new")), timeout=timeout)
        assert rule.fired == 1
        assert len(asked.commands) == 1
        if kind == "read":
            assert answers == here.entries
        else:
            # It may have been stored, and says so.
            lost = fault != "a connection that closes before it asks"
            assert answers[1 - bad] == Stored(None)
            assert answers[bad] == (Conflict(None, resent=True) if lost else Stored(None))
            assert bed.held(here.key) == [b"new", b"new"]
    bed.all_is_well()


def test_a_late_reply_is_for_nobody(bed: Bed, bad: int) -> None:
    bed.client(failures=1)
    here = bed.each()
    bed.proxies[bad].hold_replies()
    answers = bed.ask(*here.reads, timeout=0.6)
    assert (answers[bad], answers[1 - bad]) == (DOWN, here.entry(1 - bad))
    bed.proxies[bad].release_replies()
    bed.all_is_well()


def test_a_write_that_never_was_sent_is_not_said_to_have_been(bed: Bed, bad: int) -> None:
    bed.client(failures=MANY)
    here = bed.each()
    stale = [here.write(number, b"new", stale=True) for number in (0, 1)]
    bed.pools[bed.names[bad]].close()
    bed.proxies[bad].refuse()
    threading.Timer(0.2, bed.proxies[bad].accept).start()
    assert bed.ask(*stale) == [Conflict(None), Conflict(None)]
    bed.proxies[bad].lose_request()
    answers = bed.ask(*stale)
    assert answers[bad] == Conflict(None, resent=True), "it may have arrived"
    assert answers[1 - bad] == Conflict(None)


# One of two fails for good


def test_who_refuses_is_known_to_be_down_at_once_and_costs_nothing_from_then_on(bed: Bed, bad: int) -> None:
    here = bed.each()
    bed.proxies[bad].go_down()
    expected: list[Answer] = list(here.entries)
    expected[bad] = DOWN
    assert bed.ask(*here.reads) == expected
    bed.proxies[bad].accept()
    with bed.proxies[bad].counting() as asked:
        for _ in range(10):
            assert bed.ask(*here.reads) == expected
        with (
            pytest.raises(breaker.LeftAlone, match="3 times in a row") as failed,
            TimeLimit(PATIENT, PATIENT),
        ):
            bed.flights.fly([Ask(bed.names[bad], Read(here.key))])
    assert (failed.value.sent, failed.value.retry) == (False, False)
    assert failed.value.retry_after > 400
    assert (asked.connections, asked.commands) == (0, [])
    bed.breaker(bed.names[bad])._next_try = 0.0
    assert bed.ask(*here.reads) == here.entries
    assert not bed.breaker(bed.names[bad]).is_open


def test_who_hangs_is_known_to_be_down_within_one_operation(
    bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 600.0)
    with nodes(2) as made, bed_of(made.nodes) as bed:
        here = bed.each()
        bed.servers[bad].pause()
        expected: list[Answer] = list(here.entries)
        expected[bad] = DOWN
        assert bed.ask(*here.reads, timeout=1.5) == expected
        with bed.proxies[bad].counting() as asked:
            assert bed.ask(*here.writes(b"new"))[bad] is DOWN
        assert asked.commands == []
        bed.servers[bad].resume()
        bed.breaker(bed.names[bad])._next_try = 0.0
        assert bed.ask(*here.reads)[bad] == here.entry(bad)
        bed.all_is_well()


def test_who_takes_no_connection_leaves_time_to_connect_to_the_other(bed: Bed, bad: int) -> None:
    here = bed.each()
    with socket.socket() as full:
        # A backlog that is full, so that nobody's SYN is answered.
        full.bind((HOST, 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        bed.close()
        bed.pools[bed.names[bad]] = Pool(partial(Connection, address), 1)
        expected: list[Answer] = list(here.entries)
        expected[bad] = DOWN
        assert bed.ask(*here.reads, connect_timeout=1.0) == expected
        for each in waiting:
            each.close()


def test_who_never_makes_sense_is_not_down_but_an_error_once_the_time_is_over(bed: Bed, bad: int) -> None:
    here = bed.each()
    rule = bed.proxies[bad].replace_reply(b"hello\r\n", times=MANY)
    with pytest.raises(StoreUnavailable) as failed:
        bed.ask(*here.reads, timeout=0.6)
    assert not isinstance(failed.value, breaker.LeftAlone)
    assert rule.fired > 2
    bed.all_is_well()


def test_an_error_that_a_node_says_is_raised_at_once(bed: Bed, bad: int) -> None:
    here = bed.each()
    rule = bed.proxies[bad].replace_reply(b"SERVER_ERROR out of memory storing object\r\n", times=MANY)
    with pytest.raises(StoreUnavailable, match="out of memory") as failed:
        bed.ask(*here.writes(b"new"))
    assert rule.fired == 1
    assert (failed.value.retry, failed.value.sent) == (False, True), "the other may have stored it"
    bed.all_is_well()


def test_a_value_that_one_takes_for_too_large_leaves_the_others_connection_in_order(
    bed: Bed, bad: int
) -> None:
    here = bed.each()
    bed.proxies[bad].replace_reply(b"SERVER_ERROR object too large for cache\r\n")
    with pytest.raises(ValueTooLarge):
        bed.ask(*here.writes(b"new"))
    bed.all_is_well()


# Both fail


@pytest.mark.parametrize("writes", [False, True], ids=["read", "write"])
def test_where_nobody_answers_the_error_says_what_may_have_happened(bed: Bed, writes: bool) -> None:
    here = bed.each()
    commands = here.writes(b"new") if writes else here.reads
    for proxy in bed.proxies:
        proxy.go_down()
    bed.close()
    with pytest.raises(StoreUnavailable) as failed:
        bed.ask(*commands)
    assert (failed.value.retry, failed.value.sent) == (True, False)

    bed.proxies[0].accept()
    bed.proxies[0].lose_reply()
    with pytest.raises(StoreUnavailable) as failed:
        bed.ask(*commands)
    assert failed.value.retry is True
    assert failed.value.sent or not writes

    for proxy in bed.proxies:
        proxy.heal()
        proxy.hold_replies()
    with pytest.raises(StoreUnavailable) as failed:
        bed.ask(*commands, timeout=0.4)
    assert (failed.value.retry, failed.value.sent) == (False, True)
    bed.all_is_well()


def test_where_one_hangs_and_the_other_was_just_interrupted_all_may_be_asked_again(
    bed: Bed, bad: int
) -> None:
    here = bed.each()
    bed.proxies[bad].cut_reply(at=0, closes=False)
    bed.proxies[1 - bad].lose_reply()
    with pytest.raises(StoreUnavailable) as failed:
        bed.ask(*here.reads, timeout=0.4)
    assert failed.value.retry is True
    bed.all_is_well()


def test_what_a_node_did_is_raised_rather_than_that_another_is_left_alone(bed: Bed, bad: int) -> None:
    here = bed.each()
    bed.proxies[bad].go_down()
    bed.ask(*here.reads)
    bed.proxies[1 - bad].lose_reply()
    with pytest.raises(StoreUnavailable, match=r"did not answer \(ConnectionError") as failed:
        bed.ask(*here.reads)
    assert (failed.value.retry, failed.value.sent) == (True, True)
    assert bed.ask(*here.reads)[bad] is DOWN, "the other answers again"

    bed.proxies[1 - bad].go_down()
    for _ in range(FAILURES):
        with pytest.raises(StoreUnavailable):
            bed.ask(*here.reads)
    bed.breaker(bed.names[1 - bad])._next_try = time.monotonic() + 100
    with pytest.raises(breaker.LeftAlone) as failed:
        bed.ask(*here.reads)
    assert failed.value.retry_after < 110, "the sooner of both"


# Who is stopped in the middle


def test_an_interrupt_closes_the_connections_whose_reply_is_on_its_way(bed: Bed, bad: int) -> None:
    here = bed.each()
    main = threading.main_thread().ident
    assert main is not None
    asked = threading.Event()

    def interrupt(exchange: object) -> None:
        asked.wait(PATIENT)
        time.sleep(0.05)  # until it waits
        signal.pthread_kill(main, signal.SIGINT)

    for proxy in bed.proxies:
        proxy.hold_replies()
    bed.proxies[1 - bad].on_request(lambda exchange: asked.set())
    bed.proxies[bad].on_reply(interrupt)
    with pytest.raises(KeyboardInterrupt):
        bed.ask(*here.writes(b"new"))
    for proxy in bed.proxies:
        proxy.release_replies()
        wait_until(lambda proxy=proxy: proxy.open_connections == 0, PATIENT, "it is closed")  # type: ignore[misc]
    bed.all_is_well()


def test_greenlets_that_are_killed_in_the_middle_leave_nothing_behind(bed: Bed) -> None:
    script = """
        from gevent import monkey; monkey.patch_all()
        import sys, gevent
        from functools import partial
        from elasticache_sessions.clients.base import *
        from elasticache_sessions.clients.breaker import Breakers
        from elasticache_sessions.clients.memcached_asks import Ask
        from elasticache_sessions.clients.memcached_connection import Connection
        from elasticache_sessions.clients.memcached_flight import Flights
        from elasticache_sessions.clients.pool import Pool
        from elasticache_sessions.limit import TimeLimit, Timeouts
        pools = {port: Pool(partial(Connection, ("127.0.0.1", int(port))), 2) for port in sys.argv[1:]}
        flights = Flights(pools.__getitem__, Breakers(Timeouts(20, 20), 3))
        def fly(*commands):
            with TimeLimit(20, 20):
                return flights.fly([Ask(port, command) for port, command in zip(pools, commands)])
        def work(number):
            key, value = b"green-%d" % number, b"%d" % number
            fly(*[Write(key, value, 60, ABSENT)] * 2)
            for _ in range(3):
                assert [entry.value for entry in fly(Read(key), Read(key))] == [value, value]
        for turn in range(8):
            jobs = [gevent.spawn(work, 100 * turn + number) for number in range(12)]
            gevent.sleep(0.001 * turn)
            gevent.killall(jobs[::3], block=False)
            gevent.joinall(jobs)
            assert all(job.successful() for number, job in enumerate(jobs) if number % 3), jobs
        for pool in pools.values():
            with TimeLimit(1, 1), pool.connection(), pool.connection():
                pass
        print("well")
    """
    for proxy in bed.proxies:
        proxy.delay_replies(0.001)
    assert run(script, *(str(proxy.port) for proxy in bed.proxies)) == "well\n"


# The connection


def test_a_reply_about_the_time_left_that_does_not_fit(bed: Bed) -> None:
    key = bed.each().key
    misfits = (b"HD", b"HD t", b"HD t-2", b"HD tten", b"HD t10 f0", b"HD t" + b"1" * 20, b"VA 1 t5\r\nx")
    for misfit in (*misfits, b"OK", b"MN", b"END", b"STORED"):
        rule = bed.proxies[0].replace_reply(misfit + b"\r\n")
        with pytest.raises(StoreUnavailable, match="does not fit") as failed:
            bed.ask(Left(key))
        assert (rule.fired, failed.value.retry) == (1, True)
    for error in (b"ERROR", b"CLIENT_ERROR bad command line format", b"SERVER_ERROR out of memory"):
        bed.proxies[0].replace_reply(error + b"\r\n")
        with pytest.raises(StoreUnavailable):
            bed.ask(Left(key))
    bed.proxies[0].extend_reply(b"EN\r\n")
    with pytest.raises(StoreUnavailable, match="does not fit"):
        bed.ask(Left(key))
    bed.all_is_well()


@pytest.mark.parametrize("key", [b"two words", b"a\r\nflush_all", b"k" * 251, b"nul\0"])
def test_a_key_that_is_none_is_never_sent(bed: Bed, key: bytes) -> None:
    with bed.proxies[0].counting() as asked:
        for command in (
            Read(key),
            Left(key),
            Write(key, b"x", 10, ABSENT),
            Write(key, b"x", 10, b"1"),
            Replace(key, b"x", 10),
        ):
            with pytest.raises(StoreUnavailable):
                bed.ask(command)
        with pytest.raises(StoreUnavailable):
            bed.ask(Write(b"key", b"x", 10, b"1 noreply"))
    assert asked.commands == []


# TLS


def test_over_tls_it_is_the_same() -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(MEMCACHED, access=Access(tls=True))) for _ in range(2)]
        bed = stack.enter_context(bed_of(servers))
        both = threading.Barrier(2)
        here = bed.each(b"x" * 100_000)
        for proxy in bed.proxies:
            proxy.on_reply(lambda exchange: both.wait(PATIENT / 2))
        assert bed.ask(*here.reads) == here.entries
        bed.proxies[0].lose_reply()
        assert bed.ask(*here.writes(b"y" * 100_000)) == [Conflict(None, resent=True), Stored(None)]
        bed.proxies[1].go_down()
        assert bed.ask(*here.reads)[1] is DOWN
        bed.all_is_well()
