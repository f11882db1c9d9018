"""Requests that overlap: one that ends or cycles a session while another still uses it, and contexts that share one."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, copy_current_request_context, session
from werkzeug.test import TestResponse

from elasticache_sessions.exceptions import SessionEnded
from elasticache_sessions.flask import ElastiCacheSessions
from tests.support.flask_apps import Site, clear, log_lines
from tests.support.stores import MemoryStore, Store

Act = Callable[[Site], Any]


@pytest.fixture
def site(store: Store) -> Iterator[Site]:
    with Site(store.url) as site:
        yield site


@pytest.fixture
def memory_site() -> Iterator[Site]:
    with Site(MemoryStore().url) as site:
        yield site


def overlap(
    site: Site, slow: Callable[[Callable[[], object]], object], quick: Callable[[], object]
) -> TestResponse:
    """The answer to a request that runs `slow(pause)`; at the pause, another one runs `quick` from beginning to end.

    Both bring the cookie that `site.browser` has before; afterwards `site.browser` has what the quick one was told, and
    then the slow one, in the order in which their answers come.
    """
    paused, go_on = threading.Event(), threading.Event()
    copy = site.client_with(site.cookie())

    def pause() -> None:
        paused.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(site.visit, lambda: slow(pause) and None, copy)
        assert paused.wait(10)
        try:
            assert site.visit(lambda: quick() and None).status_code == 200
        finally:
            go_on.set()
        return answer.result(10)


# Ended or cycled in between


READERS: dict[str, Act] = {
    "does not touch it": lambda site: None,
    "reads": lambda site: session["name"],
    "reads a list": lambda site: list(session["cart"]),
}


def apply_in_vain(site: Site) -> None:
    with pytest.raises(SessionEnded):
        site.sessions.apply(lambda fields: fields.update(late=1))


WRITERS: dict[str, Act] = {
    "writes": lambda site: session.update(late=1),
    "changes in place": lambda site: session["cart"].append("late"),
    "deletes": lambda site: session.pop("name"),
    "clears": lambda site: clear(),
    "cycles": lambda site: site.sessions.cycle_id(),
    "logs in": lambda site: (session.update(late=1), site.sessions.login("eve")),
    "logs out": lambda site: site.sessions.logout(),
    "logs out and writes": lambda site: (site.sessions.logout(), session.update(late=1)),
    "applies": apply_in_vain,
}
ENDINGS: dict[str, tuple[Act, dict[str, Any] | None]] = {
    "ended": (lambda site: site.sessions.logout(), None),
    "emptied": (lambda site: clear(), None),
    "cycled": (lambda site: site.sessions.cycle_id(), {"name": "Ada", "cart": ["tea"]}),
    "logged in": (
        lambda site: (site.sessions.login("ada"), session.update(name="A")),
        {"name": "A", "cart": ["tea"]},
    ),
    "replaced": (lambda site: (site.sessions.logout(), session.update(name="B")), {"name": "B"}),
}


@pytest.mark.parametrize("permanent", [False, True], ids=["browser-length", "permanent"])
@pytest.mark.parametrize(("end", "left"), ENDINGS.values(), ids=ENDINGS.keys())
@pytest.mark.parametrize("act", READERS.values(), ids=READERS.keys())
def test_a_session_that_ended_after_it_was_read_does_not_come_back(
    memory_site: Site,
    caplog: pytest.LogCaptureFixture,
    act: Act,
    end: Act,
    left: dict[str, Any] | None,
    permanent: bool,
) -> None:
    check_what_ended_stays_ended(memory_site, act, end, left, permanent)
    assert log_lines(caplog) == []


@pytest.mark.parametrize("permanent", [False, True], ids=["browser-length", "permanent"])
@pytest.mark.parametrize(("end", "left"), ENDINGS.values(), ids=ENDINGS.keys())
@pytest.mark.parametrize("act", WRITERS.values(), ids=WRITERS.keys())
def test_a_change_to_a_session_that_ended_meanwhile_is_dropped(
    memory_site: Site,
    caplog: pytest.LogCaptureFixture,
    act: Act,
    end: Act,
    left: dict[str, Any] | None,
    permanent: bool,
) -> None:
    old = check_what_ended_stays_ended(memory_site, act, end, left, permanent)
    if act is apply_in_vain:
        return  # it heard of it itself
    [line] = log_lines(caplog)
    assert old in line


@pytest.mark.parametrize(("end", "left"), ENDINGS.values(), ids=ENDINGS.keys())
@pytest.mark.parametrize(
    "act", [READERS["reads"], WRITERS["writes"], WRITERS["logs in"]], ids=["reads", "writes", "logs in"]
)
def test_no_store_brings_back_what_ended(site: Site, act: Act, end: Act, left: dict[str, Any] | None) -> None:
    check_what_ended_stays_ended(site, act, end, left, permanent=False)


def check_what_ended_stays_ended(
    site: Site, act: Act, end: Act, left: dict[str, Any] | None, permanent: bool
) -> str:
    """Returns the handle of the old session. `left` is what the quick request leaves in the browser's session."""
    site.visit(
        lambda: session.update(name="Ada", cart=["tea"], **({"_permanent": True} if permanent else {}))
    )
    old, handle = site.cookie(), site.handle()

    def slow(pause: Callable[[], object]) -> None:
        if act is not READERS["does not touch it"]:
            session["name"]
        pause()
        act(site)

    response = overlap(site, slow, lambda: end(site))
    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers
    assert site.contents(site.client_with(old)) == {}
    if left is None:
        assert site.cookie() is None
    else:
        assert site.cookie() not in (old, None)
        assert {name: value for name, value in site.contents().items() if name != "_permanent"} == left
    return handle


def test_a_change_before_the_session_was_cycled_moves_along(site: Site) -> None:
    """The other order: what was stored under the old id while the new one was made."""
    site.visit(lambda: session.update(cart=["tea"]))

    def slow(pause: Callable[[], object]) -> None:
        site.sessions.login("ada")
        session["name"] = "Ada"
        pause()

    response = overlap(site, slow, lambda: session.update(coupon=7))
    value = response.headers["Set-Cookie"].removeprefix("session=")[:40]
    assert site.contents(site.client_with(value)) == {"cart": ["tea"], "name": "Ada", "coupon": 7}
    assert site.contents() == {}


def test_two_requests_change_two_fields(site: Site) -> None:
    site.visit(lambda: session.update(cart=["tea"]))
    overlap(site, lambda pause: (session["cart"].append("milk"), pause()), lambda: session.update(name="Ada"))
    assert site.contents() == {"cart": ["tea", "milk"], "name": "Ada"}


def test_counts_made_with_apply_are_exact(site: Site) -> None:
    site.visit(lambda: session.update(visits=0))
    cookie, start = site.cookie(), threading.Barrier(4)

    def count(fields: Any) -> None:
        fields["visits"] += 1

    def visitor() -> None:
        client = site.client_with(cookie)
        start.wait(10)
        for _ in range(10):
            assert site.visit(lambda: site.sessions.apply(count), client).status_code == 200

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(visitor) for _ in range(4)]:
            done.result(30)
    assert site.contents() == {"visits": 40}


# Contexts that share one session object


def test_copied_contexts_load_the_session_once_and_share_it(memory_site: Site) -> None:
    site = memory_site
    site.visit(lambda: session.update(cart=["tea"]))
    start = threading.Barrier(3)

    def linger(question: object) -> None:
        time.sleep(0.1)  # the others come meanwhile

    def view() -> str:
        def put(item: str) -> int:
            start.wait(10)
            session["cart"].append(item)
            return id(session["cart"])

        with ThreadPoolExecutor(2) as pool:
            carts = [pool.submit(copy_current_request_context(put), item) for item in ("milk", "salt")]
            start.wait(10)
            mine = id(session["cart"])
            assert {cart.result(10) for cart in carts} == {mine}
        return "shared"

    site.store.before = linger
    with site.recording() as commands:
        assert site.visit(view).text == "shared"
    site.store.before = lambda command: None
    assert commands == ["touch", "write"]
    assert sorted(site.contents()["cart"]) == ["milk", "salt", "tea"]


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, time
from flask import copy_current_request_context, session
from tests.support.flask_apps import Site

site = Site("memory://greenlets")
site.visit(lambda: session.update(a=1))

def view():
    def read():
        return session["a"]
    readers = [gevent.spawn(copy_current_request_context(read)) for _ in range(5)]
    return str([reader.get(timeout=5) for reader in readers])

site.store.before = lambda command: time.sleep(0.05)
with site.recording() as commands:
    page = site.visit(view).text
print(page, commands)
"""


def test_copied_contexts_of_greenlets_load_the_session_once() -> None:
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", GREENLETS], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout == "[1, 1, 1, 1, 1] ['touch']\n", run.stderr


def test_a_copied_context_that_outlives_the_request_is_told_that_its_change_is_lost(
    memory_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    memory_site.visit(lambda: session.update(a=1))
    answered = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def view() -> None:
            @copy_current_request_context
            def later() -> int:
                assert answered.wait(10)
                session["a"] = 2
                return int(session["a"])

            tasks.append(pool.submit(later))

        tasks: list[Any] = []
        memory_site.visit(view)
        answered.set()
        assert tasks[0].result(10) == 2
    [line] = log_lines(caplog)
    assert "changed after it was saved" in line and memory_site.handle() in line
    assert memory_site.contents() == {"a": 1}


def test_a_log_filter_may_look_at_the_session_while_it_is_read() -> None:
    """Many add the user to each log line; reading a session may log one."""
    store = MemoryStore()
    memory_site = Site(store.url)
    memory_site.visit(lambda: session.update(user="Ada"))
    store.set(store.keys()[0], b"garbage")
    seen: list[object] = []

    class AddUser(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            seen.append(session.get("user"))
            return True

    logger, added = logging.getLogger("elasticache_sessions"), AddUser()
    logger.addFilter(added)
    try:
        visit = threading.Thread(target=memory_site.visit, args=(lambda: session.get("user"),), daemon=True)
        visit.start()
        visit.join(10)
        assert not visit.is_alive()
    finally:
        logger.removeFilter(added)
    assert seen == [None]


def test_signing_in_to_a_session_that_ended_is_an_error(memory_site: Site) -> None:
    memory_site.visit(lambda: session.update(name="Ada"))

    def slow(pause: Callable[[], object]) -> None:
        session["name"]
        pause()
        with suppress(SessionEnded):
            memory_site.sessions.apply(lambda fields: fields.update(a=1))
        with pytest.raises(SessionEnded, match="nobody can be signed in"):
            memory_site.sessions.login("eve")

    overlap(memory_site, slow, memory_site.sessions.logout)


@pytest.mark.parametrize("cycled", [True, False])
def test_a_view_that_leaves_it_so_is_answered_with_409_and_no_cookie(memory_site: Site, cycled: bool) -> None:
    """What the browser has is the faster request's."""
    verbs = memory_site.sessions

    def apply_late() -> None:
        memory_site.visit(verbs.cycle_id if cycled else verbs.logout)
        verbs.apply(lambda fields: fields.update(late=1))

    def visit() -> TestResponse:
        memory_site.visit(lambda: session.update(name="Ada"))
        slower = memory_site.client_with(memory_site.cookie())
        return memory_site.visit(lambda: (session["name"], apply_late()), slower)

    answer = visit()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (409, "no-store")
    assert answer.text == "Your session ended meanwhile. Please try again.\n"
    assert "Set-Cookie" not in answer.headers
    assert memory_site.contents() == ({"name": "Ada"} if cycled else {})


def test_an_app_may_answer_otherwise_to_a_session_that_ended() -> None:
    app = Flask("site")
    app.register_error_handler(SessionEnded, lambda error: ("once more", 418))
    app.config["ELASTICACHE_SESSIONS_URL"] = "memory://"
    ElastiCacheSessions(app)

    @app.get("/")
    def page() -> str:
        raise SessionEnded("it has")

    assert app.test_client().get("/").status_code == 418
