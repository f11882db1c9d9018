"""Whatever is wrong with a reply of Memcached: never another's value, and the next question on the pool is right."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from elasticache_sessions import Settings, StoreUnavailable
from elasticache_sessions.clients import memcached
from elasticache_sessions.clients.base import (
    ABSENT,
    Command,
    Conflict,
    Entry,
    Read,
    Replace,
    Reply,
    Stored,
    Write,
    unheard,
)
from elasticache_sessions.clients.breaker import Breakers
from elasticache_sessions.clients.memcached import MemcachedClient
from elasticache_sessions.clients.memcached_async import AsyncMemcachedClient
from elasticache_sessions.clients.memcached_connection import Connection
from elasticache_sessions.clients.pool import Pool
from elasticache_sessions.limit import TimeLimit, Timeouts
from tests.support.demo import wait_until
from tests.support.dialects import MEMCACHED
from tests.support.load import PATIENT
from tests.support.proxy import Proxy, Rule
from tests.support.stores import Store

MINE, OTHERS, NEW = b"sess:mine", b"sess:others", b"sess:new"
OTHERS_REPLY = b"VALUE sess:others 0 12 1\r\nwhat is not mine\r\nEND\r\n"

# The questions, by the first thing that they send.
QUESTIONS: dict[str, Callable[[bytes, bytes], Command]] = {
    "gets": lambda token, old: Read(MINE),
    "gats": lambda token, old: Read(MINE, touch=50, now=int(time.time())),
    "add": lambda token, old: Write(NEW, b"new", 60, ABSENT),
    "add where something is": lambda token, old: Write(MINE, b"new", 60, ABSENT),
    "cas": lambda token, old: Write(MINE, b"new", 60, token),
    "cas that is too late": lambda token, old: Write(MINE, b"new", 60, old),
    "cas of what is gone": lambda token, old: Write(NEW, b"new", 60, old),
    "replace": lambda token, old: Replace(MINE, b"new", 60),
    "replace of what is gone": lambda token, old: Replace(NEW, b"new", 60),
}


@dataclass
class Bed:
    """Two clients on one pool, of one connection: one that is impatient, and one that a busy machine does not disturb."""

    proxy: Proxy
    store: Store
    impatient: Callable[[Command], Reply]
    ask: Callable[[Command], Reply]

    def question(self, name: str) -> Command:
        """One of QUESTIONS, for a store that is as ever."""
        self.store.flush()
        self.ask(Write(MINE, b"before", 60, ABSENT))
        old = self.entry(MINE)
        self.ask(Write(MINE, b"mine", 60, old.token))
        self.ask(Write(OTHERS, b"of somebody else", 60, ABSENT))
        return QUESTIONS[name](self.entry(MINE).token, old.token)

    def entry(self, key: bytes) -> Entry:
        reply = self.ask(Read(key))
        assert isinstance(reply, Entry)
        return reply

    def everything_is_right(self) -> None:
        """Each key holds what the store says, whoever asks for it next."""
        for key in (OTHERS, MINE, NEW, OTHERS):
            for question in (Read(key), Read(key, touch=50, now=int(time.time()))):
                reply = self.ask(question)
                assert (reply.value if isinstance(reply, Entry) else reply) == self.store.get(key)
        assert self.store.get(OTHERS) == b"of somebody else"

    def fails(
        self,
        name: str,
        inject: Callable[[], Rule],
        *,
        retry: bool,
        ask: Callable[[Command], Reply] | None = None,
    ) -> None:
        """A question meets a fault: it fails, says so rightly, and harms nobody."""
        question, before = self.question(name), self.proxy.total.connections
        fault = inject()
        with pytest.raises(StoreUnavailable) as failed:
            (ask or self.ask)(question)
        assert (fault.fired, failed.value.retry, failed.value.sent) == (1, retry, True)
        assert "127.0.0.1" in str(failed.value)
        self.everything_is_right()
        assert self.proxy.total.connections == before + 1, "it should have been closed, and one made"


@pytest.fixture(params=["threads", "asyncio"])
def bed(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Iterator[Bed]:
    store = give_store("memcached")
    with Proxy(*store.ports, dialect=MEMCACHED) as proxy, asyncio.Runner() as runner:
        name = f"{proxy.host}:{proxy.port}"
        pools = {name: Pool(partial(Connection, (proxy.host, proxy.port)), 1)}
        impatient, patient = [
            MemcachedClient(pools, timeouts, Breakers(timeouts))
            for timeouts in (Timeouts(0.15, PATIENT), Timeouts(PATIENT, PATIENT))
        ]
        if request.param == "threads":
            yield Bed(proxy, store, impatient.perform, patient.perform)
        else:
            on_loop = [runner.run(of_a_loop(client)) for client in (impatient, patient)]
            asks = [lambda command, one=one: runner.run(one.perform(command)) for one in on_loop]
            yield Bed(proxy, store, *asks)
            for one in on_loop:
                runner.run(one.aclose())
        patient.close()


async def of_a_loop(client: MemcachedClient) -> AsyncMemcachedClient:
    return AsyncMemcachedClient(client, 1)


@pytest.fixture(params=QUESTIONS)
def name(request: pytest.FixtureRequest) -> str:
    """Each question in turn, by its name."""
    return str(request.param)


ERRORS = [
    b"ERROR",
    b"ERROR unknown",
    b"CLIENT_ERROR bad data chunk",
    b"SERVER_ERROR out of memory reading request",
    b"SERVER_ERROR",
]
MISFITS = [
    b"\r\n",
    b"hello\r\n",
    b"OK\r\n",
    b"TOUCHED\r\n",
    b"EN\r\n",
    b"\x80\x01\x00\x00\r\n",
    OTHERS_REPLY,
    b"VALUE sess:mine 0 4\r\nmine\r\nEND\r\n",
    b"VALUE sess:mine 0 -4 1\r\nmine\r\nEND\r\n",
    b"VALUE sess:mine 0 three 1\r\nmine\r\nEND\r\n",
    b"VALUE sess:mine 0 2 1\r\nmine\r\nEND\r\n",
    b"VALUE sess:mine 0 4 1\r\nmine\r\nVALUE sess:mine 0 4 1\r\nelse\r\nEND\r\n",
    b"VALUE sess:mine 0 4 1\r\nmine\r\nVALUE sess:others 0 4 1\r\nelse\r\nEND\r\n",
    b"VALUE sess:mine 0 4 1\r\nmine\r\nSTORED\r\n",
    b"STORED\r\nSTORED\r\n",
    b"END\r\nEND\r\n",
    b"STORED\r\n\r\n",
    b"NOT_FOUND\r\nEND\r\n",
]


def test_an_error_in_place_of_the_reply(bed: Bed, name: str, subtests: pytest.Subtests) -> None:
    for error in ERRORS:
        with subtests.test(error=error):
            bed.fails(name, lambda: bed.proxy.replace_reply(error + b"\r\n"), retry=False)


def test_a_reply_that_does_not_fit(bed: Bed, name: str, subtests: pytest.Subtests) -> None:
    others = b"STORED\r\n" if name.startswith("g") else b"END\r\n"
    for misfit in (*MISFITS, others):
        with subtests.test(misfit=misfit):
            bed.fails(name, lambda: bed.proxy.replace_reply(misfit), retry=True)


def test_a_reply_with_more_behind_it(bed: Bed, name: str, subtests: pytest.Subtests) -> None:
    for more in (b"END\r\n", b"STORED\r\n", OTHERS_REPLY, b"\r", b"ERROR\r\n"):
        with subtests.test(more=more):
            bed.fails(name, lambda: bed.proxy.extend_reply(more), retry=True)


def test_a_part_of_the_reply_and_then_the_end_of_the_connection(
    bed: Bed, name: str, subtests: pytest.Subtests
) -> None:
    for part in (0.0, 0.3, 0.5, 0.95):
        with subtests.test(part=part):
            bed.fails(name, lambda: bed.proxy.cut_reply(at=part), retry=True)


def test_a_part_of_the_reply_and_then_silence(bed: Bed, name: str, subtests: pytest.Subtests) -> None:
    for part in (0.0, 0.5, 0.95):
        with subtests.test(part=part):
            silence = partial(bed.proxy.cut_reply, at=part, closes=False)
            bed.fails(name, silence, retry=False, ask=bed.impatient)


def test_a_request_that_never_arrived(bed: Bed, name: str) -> None:
    bed.fails(name, bed.proxy.lose_request, retry=True)


def test_a_reply_that_comes_byte_by_byte_ends_with_the_time_for_it(bed: Bed) -> None:
    """Each wait is short; all of them together are too long."""

    bed.question("gets")
    [link] = bed.proxy.links

    def drip(exchange: object) -> None:
        while True:  # until the client closes its end
            link.push(b"V")
            time.sleep(0.02)

    bed.proxy.on_reply(drip, times=1)
    with pytest.raises(StoreUnavailable) as failed:
        bed.impatient(Read(MINE))
    assert failed.value.retry is False and "timed out" in str(failed.value)
    bed.everything_is_right()


# Replies that are late


def test_a_late_reply_is_for_nobody(bed: Bed, name: str) -> None:
    question = bed.question(name)
    bed.proxy.hold_replies()
    with pytest.raises(StoreUnavailable) as failed:
        bed.impatient(question)
    assert (failed.value.retry, failed.value.sent) == (False, True)
    bed.proxy.release_replies()
    bed.everything_is_right()


def test_what_came_since_the_last_reply_is_for_nobody(bed: Bed, name: str, subtests: pytest.Subtests) -> None:
    for late in (b"END\r\n", b"STORED\r\n", OTHERS_REPLY, b"\n"):
        with subtests.test(late=late):
            question, before = bed.question(name), bed.proxy.total.connections
            bed.proxy.push(late)
            reply = bed.ask(question)  # on another connection, without an error
            assert bed.proxy.total.connections == before + 1
            if isinstance(question, Read):
                assert isinstance(reply, Entry) and reply.value == b"mine"
            else:
                stored = isinstance(reply, Stored) or reply is True
                assert (bed.store.get(question.key) == b"new") == stored
            bed.everything_is_right()


# The look after a conflict


CONFLICTS = pytest.mark.parametrize("conflict", ["add where something is", "cas that is too late"])


@CONFLICTS
def test_a_conflict_brings_what_is_there(bed: Bed, conflict: str) -> None:
    question = bed.question(conflict)
    assert bed.ask(question) == Conflict(bed.entry(MINE))


@CONFLICTS
def test_a_look_after_a_conflict_that_fails_leaves_nothing_unknown(
    bed: Bed, conflict: str, subtests: pytest.Subtests
) -> None:
    for wrong in (b"ERROR\r\n", OTHERS_REPLY, b"STORED\r\n", b"VALUE sess:mine 0 4 1\r\nmi"):
        with subtests.test(wrong=wrong):
            question = bed.question(conflict)
            fault = bed.proxy.replace_reply(wrong, when="gets")
            with pytest.raises(StoreUnavailable) as failed:
                bed.impatient(question)
            assert (fault.fired, failed.value.sent) == (1, False)
            bed.everything_is_right()


def test_a_connection_that_has_something_to_say_is_not_asked(give_store: Callable[[str], Store]) -> None:
    """Also between a conflict and the look at it, where no pool has looked at the connection."""
    store = give_store("memcached")
    with Proxy(*store.ports, dialect=MEMCACHED) as proxy, TimeLimit(PATIENT, PATIENT):
        connection = Connection((proxy.host, proxy.port))
        assert connection.ask(Read(MINE)) is None
        proxy.push(b"END\r\n")
        wait_until(lambda: not connection.is_usable, 5, "it has arrived")
        with pytest.raises(StoreUnavailable):
            connection.ask(Read(MINE))
        assert connection.sock is None
        assert proxy.total.names == ["GETS"]


def test_a_thread_that_connects_after_its_event_loop_has_ended_leaves_nothing_open(
    give_store: Callable[[str], Store],
) -> None:
    """Whoever asked was cancelled at the end, and what was open by then is closed already."""
    store = give_store("memcached")
    begun, may_go_on, ended = threading.Event(), threading.Event(), threading.Event()
    client = memcached.connect(Settings(url=store.url, timeout=PATIENT, connect_timeout=PATIENT))

    class Late:
        """The client, whose threads take their time."""

        timeouts, notice = client.timeouts, staticmethod(unheard)
        place_of, has, ask_for, close = client.place_of, client.has, client.ask_for, client.close

        def ask(self, command: Command) -> Reply:
            begun.set()
            may_go_on.wait(PATIENT)
            try:
                return client.ask(command)
            finally:
                ended.set()

    async def main() -> None:
        asynchronous = AsyncMemcachedClient(Late(), 1)
        asking = [asyncio.create_task(asynchronous.perform(Read(b"sess:%d" % one))) for one in range(2)]
        await asyncio.to_thread(begun.wait, PATIENT)
        for task in asking:
            task.cancel()
        await asynchronous.aclose()

    asyncio.run(main())
    before = sum(store.dialect.clients(port) for port in store.ports)
    may_go_on.set()
    assert ended.wait(PATIENT)
    wait_until(lambda: sum(store.dialect.clients(port) for port in store.ports) <= before, 5, "it is closed")
