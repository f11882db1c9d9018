"""Django under ASGI, served by uvicorn: the session is asked for on the event loop, by all the tasks of a request alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from django.contrib import auth
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, override_settings

from elasticache_sessions import Fields
from elasticache_sessions.django import SessionStore
from elasticache_sessions.django.middleware import SessionMiddleware
from tests.support.django_pages import (
    ADA,
    CHAIN,
    DJANGOS,
    GRACE,
    OURS,
    Site,
    asks_for_a_session,
    session_of,
)
from tests.support.load import PATIENTLY, at_once
from tests.support.proxy import Proxy
from tests.support.scripts import run
from tests.support.served import UVICORN, served
from tests.support.stores import Store

# Served by uvicorn


def test_it_costs_no_thread_and_no_connection(redis_proxy: Proxy, tmp_path: Path) -> None:
    with served(redis_proxy.url, tmp_path, *UVICORN) as site:
        cookie = site.begin()

        def hops_of(path: str) -> int:
            before = int(site.ask("untouched", cookie)["hops"])
            for _ in range(50):
                assert site.ask(path, cookie)["thread"] == "MainThread"
            return int(site.ask("untouched", cookie)["hops"]) - before

        for path in ("contents", "add/a", "count"):
            hops_of(path)
        with redis_proxy.counting() as counted:
            # Django's own: its signals, and the response that is closed.
            assert {path: hops_of(path) for path in ("contents", "add/a", "count")} == dict.fromkeys(
                ("contents", "add/a", "count"), hops_of("untouched")
            )
        assert counted.connections == 0
        assert sum(map(asks_for_a_session, counted.commands)) >= 150 * 2 - 50


@pytest.mark.parametrize(
    "middleware", [(OURS,), (OURS, *CHAIN), (DJANGOS,)], ids=["ours", "chain", "Django's"]
)
def test_fifty_requests_at_once_lose_no_change(
    store: Store, tmp_path: Path, middleware: tuple[str, ...]
) -> None:
    """Async views, and sync views, which run in threads."""
    with served(store.url, tmp_path, *UVICORN, middleware=middleware) as site:
        cookie = site.begin()
        paths = [
            f"{kind}{what}"
            for number in range(15)
            for kind, what in (("", f"add/a{number}"), ("sync/", f"add/s{number}"))
        ]
        paths += ["count", "sync/count"] * 10
        at_once(*[lambda path=path: site.ask(path, cookie) for path in paths])
        contents = site.ask("contents", cookie)["contents"]
        added = {f"{kind}{number}": 1 for number in range(15) for kind in "as"}
        assert {name: contents[name] for name in added} == added
        assert contents["count"] == 20
        assert site.ask("sync/contents", cookie)["contents"] == contents


def test_visitors_who_go_away_leave_no_reply_for_the_next(redis_store: Store, tmp_path: Path) -> None:
    with served(redis_store.url, tmp_path, *UVICORN) as site:
        cookies = {name: site.begin(f"add/{name}") for name in "abcdefgh"}
        for _ in range(5):
            for name, cookie in cookies.items():
                site.go_away(f"slow/{name}", cookie)
            for _ in range(3):
                for name, cookie in cookies.items():
                    contents = site.ask("contents", cookie)["contents"]
                    assert set(contents) == {name, "last"} and contents["last"] == name


# Threads


def test_our_middleware_calls_no_thread(redis_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("a thread was called")

    async def view(request: HttpRequest) -> HttpResponse:
        session = session_of(request)
        await session.aset("a", 1)
        await session.aapply(increment)
        await session.acycle_key()
        await session.aset_expiry(60)
        return HttpResponse(str(await session.aget("count")))

    async def leave(request: HttpRequest) -> HttpResponse:
        await session_of(request).aflush()
        return HttpResponse("gone")

    async def visit(
        view: Callable[[HttpRequest], Awaitable[HttpResponse]], cookie: str | None
    ) -> HttpResponse:
        request = AsyncRequestFactory().get("/")
        if cookie is not None:
            request.META["HTTP_COOKIE"] = f"sessionid={cookie}"  # as it comes from a server
        response: HttpResponse = await SessionMiddleware(view)(request)
        return response

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", never)
        first = await visit(view, None)
        cookie = first.cookies["sessionid"].value
        second = await visit(view, cookie)
        assert (first.content, second.content) == (b"1", b"2")
        newer = second.cookies["sessionid"].value
        assert newer != cookie
        # What sync code asks on the loop, by a client for threads, calls none either.
        assert SessionStore(newer)["count"] == 2
        assert not await SessionStore().aexists(cookie)
        assert (await visit(leave, newer)).cookies["sessionid"].value == ""
        assert not await SessionStore().aexists(newer)

    with override_settings(
        ELASTICACHE_SESSIONS_URL=redis_store.url,
        **PATIENTLY,
        SESSION_SAVE_EVERY_REQUEST=True,
    ):
        asyncio.run(main())


# The tasks of one request


@pytest.fixture
def site(single_proxy: Proxy) -> Site:  # type: ignore[misc]  # a generator
    with Site(
        "asgi",
        single_proxy.url,
        **PATIENTLY,
    ) as site:
        site.visit(lambda request: request.session.aset("name", "Ada"))
        yield site


def increment(fields: Fields) -> int:
    fields["count"] = fields.get("count", 0) + 1
    return int(fields["count"])


def test_tasks_that_touch_the_session_at_once_load_it_once(site: Site, single_proxy: Proxy) -> None:
    async def view(request: HttpRequest) -> list[object]:
        session = session_of(request)
        return await asyncio.gather(
            *[session.aget("name") for _ in range(10)], session.ahas_key("x"), request.auser()
        )

    with single_proxy.counting() as count:
        *names, has, user = site.ask(view)
    assert names == ["Ada"] * 10 and has is False and not user.is_authenticated
    assert sum(map(asks_for_a_session, count.commands)) == 1


def test_tasks_that_change_the_session_at_once_lose_nothing(site: Site) -> None:
    async def view(request: HttpRequest) -> None:
        session = session_of(request)

        async def put(number: int) -> None:
            for step in range(5):
                await session.aset(f"{number}", step)
                if number % 3 == 0:
                    await session.asave()
                await asyncio.sleep(0)

        counting = [session.aapply(increment) for _ in range(10)]
        await asyncio.gather(*[put(number) for number in range(10)], *counting)

    site.ask(view)
    assert site.contents() == {"name": "Ada", "count": 10} | {str(number): 4 for number in range(10)}


def test_a_change_while_another_task_is_storing_is_not_forgotten(site: Site, single_proxy: Proxy) -> None:
    """It waits for the other's reply, which would be taken for all that there is."""

    async def view(request: HttpRequest) -> None:
        session = session_of(request)
        single_proxy.delay_replies(0.1)
        storing = asyncio.create_task(session.aapply(increment))
        await asyncio.sleep(0.05)
        await session.aset("b", 2)
        single_proxy.delay_replies(0)
        assert await storing == 1

    site.ask(view)
    assert site.contents() == {"name": "Ada", "count": 1, "b": 2}


def test_tasks_that_are_cancelled_leave_no_reply_for_the_next(site: Site, single_proxy: Proxy) -> None:
    async def view(request: HttpRequest) -> None:
        async def own(number: int) -> SessionStore:
            session = SessionStore()
            await session.aset("number", number)
            await session.asave()
            return session

        sessions = [await own(number) for number in range(10)]

        async def use(number: int) -> None:
            while True:
                session = SessionStore(sessions[number].session_key)
                assert await session.aget("number") == number
                await session.aapply(increment)

        single_proxy.delay_replies(0.002)
        for _ in range(10):
            tasks = [asyncio.create_task(use(number)) for number in range(10)]
            await asyncio.sleep(random.uniform(0.001, 0.03))
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError), result
        # The one that is cancelled may be the one whose turn it is.
        shared = SessionStore(sessions[0].session_key)
        single_proxy.hold_replies()
        counting = [asyncio.create_task(shared.aapply(increment)) for _ in range(10)]
        await asyncio.sleep(0.01)
        counting[0].cancel()
        counting[5].cancel()
        await asyncio.sleep(0.01)
        single_proxy.release_replies()
        done = await asyncio.gather(*counting, return_exceptions=True)
        assert [isinstance(result, int) for result in done].count(True) == 8
        for number, session in enumerate(sessions):
            assert await SessionStore(session.session_key).aget("number") == number

    site.ask(view)


def test_a_sync_view_may_ask_on_one_event_loop_after_another(single_proxy: Proxy) -> None:
    """Each `async_to_sync` under WSGI is a loop of its own."""
    from asgiref.sync import async_to_sync

    def view(request: HttpRequest) -> None:
        async def work() -> None:
            await asyncio.gather(*[session_of(request).aapply(increment) for _ in range(5)])

        for _ in range(3):
            async_to_sync(work)()

    with Site(
        "wsgi",
        single_proxy.url,
        **PATIENTLY,
    ) as site:
        site.ask(view)
        assert site.contents() == {"count": 15}


# Who is signed in, asked in both ways


User = Callable[[HttpRequest], Awaitable[str]]


async def on_the_loop(request: HttpRequest) -> str:
    return str(request.user.get_username())


async def natively(request: HttpRequest) -> str:
    return str((await request.auser()).get_username())


ORDERS = pytest.mark.parametrize(
    "order", [(on_the_loop, natively), (natively, on_the_loop)], ids=["user first", "auser first"]
)


async def names(request: HttpRequest, order: tuple[User, ...]) -> list[str]:
    return [await user(request) for user in order]


async def sign_in(request: HttpRequest, user: object) -> None:
    await auth.alogin(request, user, "tests.support.django_pages.Members")  # type: ignore[arg-type]


@ORDERS
def test_the_session_is_read_once_for_both(site: Site, single_proxy: Proxy, order: tuple[User, ...]) -> None:
    assert site.ask(lambda request: names(request, order)) == ["", ""]
    site.ask(lambda request: sign_in(request, ADA))
    with single_proxy.counting() as count:
        assert site.ask(lambda request: names(request, order)) == ["ada", "ada"]
    assert sum(map(asks_for_a_session, count.commands)) == 1


@ORDERS
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_signing_in_and_out_between_them(site: Site, order: tuple[User, ...], kind: str) -> None:
    first, second = order

    async def login(request: HttpRequest, user: object) -> None:
        if kind == "async":
            await sign_in(request, user)
        else:
            auth.login(request, user, "tests.support.django_pages.Members")  # type: ignore[arg-type]

    async def logout(request: HttpRequest) -> None:
        if kind == "async":
            await auth.alogout(request)
        else:
            auth.logout(request)

    async def in_and_look(request: HttpRequest) -> tuple[str, str]:
        before = await first(request)
        await login(request, ADA)
        await request.session.aset("cart", "tea")
        return before, await second(request)

    async def as_another(request: HttpRequest) -> tuple[str, str]:
        before = await first(request)
        await login(request, GRACE)
        return before, await second(request)

    async def out_and_look(request: HttpRequest) -> tuple[str, str]:
        before = await first(request)
        await logout(request)
        # alogout has asked auser, which keeps its answer.
        assert not await request.session.ahas_key(auth.SESSION_KEY)
        return before, await on_the_loop(request)

    anonymous = site.cookie()
    assert site.ask(in_and_look) == ("", "ada")
    ada = site.cookie()
    assert ada != anonymous
    assert site.ask(lambda request: names(request, order)) == ["ada", "ada"]
    assert site.contents()["cart"] == "tea"
    assert site.ask(as_another) == ("ada", "grace")
    assert "cart" not in site.contents()
    assert site.ask(lambda request: names(request, order), site.client(ada)) == ["", ""]
    grace = site.cookie()
    assert site.ask(out_and_look) == ("grace", "")
    assert site.cookie() in (None, "")
    assert site.ask(lambda request: names(request, order), site.client(grace)) == ["", ""]
    assert site.ask(lambda request: names(request, order), site.client(anonymous)) == ["", ""]


# Event loops that end


LOOPS = """
    import asyncio, gc, os, socket, sys
    os.environ |= {"ELASTICACHE_SESSIONS_URL": sys.argv[1], "ELASTICACHE_SESSIONS_TIMEOUT": "10"}
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django_site.served"
    import django; django.setup()
    from asgiref.sync import async_to_sync
    from elasticache_sessions.django import SessionStore
    from elasticache_sessions.django.managers import managers
    most, key = 0, None

    def sockets():
        open_ = 0
        for number in os.listdir("/proc/self/fd"):
            try:
                open_ += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
            except OSError:
                pass
        return open_

    async def work(number):
        global key
        session = SessionStore(key)
        assert await session.aget("number") == (None if key is None else number - 1)
        await session.aset("number", number)
        await session.asave()
        key = session.session_key

    before = sockets()
    for number in range(100):
        asyncio.run(work(number)) if sys.argv[2] == "asyncio.run" else async_to_sync(work)(number)
        most = max(most, sockets() - before)
    gc.collect()
    print(most, sockets() - before, len(managers().asynchronous._clients))
"""


@pytest.mark.parametrize("runner", ["asyncio.run", "async_to_sync"])
def test_a_hundred_event_loops_leave_no_connection(redis_store: Store, runner: str) -> None:
    most, left, clients = map(int, run(LOOPS, redis_store.url, runner).split())
    assert (most, left, clients) == (0, 0, 0)
