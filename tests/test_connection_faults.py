"""A store that hangs, refuses, resets or talks nonsense: StoreUnavailable in time, never another's reply."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from elasticache_sessions import AsyncSessionManager, Session, SessionManager, Settings, StoreUnavailable
from tests.support.load import (
    PATIENT,
    Manager,
    at_once,
    contents,
    is_read,
    is_write,
    manager_of,
    manager_session,
    once_back,
    warm_up,
)
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.stores import MEMCACHED, NETWORKED, Store

pytestmark = pytest.mark.usefixtures("never_left_alone")

TIMEOUT, CONNECT_TIMEOUT = 0.4, 0.4
ALWAYS = 1_000_000


@pytest.fixture(params=["threads", "asyncio"])
def patient_manager(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Manager]:
    """Behind the proxy, where the test is not about time."""
    with manager_of(request.param, proxy.url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
        yield manager


@pytest.fixture(params=["threads", "asyncio"])
def manager(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Manager]:
    """Behind the proxy, connected, and impatient."""
    with manager_of(request.param, proxy.url, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT) as manager:
        for _ in range(5):
            with suppress(StoreUnavailable):  # a busy machine may need more time than TIMEOUT to begin
                warm_up(manager)
                break
        yield manager


def fails(act: Callable[[], object], within: float = TIMEOUT) -> StoreUnavailable:
    """`act` fails as it should, and soon. The bound is generous: a busy machine is no fault."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        act()
    assert time.monotonic() - began < 3 * within
    return caught.value


def stored_by(manager: Manager, **values: object) -> Session:
    """A session of an impatient manager, which a busy machine may keep waiting."""
    return once_back(lambda: manager_session(manager, **values))


def increment(fields: dict[str, int]) -> None:
    fields["count"] += 1


def every_operation_fails(manager: Manager, stored: Session, within: float = TIMEOUT) -> None:
    new = Session()
    new.fields["count"] = 0
    fails(lambda: manager.load(stored.id), within)
    fails(lambda: manager.save(new), within)
    fails(lambda: manager.apply(stored, increment), within)
    stored.fields["late"] = True
    fails(lambda: manager.save(stored), within)
    fails(lambda: manager.cycle(stored), within)
    fails(lambda: manager.end(stored), within)


# Nobody answers


def test_a_store_that_hangs_is_unavailable_in_time(manager: Manager, proxy: Proxy) -> None:
    stored = stored_by(manager, count=0)
    proxy.hold_replies()
    every_operation_fails(manager, stored)


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_server_that_is_stopped_in_its_tracks_is_unavailable_in_time(own_server: Server, kind: str) -> None:
    with manager_of(kind, own_server.url, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT) as manager:
        stored = stored_by(manager, count=0)
        own_server.pause()
        every_operation_fails(manager, stored)
        own_server.resume()
        assert once_back(lambda: manager.load(stored.id)) is not None


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_new_connection_that_hangs_has_connect_timeout_on_top(proxy: Proxy, kind: str) -> None:
    proxy.hold_replies()
    with manager_of(kind, proxy.url, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT) as manager:
        fails(lambda: manager.load("x" * 40), TIMEOUT + CONNECT_TIMEOUT)


def test_a_port_that_refuses_is_unavailable_in_time(manager: Manager, proxy: Proxy) -> None:
    stored = stored_by(manager, count=0)
    proxy.go_down()
    every_operation_fails(manager, stored, TIMEOUT + CONNECT_TIMEOUT)
    proxy.heal()
    assert once_back(lambda: contents(manager, stored.id)) == {"count": 0}


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_store_that_was_never_there_is_unavailable_in_time(proxy: Proxy, kind: str) -> None:
    proxy.go_down()
    with manager_of(kind, proxy.url, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT) as manager:
        fails(lambda: manager.load("x" * 40), TIMEOUT + CONNECT_TIMEOUT)
        proxy.heal()
        assert once_back(lambda: manager.load("x" * 40)) is None


@pytest.mark.parametrize("scheme", ["redis", "memcached"])
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_host_without_an_address_is_unavailable(kind: str, scheme: str) -> None:
    url = f"{scheme}://no-such-host.invalid:6379"
    with manager_of(kind, url, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT) as manager:
        fails(lambda: manager.load("x" * 40), TIMEOUT + CONNECT_TIMEOUT)


def test_waiting_for_a_connection_counts_as_well(proxy: Proxy) -> None:
    with manager_of(
        "threads", proxy.url, timeout=TIMEOUT, connect_timeout=CONNECT_TIMEOUT, max_connections=1
    ) as manager:
        warm_up(manager)
        stored = stored_by(manager, count=0)
        proxy.hold_replies()
        at_once(*[lambda: fails(lambda: manager.load(stored.id), TIMEOUT + CONNECT_TIMEOUT)] * 6)


# Connections that break


def test_connections_that_were_closed_meanwhile_are_made_again_without_an_error(
    patient_manager: Manager, proxy: Proxy
) -> None:
    stored = manager_session(patient_manager, count=0)
    for _ in range(3):
        proxy.close_connections()
        assert contents(patient_manager, stored.id) == {"count": 0}
        proxy.close_connections()
        patient_manager.apply(stored, increment)
        stored.fields["count"] = 0
        patient_manager.save(stored)


def test_a_restarted_server_is_found_again_without_an_error(own_server: Server) -> None:
    with manager_of("threads", own_server.url, timeout=PATIENT) as manager:
        first = manager_session(manager, count=0)
        own_server.kill()
        own_server.start()
        assert manager.load(first.id) is None
        assert manager.load(manager_session(manager, count=0).id) is not None


def test_a_reply_that_is_cut_off_is_asked_for_again(patient_manager: Manager, proxy: Proxy) -> None:
    stored = manager_session(patient_manager, text="x" * 10_000)
    cut = proxy.cut_reply(when=is_read)
    assert contents(patient_manager, stored.id) == {"text": "x" * 10_000}
    assert cut.fired == 1
    proxy.cut_reply(when=is_read, times=ALWAYS)
    fails(lambda: patient_manager.load(stored.id), PATIENT)


# Replies that are none

NONSENSE = {
    "words": b"hello\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "bytes": b"\x00\xff\x16\x03\x01\r\n\r\n",
    "nothing": b"\r\n",
}
OF_REDIS = {
    "a number": b":5\r\n",
    "a text": b"+OK\r\n",
    "a short list": b"*1\r\n$1\r\nx\r\n",
    "a list of the wrong things": b"*2\r\n:1\r\n$1\r\nx\r\n",
    "a list in a list": b"*1\r\n*1\r\n:1\r\n",
    "an error": b"-ERR no\r\n",
    "an error of a script": b"-ERR Error running script: @user_script:1: bad argument\r\n",
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "busy": b"-BUSY Redis is busy running a script\r\n",
    "no memory": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "read only": b"-READONLY You can't write against a read only replica.\r\n",
    "master down": b"-MASTERDOWN Link with MASTER is down\r\n",
    "cluster down": b"-CLUSTERDOWN The cluster is down\r\n",
    "try again": b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    "moved": b"-MOVED 1 127.0.0.1:1\r\n",
    "moved to nowhere": b"-MOVED 1\r\n",
    "no password": b"-NOAUTH Authentication required.\r\n",
    "no permission": b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n",
    "no script, not even then": b"-NOSCRIPT No matching script.\r\n",
}
OF_MEMCACHED = {
    "no number": b"VALUE key 0 five 1\r\nvalue\r\nEND\r\n",
    "less than nothing": b"VALUE key 0 -5 1\r\nvalue\r\nEND\r\n",
    "no token": b"VALUE key 0 5\r\nvalue\r\nEND\r\n",
    "another's value": b"VALUE key 0 5 1\r\nvalue\r\nEND\r\n",
    "two ends": b"END\r\nEND\r\n",
    "stored twice": b"STORED\r\nSTORED\r\n",
    "of other commands": b"TOUCHED\r\n",
    "of meta commands": b"HD\r\n",
    "an error": b"ERROR\r\n",
    "an error of ours": b"CLIENT_ERROR bad data chunk\r\n",
    "an error of the server": b"SERVER_ERROR proxy write to backend\r\n",
    "no memory": b"SERVER_ERROR out of memory storing object\r\n",
    "an error without a word": b"SERVER_ERROR\r\n",
}
EACH_NONSENSE = [
    pytest.param(store, said, id=f"{store}-{name}")
    for store in NETWORKED
    for name, said in (NONSENSE | (OF_MEMCACHED if store in MEMCACHED else OF_REDIS)).items()
]


@pytest.mark.parametrize(("networked_store", "nonsense"), EACH_NONSENSE, indirect=["networked_store"])
def test_nonsense_is_an_outage_and_no_exception_of_the_driver(
    manager: Manager, proxy: Proxy, nonsense: bytes
) -> None:
    stored = stored_by(manager, count=0)
    rule = proxy.replace_reply(
        nonsense, when=lambda command: is_read(command) or is_write(command), times=ALWAYS
    )
    fails(lambda: manager.load(stored.id), TIMEOUT + CONNECT_TIMEOUT)
    assert rule.fired
    stored.fields["late"] = True
    # To a write, a text is a reply: what stands under the key is no session of ours.
    if nonsense != b"+OK\r\n":
        fails(lambda: manager.save(stored), TIMEOUT + CONNECT_TIMEOUT)
    proxy.heal()
    found = once_back(lambda: contents(manager, stored.id))
    assert found is not None and found["count"] == 0


# What follows would be taken for the next reply.
MISFITS = {
    "redis": ([b":5\r\n", b"+OK\r\n", b"*1\r\n$1\r\nx\r\n"], b"$-1\r\n" * 3),
    "memcached": ([b"STORED\r\n", b"OK\r\n", b"VALUE other 0 1 1\r\nx\r\nEND\r\n"], b"END\r\n" * 3),
}
EACH_MISFIT = [
    (store, misfit, more)
    for store in NETWORKED
    for misfits, follows in (MISFITS["memcached" if store in MEMCACHED else "redis"],)
    for misfit in misfits
    for more in (b"", follows)
]


@pytest.mark.parametrize(("networked_store", "misfit", "follows"), EACH_MISFIT, indirect=["networked_store"])
def test_a_reply_that_does_not_fit_closes_its_connection_and_is_asked_for_again(
    patient_manager: Manager, proxy: Proxy, misfit: bytes, follows: bytes
) -> None:
    stored = manager_session(patient_manager, count=0)
    rule = proxy.replace_reply(misfit + follows, when=is_read)
    with proxy.counting() as count:
        assert contents(patient_manager, stored.id) == {"count": 0}
        assert contents(patient_manager, stored.id) == {"count": 0}
    assert rule.fired == 1
    assert count.connections >= 1


# Replies that are late


def test_a_late_reply_is_not_taken_for_the_next_one(manager: Manager, proxy: Proxy) -> None:
    sessions = [stored_by(manager, number=number) for number in range(6)]
    for late, asked in itertools.pairwise(sessions):
        proxy.hold_replies()
        fails(lambda: manager.load(late.id))
        proxy.release_replies()
        assert once_back(lambda: contents(manager, asked.id)) == dict(asked.fields)


def test_a_cancelled_question_leaves_no_reply_for_the_next_one(proxy: Proxy) -> None:
    manager = AsyncSessionManager.connect(Settings(url=proxy.url, timeout=5.0, max_connections=2))

    async def main() -> None:
        sessions = [Session() for _ in range(12)]
        for number, session in enumerate(sessions):
            session.fields["number"] = number
            await manager.save(session)
        for number, session in enumerate(sessions):
            proxy.hold_replies()
            asking = asyncio.create_task(manager.load(session.id))
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asking), 0.05)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            proxy.release_replies()
            other = await manager.load(sessions[number - 1].id)
            assert other is not None and other.fields == sessions[number - 1].fields

    asyncio.run(main())


def test_many_threads_get_their_own_replies_whatever_breaks(proxy: Proxy, networked_store: Store) -> None:
    with manager_of("threads", proxy.url, timeout=2.0, max_connections=4) as manager:
        assert isinstance(manager, SessionManager)
        sessions = [manager_session(manager, number=number) for number in range(8)]
        numbers = iter(range(1_000_000))
        proxy.cut_reply(when=lambda command: is_read(command) and next(numbers) % 7 == 0, times=ALWAYS)
        proxy.replace_reply(
            b"hello\r\n", when=lambda command: is_read(command) and next(numbers) % 11 == 0, times=ALWAYS
        )

        def ask(session: Session) -> None:
            for _ in range(60):
                with suppress(StoreUnavailable):
                    assert contents(manager, session.id) == dict(session.fields)

        at_once(*[lambda session=session: ask(session) for session in sessions])
