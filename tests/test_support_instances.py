"""The instances of the tests: one view for every framework, and nothing that blocks an event loop unnoticed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.support.instances import Visit, instances
from tests.support.load import at_once
from tests.support.loops import LoopThread, wait, waiting
from tests.support.stores import MemoryStore


def test_a_view_does_the_same_under_each(framework: str) -> None:
    def view(visit: Visit) -> object:
        visit["b"] = visit.setdefault("a", 1) + 1
        visit.update({"c": 3}, d=4)
        del visit["a"]
        with pytest.raises(KeyError):
            visit["a"]
        return "a" in visit, "b" in visit, visit.pop("c"), visit.pop("c", None), visit.get("d"), visit.keys()

    with instances(framework, MemoryStore().url) as (shop,):
        answer = shop.ask(view)
        assert (answer.code, answer.result) == (200, (False, True, 3, None, 4, ["b", "d"]))
        assert shop.ask(dict, answer.session_id).result == {"b": 2, "d": 4}
        assert shop.commands == ["write", "read"]
        assert shop.ask(lambda visit: visit["none"]).code == 500


def test_a_request_may_make_another(framework: str) -> None:
    with instances(framework, MemoryStore().url, MemoryStore().url) as (here, there):
        for shop in (here, there):
            answer = here.ask(lambda visit: shop.ask(lambda visit: visit.update(a=1)).session_id)
            assert shop.ask(dict, answer.result).result == {"a": 1}


def test_requests_of_one_instance_run_at_the_same_time(framework: str) -> None:
    with instances(framework, MemoryStore().url) as (shop,):
        together = threading.Barrier(4)
        ask = lambda: shop.ask(lambda visit: visit.meanwhile(lambda: together.wait(10))).code  # noqa: E731 - a job
        assert at_once(*[ask] * 4) == [200] * 4


def test_a_view_that_makes_an_event_loop_wait_is_noticed() -> None:
    with instances("django-asgi", MemoryStore().url) as (shop,):
        cookie = shop.ask(lambda visit: visit.update(a=1)).session_id
        answer = shop.ask(lambda visit: visit.raw.get("a"), cookie)
        assert answer.code == 500
        assert [str(error) for error in answer.errors] == ["an event loop was made to wait for the store"]


def test_a_function_that_waits_hears_what_the_coroutine_raised() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    def function() -> str:
        with pytest.raises(ValueError, match="no"):
            wait(fail())
        return "went on"

    loop = LoopThread()
    try:
        assert loop.run(waiting(function)) == "went on"
        with pytest.raises(ValueError, match="no"):
            loop.run(waiting(lambda: wait(fail())))
    finally:
        loop.close()
