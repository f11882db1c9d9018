"""What an outage costs the site: next to no time once the store is left alone, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from elasticache_sessions import StoreUnavailable
from elasticache_sessions.clients.breaker import FAILURES, FIRST_PAUSE
from tests.support.demo import wait_until
from tests.support.instances import Answer, Instance, Visit, instances
from tests.support.load import PATIENT, at_once
from tests.support.proxy import Proxy
from tests.support.stores import Store

TIMEOUT = 0.2
THREADS = 8


def read(visit: Visit) -> object:
    return visit.get("user")


def seconds_waited(visit: Visit) -> object:
    """Reads the session; the error, if it is one, is swallowed."""
    with suppress(StoreUnavailable):
        visit.get("user")
    return visit.raw.store_seconds


def signed_in(site: Instance) -> str:
    answer = site.ask(lambda visit: visit.update(user="Ada"))
    for _ in range(100):
        if answer.code == 200 and answer.cookie:
            return answer.cookie
        answer = site.ask(lambda visit: visit.update(user="Ada"))  # a busy machine may have been too slow
    raise AssertionError(f"no session: {answer}")


@pytest.mark.parametrize("name", ["valkey-9.1", "memcached"])
@pytest.mark.parametrize("mode", ["error", "anonymous"])
def test_a_thousand_requests_to_a_hung_store_wait_less_than_two_seconds_together(
    framework: str, name: str, mode: str, give_store: Callable[[str], Store]
) -> None:
    store = give_store(name)
    with (
        Proxy(*store.ports, dialect=store.dialect) as proxy,
        instances(framework, proxy.url, timeout=TIMEOUT, connect_timeout=TIMEOUT, on_outage=mode) as (site,),
    ):
        cookie = signed_in(site)
        proxy.hold_replies()
        for _ in range(FAILURES):
            site.ask(read, cookie)
        began = time.monotonic()
        with proxy.counting() as count:
            waited = [site.ask(seconds_waited, cookie).result for _ in range(1_000)]
        pauses = (time.monotonic() - began) / (0.75 * FIRST_PAUSE)  # as many as there can have been
        assert all(isinstance(seconds, float) for seconds in waited)
        # Where the store was asked, it was for one request at a time, to see whether it is back.
        tried = [seconds for seconds in waited if seconds >= TIMEOUT / 2]
        assert len(tried) <= pauses + 3
        assert len(count.commands) + count.connections <= 4 * (pauses + 3)
        assert sum(waited) - sum(tried) < 2.0
        proxy.heal()
        wait_until(lambda: site.ask(read, cookie).result == "Ada", PATIENT, "the store is asked again")


def test_a_page_without_a_session_never_notices(framework: str, single_store: Store) -> None:
    with (
        Proxy(*single_store.ports) as proxy,
        instances(framework, proxy.url, timeout=TIMEOUT, connect_timeout=TIMEOUT) as (site,),
    ):
        cookie = signed_in(site)
        proxy.hold_replies()
        with proxy.counting() as count:
            answers = [site.ask(lambda visit: "page", cookie) for _ in range(50)]
        assert {(answer.code, answer.result) for answer in answers} == {(200, "page")}
        assert (count.commands, count.connections) == ([], 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "name"),
    [
        ("flask", "valkey-9.1"),
        ("django-wsgi", "memcached-3"),
        ("django-asgi", "cluster"),
        ("django-asgi", "memcached"),
    ],
)
def test_ten_outages_in_ten_thousand_requests_leave_nothing_behind(
    framework: str, name: str, give_store: Callable[[str], Store]
) -> None:
    """Threads and tasks: as many as after the first outage; and connections, as many as are needed."""
    store = give_store(name)
    with (
        Proxy(*store.ports, dialect=store.dialect) as proxy,
        instances(framework, proxy.url, timeout=TIMEOUT, connect_timeout=TIMEOUT, on_outage="anonymous") as (
            site,
        ),
    ):
        cookie = signed_in(site)
        outages: list[Callable[[], None]] = [
            proxy.go_down,
            proxy.hold_replies,
            lambda: proxy.drip_replies(0.02),
        ]
        codes: Counter[int] = Counter()
        missed: list[int] = []
        left: list[tuple[int, int, int]] = []

        def ask(times: int) -> int:
            """Has THREADS do it at once. How many requests found the store unavailable."""

            def some() -> list[Answer]:
                return [site.ask(is_unavailable, cookie) for _ in range(times // THREADS)]

            answers = [answer for each in at_once(*[some] * THREADS) for answer in each]
            codes.update(answer.code for answer in answers)
            return sum(answer.result is True for answer in answers)

        for number in range(10):
            outages[number % len(outages)]()
            missed.append(ask(600))
            proxy.heal()
            wait_until(lambda: site.ask(read, cookie).result == "Ada", PATIENT, "the store is back")
            ask(400 - THREADS)
            proxy.delay_replies(TIMEOUT / 4)  # so that each thread needs a connection of its own
            ask(THREADS)
            proxy.heal()
            left.append(settled(proxy))
        print(f"{framework} on {name}: {codes.total()} requests, {missed} without the store")
        print(f"threads, tasks, connections: {left}")
        assert set(codes) == {200} and codes.total() == 10_000
        assert all(missed), missed
        for kind, slack in enumerate((1, 0)):
            assert max(each[kind] for each in left[1:]) <= left[0][kind] + slack, left
        # The one node has each thread's; and each node one that made the session, or learns a cluster's slots.
        assert max(connections for *_, connections in left) <= THREADS + 1 + len(store.ports), left


def is_unavailable(visit: Visit) -> bool:
    visit.get("user")
    return bool(visit.raw.unavailable)


def settled(proxy: Proxy) -> tuple[int, int, int]:
    """Our threads (the proxy has one for each connection), tasks, and connections, once what is on its way has ended."""

    def ours() -> set[threading.Thread]:
        return set(threading.enumerate()) - {link.thread for link in list(proxy.links)}

    wait_until(
        lambda: all(thread.name != "renews-slots" for thread in ours()), PATIENT, "the slots are renewed"
    )
    gc.collect()
    found = (-1, -1, -1)

    def is_still() -> bool:
        nonlocal found
        before, found = found, (len(ours()), tasks(), proxy.open_connections)
        return before == found

    wait_until(is_still, PATIENT, "it settles")
    return found


def tasks() -> int:
    # By its type: to ask a lazy object of Django's what it is has it look.
    return sum(type(each) is asyncio.Task and not each.done() for each in gc.get_objects())
