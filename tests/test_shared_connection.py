"""The one connection to Valkey or Redis that an event loop's tasks share: whoever fails, gives up or is late does so alone."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
from redis.exceptions import AuthenticationError

from elasticache_sessions import Settings, StoreUnavailable
from elasticache_sessions.clients.base import ABSENT, AsyncCacheClient, Entry, Read, Write
from elasticache_sessions.clients.breaker import Breakers
from elasticache_sessions.clients.redis import connect_async
from elasticache_sessions.clients.redis_driver import Driver
from elasticache_sessions.clients.redis_shared import Access, Shared
from elasticache_sessions.clients.redis_transport_async import AsyncRedisClient
from elasticache_sessions.limit import TimeLimit, Timeouts
from elasticache_sessions.record import HEADER_BYTES
from tests.support.load import PATIENT
from tests.support.proxy import Proxy
from tests.support.servers import Server

BRIEF = 0.05


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncCacheClient]:
    settings = Settings(url=url, timeout=PATIENT, connect_timeout=PATIENT)
    client = connect_async(settings, Breakers(settings.timeouts))
    try:
        yield client
    finally:
        await client.aclose()


def value_of(number: int, size: int = 0) -> bytes:
    return str(number).encode().ljust(HEADER_BYTES) + b"x" * size


def key_of(number: int) -> bytes:
    return b"key %d" % number


async def store(client: AsyncCacheClient, number: int, size: int = 0) -> None:
    await client.perform(Write(key_of(number), value_of(number, size), 60, ABSENT))


async def number_at(client: AsyncCacheClient, number: int, seconds: float = PATIENT) -> int:
    """What stands under the key of `number`, for somebody who has so many seconds."""
    with TimeLimit(seconds, PATIENT):
        entry = await client.perform(Read(key_of(number)))
    assert isinstance(entry, Entry)
    return int(entry.value[:HEADER_BYTES])


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT):
        while not is_so():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


async def asked(*questions: Awaitable[int]) -> list[asyncio.Task[int]]:
    """Those questions, which are on their way in this order."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    for _ in range(3):  # they begin, and what they ask goes out
        await asyncio.sleep(0)
    return tasks


async def fails(task: Awaitable[int]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        await task
    return caught.value


def test_fifty_tasks_share_a_connection_and_its_flights(single_proxy: Proxy) -> None:
    """Values of all sizes, so that a reply arrives in pieces, or with others."""

    async def main() -> None:
        async with connected(single_proxy.url) as client:
            await asyncio.gather(*[store(client, each, 5 * each**3) for each in range(50)])
            assert single_proxy.total.connections == 1
            with single_proxy.counting() as count:
                numbers = await asyncio.gather(*[number_at(client, each) for each in range(50)])
            assert numbers == list(range(50))
            assert (len(count.commands), count.connections) == (50, 0)
            assert count.flights < 25

    asyncio.run(main())


def test_who_is_cancelled_leaves_the_connection_to_the_others(single_proxy: Proxy) -> None:
    async def main() -> None:
        async with connected(single_proxy.url) as client:
            for each in range(3):
                await store(client, each)
            single_proxy.hold_replies()
            first, second, third = await asked(*[number_at(client, each) for each in range(3)])
            second.cancel()
            await asyncio.wait([second])
            single_proxy.release_replies()
            assert (await first, await third) == (0, 2)
            assert single_proxy.total.connections == 1

    asyncio.run(main())


def test_who_is_late_leaves_it_to_those_who_wait_and_to_nobody_else(single_proxy: Proxy) -> None:
    async def main() -> None:
        async with connected(single_proxy.url) as client:
            for each in range(4):
                await store(client, each)
            single_proxy.hold_replies()
            patient, brief = await asked(number_at(client, 0), number_at(client, 1, BRIEF))
            assert (await fails(brief)).silent
            (later,) = await asked(number_at(client, 2))
            await until(lambda: single_proxy.total.connections == 2)
            single_proxy.release_replies()
            assert (await patient, await later) == (0, 2)
            await until(lambda: single_proxy.open_connections == 1)
            assert await number_at(client, 3) == 3
            assert single_proxy.total.connections == 2

    asyncio.run(main())


def test_who_gave_up_before_the_reply_was_late_still_shows_that_the_connection_is_dead(
    single_proxy: Proxy,
) -> None:
    """Else those who give up sooner than TIMEOUT would be given the same connection for ever."""

    async def main() -> None:
        async with connected(single_proxy.url) as client:
            await store(client, 0)
            single_proxy.hold_replies()
            (brief,) = await asked(number_at(client, 0, BRIEF))
            brief.cancel()
            await asyncio.sleep(2 * BRIEF)
            (later,) = await asked(number_at(client, 0))
            await until(lambda: single_proxy.total.connections == 2)
            single_proxy.release_replies()
            assert await later == 0

    asyncio.run(main())


@pytest.mark.parametrize("nonsense", [b":5\r\n" + b"$-1\r\n" * 3, b"hello\r\n", b"*1\r\n$1\r\nx\r\n"])
def test_what_follows_a_reply_that_does_not_fit_is_given_to_nobody(
    single_proxy: Proxy, nonsense: bytes
) -> None:
    async def main() -> None:
        async with connected(single_proxy.url) as client:
            for each in range(4):
                await store(client, each)
            single_proxy.replace_reply(nonsense, when=lambda command: command[1] == key_of(1))
            single_proxy.hold_replies()
            first, *others = await asked(*[number_at(client, each) for each in range(4)])
            single_proxy.release_replies()
            assert await first == 0
            failures = [await fails(other) for other in others]
            assert all(failure.sent for failure in failures)
            assert len({id(failure.__cause__) for failure in failures}) == len(failures)
            assert await number_at(client, 1) == 1
            assert single_proxy.total.connections == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "connections"),
    [
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", 1),
        (b"-NOPERM this user has no permissions to run the 'getex' command\r\n", 1),
        (b"-READONLY You can't write against a read only replica.\r\n", 2),
        (b"-NOAUTH Authentication required.\r\n", 2),
    ],
    ids=["out of memory", "no permission", "read only", "signed in no more"],
)
def test_an_error_is_of_the_command_or_of_the_connection(
    single_proxy: Proxy, said: bytes, connections: int
) -> None:
    async def main() -> None:
        async with connected(single_proxy.url) as client:
            await store(client, 0)
            single_proxy.replace_reply(said, when=lambda command: command[0] == b"GETEX")
            failure = await fails(number_at(client, 0))
            assert not failure.sent
            assert await number_at(client, 0) == 0
            assert single_proxy.total.connections == connections

    asyncio.run(main())


def test_what_comes_without_a_question_is_given_to_nobody(single_proxy: Proxy) -> None:
    async def main() -> None:
        async with connected(single_proxy.url) as client:
            await store(client, 0)
            single_proxy.push(b"$-1\r\n")
            await until(lambda: single_proxy.open_connections == 0)
            assert await number_at(client, 0) == 0

    asyncio.run(main())


def test_who_connects_for_all_may_give_up(single_proxy: Proxy) -> None:
    """It signs in, say, when the first of those who wait goes away."""

    async def main() -> None:
        async with connected(f"{single_proxy.url}/1") as client:
            single_proxy.hold_replies()
            (first,) = await asked(number_at(client, 0))
            second = asyncio.create_task(store(client, 0))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            single_proxy.release_replies()
            await second
            assert await number_at(client, 0) == 0
            assert single_proxy.total.connections == 1
            assert single_proxy.total.names.count("SELECT") == 1

    asyncio.run(main())


def test_a_failure_to_connect_is_each_ones_own(single_proxy: Proxy) -> None:
    """Whoever hears of it notes on it what he has sent."""

    async def main() -> None:
        async with connected(f"{single_proxy.url}/99") as client:
            failures = await asyncio.gather(*[fails(number_at(client, each)) for each in range(3)])
            assert len({id(failure) for failure in failures}) == 3
            assert not any(failure.sent for failure in failures)
            assert "DB index is out of range" in str(failures[0])
            await until(lambda: single_proxy.open_connections == 0)

    asyncio.run(main())


def test_so_is_a_token_that_nobody_has(single_proxy: Proxy) -> None:
    class Nothing:
        async def get_credentials_async(self) -> tuple[str, str]:
            raise AuthenticationError("no token") from StoreUnavailable("no AWS credentials", sent=False)

    async def main() -> None:
        access = Access("127.0.0.1", single_proxy.port, 0, None, Nothing())
        shared = Shared(access, Driver("redis"), Timeouts(PATIENT, PATIENT))
        client = AsyncRedisClient(shared, Timeouts(PATIENT, PATIENT), Breakers(Timeouts(PATIENT, PATIENT)))
        failures = await asyncio.gather(*[fails(number_at(client, each)) for each in range(3)])
        assert {str(failure) for failure in failures} == {"no AWS credentials"}
        assert len({id(failure) for failure in failures}) == 3
        await client.aclose()

    asyncio.run(main())


def test_a_connection_keeps_nothing_of_the_request_that_made_it(single_proxy: Proxy) -> None:
    class Served:
        pass

    serving: ContextVar[Served] = ContextVar("serving")

    async def main() -> None:
        async with connected(single_proxy.url) as client:

            async def serve() -> weakref.ref[Served]:
                served = Served()
                serving.set(served)
                await store(client, 0)
                return weakref.ref(served)

            served = await asyncio.create_task(serve())
            for _ in range(1000):  # asyncio lets go of timers that were cancelled when there are many of them
                asyncio.get_running_loop().call_later(PATIENT, gc.collect).cancel()
            await asyncio.sleep(0)
            gc.collect()
            assert served() is None
            assert await number_at(client, 0) == 0
            assert single_proxy.total.connections == 1

    asyncio.run(main())


def test_closing_tells_those_who_wait(single_proxy: Proxy) -> None:
    async def main() -> None:
        async with connected(single_proxy.url) as client:
            await store(client, 0)
            single_proxy.hold_replies()
            (waiting,) = await asked(number_at(client, 0))
            await client.aclose()
            assert (await fails(waiting)).retry
            single_proxy.release_replies()
            assert await number_at(client, 0) == 0

    asyncio.run(main())


def test_closing_tells_those_who_wait_until_it_is_connected(single_proxy: Proxy) -> None:
    """As a failure: they were not cancelled."""

    async def main() -> None:
        async with connected(f"{single_proxy.url}/1") as client:
            single_proxy.hold_replies()
            (waiting,) = await asked(number_at(client, 0))
            await until(lambda: "SELECT" in single_proxy.total.names)
            (cancelled,) = await asked(number_at(client, 0))
            closing = asyncio.create_task(client.aclose())
            await asyncio.sleep(0)
            cancelled.cancel()
            await closing
            assert not (await fails(waiting)).sent
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            single_proxy.release_replies()
            await store(client, 0)
            assert await number_at(client, 0) == 0

    asyncio.run(main())


def test_a_user_signs_in_where_the_url_names_one(own_server: Server) -> None:
    own_server.command("ACL", "SETUSER", "ada", "on", ">a secret", "~*", "+@all")
    own_server.command("CONFIG", "SET", "requirepass", "another")

    async def main(user: str) -> None:
        async with connected(f"redis://{user}@127.0.0.1:{own_server.port}/2") as client:
            await store(client, 0)
            assert await number_at(client, 0) == 0

    asyncio.run(main("ada:a%20secret"))
    asyncio.run(main(":another"))
    with pytest.raises(StoreUnavailable, match="Check the URL's user and ACL"):
        asyncio.run(main("ada:wrong"))
