"""What an outage costs the site: next to no time once the store is left alone, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from elasticache_sessions import StoreUnavailable
from elasticache_sessions.clients.breaker import FAILURES
from tests.support.demo import wait_until
from tests.support.instances import Instance, Visit, instances
from tests.support.load import PATIENT
from tests.support.proxy import Proxy
from tests.support.stores import Store

TIMEOUT = 0.2


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
        with proxy.counting() as count:
            waited = [site.ask(seconds_waited, cookie).result for _ in range(1_000)]
        answered = [seconds for seconds in waited if isinstance(seconds, float)]
        assert sum(answered) < 2.0
        # Where the store was asked, it was for one request at a time, to see whether it is back.
        assert len(count.commands) + count.connections < 40
        assert sum(seconds < TIMEOUT / 2 for seconds in answered) > 900
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
    """Threads, tasks and connections: as many as after the first outage."""
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
            proxy.close_connections,
            lambda: proxy.drip_replies(0.02),
        ]
        codes: Counter[int] = Counter()
        left: list[tuple[int, int, int]] = []
        for number in range(10):
            outages[number % len(outages)]()
            codes.update(site.ask(read, cookie).code for _ in range(600))
            proxy.heal()
            wait_until(lambda: site.ask(read, cookie).result == "Ada", PATIENT, "the store is back")
            codes.update(site.ask(read, cookie).code for _ in range(400))
            left.append(settled(proxy))
        print(f"{framework} on {name}: {codes.total()} requests; threads, tasks, connections: {left}")
        assert set(codes) == {200} and codes.total() == 10_000
        # A node's connections may be one more or less: whoever learns a cluster's slots has its own.
        for kind, slack in enumerate((1, 0, 1 + len(store.ports))):
            assert max(each[kind] for each in left[1:]) <= left[0][kind] + slack, left


def settled(proxy: Proxy) -> tuple[int, int, int]:
    """Our threads (the proxy has one for each connection), tasks, and connections, once what is on its way has ended."""

    def ours() -> int:
        proxys = {link.thread for link in list(proxy.links)}
        return sum(thread.name != "renews-slots" for thread in set(threading.enumerate()) - proxys)

    gc.collect()
    found = (-1, -1, -1)

    def is_still() -> bool:
        nonlocal found
        before, found = found, (ours(), tasks(), proxy.open_connections)
        return before == found

    wait_until(is_still, PATIENT, "it settles")
    return found


def tasks() -> int:
    # By its type: to ask a lazy object of Django's what it is has it look.
    return sum(type(each) is asyncio.Task and not each.done() for each in gc.get_objects())
