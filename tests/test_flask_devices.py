"""A user's sessions in Flask: the list, signing out one or all, limits, and who signed in just now."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask, flash, session
from flask.testing import FlaskClient

from elasticache_sessions import SessionInfo, StoreUnavailable, TooManySessions
from elasticache_sessions.clients.base import Write
from elasticache_sessions.flask import FlaskSession
from elasticache_sessions.flask_signals import session_ended
from elasticache_sessions.session import index_name
from tests.support.flask_apps import Site, log_lines
from tests.support.stores import MemoryStore, Store

PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/26.0 Safari/604.1"
)
REFUSING = {"ELASTICACHE_SESSIONS_ON_LIMIT": "refuse", "ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER": 2}


@pytest.fixture(params=["memory", "valkey-9.1", "memcached"])
def store(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Store:
    """What differs between the others is the core's, and tested there."""
    return give_store(request.param)


@pytest.fixture
def site(store: Store) -> Iterator[Site]:
    with Site(store.url, ELASTICACHE_SESSIONS_IDLE_TIMEOUT=3600) as site:
        yield site


@pytest.fixture
def memory_site() -> Iterator[Site]:
    with Site(MemoryStore().url) as site:
        yield site


@pytest.fixture
def refusing() -> Iterator[Site]:
    """Two sessions of a user are enough."""
    with Site(MemoryStore().url, **REFUSING) as site:
        yield site


def sign_in(site: Site, user: str = "ada", **headers: str) -> FlaskClient:
    """A browser of that user's."""
    client = site.client_with(None)
    site.visit(lambda: (site.sessions.login(user), session.update(user=user)), client, headers=headers)
    return client


def user_of(site: Site, client: FlaskClient) -> Any:
    return site.ask(lambda: session.get("user"), client)


def handle_in(site: Site, client: FlaskClient) -> str:
    handle = site.ask(lambda: ours().handle, client)
    assert isinstance(handle, str)
    return handle


def ours() -> FlaskSession:
    this = session._get_current_object()  # type: ignore[attr-defined]  # werkzeug's LocalProxy
    assert isinstance(this, FlaskSession)
    return this


def list_in(site: Site, client: FlaskClient | None = None, user: str = "ada") -> list[SessionInfo]:
    found: list[SessionInfo] = site.ask(lambda: site.sessions.for_user(user), client)
    return found


# The list


def test_the_list_says_what_a_person_understands_and_begins_with_the_one_that_asks(site: Site) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    here = sign_in(site)
    phone = sign_in(site, User_Agent=PHONE)
    sign_in(site, user="grace")
    first, second = list_in(site, here)
    assert (first.current, second.current) == (True, False)
    assert (first.handle, second.handle) == (handle_in(site, here), handle_in(site, phone))
    assert (second.device, second.ip) == ("Safari on iPhone", "127.0.0.1")
    assert began <= second.created_at <= datetime.now(UTC)
    assert second.last_seen is not None
    assert abs(second.last_seen - datetime.now(UTC)) < timedelta(seconds=90)


def test_outside_of_requests_the_verbs_work_and_none_is_the_current_one(memory_site: Site) -> None:
    site = memory_site
    ada, grace = sign_in(site), sign_in(site, user="grace")
    with site.app.app_context():
        assert site.sessions.for_user("nobody") == []
        (only,) = site.sessions.for_user("ada")
        assert not only.current
        assert site.sessions.end("ada", only.handle)
        assert site.sessions.end_all("grace", keep_current=True) == 1
    assert [user_of(site, client) for client in (ada, grace)] == [None, None]


@pytest.mark.parametrize("nobody", [None, ""])
def test_nobody_has_no_sessions_to_list_or_end(memory_site: Site, nobody: object) -> None:
    sessions = memory_site.sessions
    with memory_site.app.test_request_context():
        for ask in (sessions.for_user, sessions.end_all, lambda user: sessions.end(user, "x")):
            with pytest.raises(ValueError, match="id of the user"):
                ask(nobody)


# Ending one


def test_a_device_that_is_signed_out_elsewhere_is_so_at_its_very_next_request(site: Site) -> None:
    here, there, grace = sign_in(site), sign_in(site), sign_in(site, user="grace")
    handle = handle_in(site, there)
    assert site.ask(lambda: site.sessions.end("ada", handle_in(site, grace)), here) is False
    assert site.ask(lambda: site.sessions.end("ada", "no handle"), here) is False
    assert site.ask(lambda: site.sessions.end("grace", handle_in(site, here)), here) is False
    assert site.ask(lambda: site.sessions.end("ada", handle), here) is True
    assert site.ask(lambda: site.sessions.end("ada", handle), here) is False
    assert [user_of(site, client) for client in (here, there, grace)] == ["ada", None, "grace"]
    assert [info.current for info in list_in(site, here)] == [True]


def test_a_request_that_is_under_way_cannot_bring_the_device_back(site: Site) -> None:
    here, there = sign_in(site), sign_in(site)
    handle = handle_in(site, there)

    def late() -> None:
        session["late"] = True
        site.ask(lambda: site.sessions.end("ada", handle), here)

    assert site.visit(late, there).status_code == 200
    assert site.contents(there) == {}


# Ending all


def test_all_others_are_signed_out_and_this_one_stays(site: Site) -> None:
    here, *others = [sign_in(site) for _ in range(3)]
    grace = sign_in(site, user="grace")
    cookie = site.cookie(here)
    assert site.ask(lambda: site.sessions.end_all("ada"), here) == 2
    assert [user_of(site, client) for client in (here, *others, grace)] == ["ada", None, None, "grace"]
    assert site.cookie(here) == cookie
    assert site.ask(lambda: site.sessions.end_all("ada"), here) == 0


@pytest.mark.parametrize("verb", ["end", "end_all"])
def test_whoever_ends_the_session_they_have_goes_on_with_a_new_one(memory_site: Site, verb: str) -> None:
    site = memory_site
    here, there = sign_in(site), sign_in(site)
    handle, copy = handle_in(site, here), site.client_with(site.cookie(here))

    def leave() -> int:
        if verb == "end":
            return site.sessions.end("ada", handle)
        return site.sessions.end_all("ada", keep_current=False)

    def leave_and_say_so() -> int:
        ended = leave()
        assert dict(session) == {}
        flash("goodbye")
        return ended

    assert site.ask(leave_and_say_so, here) == (1 if verb == "end" else 2)
    assert site.contents(here) == {"_flashes": [("message", "goodbye")]}
    assert user_of(site, copy) is None
    assert user_of(site, there) == ("ada" if verb == "end" else None)

    here = sign_in(site)
    handle = handle_in(site, here)
    site.ask(leave, here)
    assert site.cookie(here) is None


def test_whoever_signs_out_somebody_else_stays_signed_in(memory_site: Site) -> None:
    site = memory_site
    ada, admin = sign_in(site), sign_in(site, user="admin")
    assert site.ask(lambda: site.sessions.end_all("ada", keep_current=False), admin) == 1
    assert [user_of(site, client) for client in (ada, admin)] == [None, "admin"]


def test_the_app_may_say_why_it_ends_them(memory_site: Site) -> None:
    site, reasons = memory_site, []

    def ended(_app: Flask, reason: str, **_: object) -> None:
        reasons.append(reason)

    here, _there = sign_in(site), sign_in(site)
    with session_ended.connected_to(ended, site.app):
        assert site.ask(lambda: site.sessions.end_all("ada", reason="stolen"), here) == 1
        with site.app.app_context():
            assert site.sessions.end_all("ada", reason="left the company") == 1
    assert reasons == ["stolen", "left the company"]


def test_who_has_just_signed_in_or_out_can_end_the_others(memory_site: Site) -> None:
    """A password that was reset, say: in, and the others out."""
    site = memory_site
    there, here = sign_in(site), site.client_with(None)
    site.visit(lambda: session.update(cart=["tea"]), here)
    arrive: Callable[[], Any] = lambda: (site.sessions.login("ada"), site.sessions.end_all("ada"))  # noqa: E731
    assert site.ask(arrive, here)[1] == 1
    assert user_of(site, there) is None
    assert site.contents(here) == {"cart": ["tea"]}
    assert [info.current for info in list_in(site, here)] == [True]

    there = sign_in(site)
    leave: Callable[[], Any] = lambda: (site.sessions.logout(), site.sessions.end_all("ada"), flash("bye"))  # noqa: E731
    assert site.ask(leave, here)[1] == 1
    assert user_of(site, there) is None
    assert site.contents(here) == {"_flashes": [("message", "bye")]}
    assert list_in(site, here) == []

    there, here = sign_in(site), sign_in(site)
    leave_too: Callable[[], Any] = lambda: (  # noqa: E731
        site.sessions.logout(),
        flash("bye"),
        site.sessions.end_all("ada", keep_current=False),
    )
    assert site.ask(leave_too, here)[2] == 1
    assert user_of(site, there) is None
    assert site.contents(here) == {"_flashes": [("message", "bye")]}

    there, here = sign_in(site), sign_in(site)
    copy = site.client_with(site.cookie(here))

    def leaves_where_somebody_was_faster() -> int:
        session.get("user")
        site.visit(site.sessions.logout, copy)
        ended: int = leave()[1]
        return ended

    assert site.ask(leaves_where_somebody_was_faster, here) == 1
    assert user_of(site, there) is None


# Limits


def test_one_sign_in_too_many_is_refused_in_the_view_and_changes_nothing(refusing: Site) -> None:
    sessions = refusing.sessions
    first, second = sign_in(refusing), sign_in(refusing)
    third = refusing.client_with(None)
    refusing.visit(lambda: session.update(cart=["tea"]), third)
    cookie = refusing.cookie(third)

    def refused() -> str:
        with pytest.raises(TooManySessions):
            sessions.login("ada")
        return f"as before: {dict(session)}"

    assert refusing.visit(refused, third).text == "as before: {'cart': ['tea']}"
    assert refusing.cookie(third) == cookie
    assert refusing.contents(third) == {"cart": ["tea"]}
    assert len(list_in(refusing, first)) == 2

    refusing.ask(lambda: sessions.end("ada", handle_in(refusing, second)), first)
    refusing.visit(lambda: (sessions.login("ada"), session.update(user="ada")), third)
    assert refusing.cookie(third) not in (None, cookie)
    assert refusing.contents(third) == {"cart": ["tea"], "user": "ada"}


def test_nobody_needs_to_handle_a_refusal_and_anybody_may(refusing: Site) -> None:
    for _ in range(2):
        sign_in(refusing)
    answer = refusing.visit(lambda: refusing.sessions.login("ada"))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (403, "no-store")
    assert "too many devices" in answer.text

    with Site(MemoryStore().url, **REFUSING) as other:
        other.app.register_error_handler(TooManySessions, lambda error: ("choose one", 409))
        for _ in range(2):
            sign_in(other)
        assert other.visit(lambda: other.sessions.login("ada")).status_code == 409


def test_who_signs_in_twice_in_one_request_pays_once(refusing: Site) -> None:
    login = refusing.sessions.login
    with refusing.recording() as once:
        refusing.visit(lambda: login("ada"), refusing.client_with(None))
    with refusing.recording() as twice:
        refusing.visit(lambda: (login("ada"), login("ada")), refusing.client_with(None))
    assert once == twice
    assert len(list_in(refusing)) == 2


@pytest.mark.parametrize("mode", ["error", "anonymous"])
def test_a_store_that_fails_after_the_sign_in_loses_nobody(mode: str) -> None:
    """The old id is dead by then, so the browser gets the new one with the 503."""
    with Site(MemoryStore().url, **REFUSING, ELASTICACHE_SESSIONS_ON_OUTAGE=mode) as site:
        site.visit(lambda: session.update(cart=["tea"]))
        old = site.cookie()

        def signs_in_before_the_outage() -> None:
            site.sessions.login("ada")
            site.store.before = fail
            session["user"] = "ada"

        assert site.visit(signs_in_before_the_outage).status_code == 503
        site.store.before = lambda _: None
        assert site.cookie() not in (None, old)
        assert site.contents() == {"cart": ["tea"]}


def test_the_oldest_gives_way_where_nobody_is_refused() -> None:
    with Site(MemoryStore().url, ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER=2) as site:
        clients = []
        for ahead in (0, 10, 20):
            turn_clock(site, ahead)
            clients.append(sign_in(site))
        assert [user_of(site, client) for client in clients] == [None, "ada", "ada"]


# Who signed in just now


def turn_clock(site: Site, seconds: float) -> None:
    site.manager.rules = replace(site.manager.rules, clock=lambda: time.time() + seconds)


def test_a_sign_in_is_fresh_for_as_long_as_asked(memory_site: Site) -> None:
    site = memory_site

    def fresh() -> bool:
        return ours().fresh(300)

    here = sign_in(site)
    assert site.ask(fresh, here) is True
    turn_clock(site, -30)  # another instance
    assert site.ask(fresh, here) is True
    turn_clock(site, 310)
    assert site.ask(fresh, here) is False
    site.visit(site.sessions.cycle_id, here)
    assert site.ask(fresh, here) is False
    assert site.ask(lambda: (site.sessions.login("ada"), fresh())[1], here) is True
    assert site.ask(fresh, here) is True
    assert site.ask(lambda: (site.sessions.logout(), fresh())[1], here) is False
    assert site.ask(fresh, here) is False


def test_nobody_is_fresh_whom_flask_login_does_not_take_for_fresh(memory_site: Site) -> None:
    here = sign_in(memory_site)
    memory_site.visit(lambda: session.update(_fresh=False), here)
    assert memory_site.ask(lambda: ours().fresh(300), here) is False


# Failures


def fail(_question: object) -> None:
    raise StoreUnavailable("down")


@pytest.mark.parametrize("mode", ["error", "anonymous"])
@pytest.mark.parametrize("verb", ["for_user", "end", "end_all"])
@pytest.mark.parametrize("known", [True, False], ids=["read", "not read"])
def test_in_an_outage_nobody_is_told_that_devices_were_signed_out(mode: str, verb: str, known: bool) -> None:
    with Site(MemoryStore().url, ELASTICACHE_SESSIONS_ON_OUTAGE=mode) as site:
        here = sign_in(site)
        arguments = ["ada", "x" * 43] if verb == "end" else ["ada"]
        ask: Callable[[], object] = lambda: getattr(site.sessions, verb)(*arguments)  # noqa: E731

        def unhandled() -> None:
            if known:
                session.get("user")
            site.store.before = fail
            ask()

        def careless() -> str:
            with suppress(StoreUnavailable):
                unhandled()
            return "You are signed out everywhere else."

        for view in (unhandled, careless) if verb != "for_user" else (unhandled,):
            answer = site.visit(view, here)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            site.store.before = lambda _: None
        assert user_of(site, here) == "ada"


def test_without_knowing_who_asks_no_list_is_given() -> None:
    """It would not say which of them is this device."""
    with Site(MemoryStore().url, ELASTICACHE_SESSIONS_ON_OUTAGE="anonymous") as site:
        here = sign_in(site)

        def fails_once() -> None:
            site.store.before = fail
            assert ours().unavailable
            site.store.before = lambda _: None
            site.sessions.for_user("ada")

        assert site.visit(fails_once, here).status_code == 503


def test_who_wants_to_leave_everywhere_stays_where_that_fails(memory_site: Site) -> None:
    """To ask again."""
    site = memory_site
    here, there = sign_in(site), sign_in(site)

    def fails_at_a_write(question: object) -> None:
        if isinstance(question, Write):
            fail(question)

    site.store.before = fails_at_a_write
    leave: Callable[[], Any] = lambda: site.sessions.end_all("ada", keep_current=False)  # noqa: E731
    assert site.visit(leave, here).status_code == 503
    site.store.before = lambda _: None
    assert [user_of(site, client) for client in (here, there)] == ["ada", None]
    assert site.ask(leave, here) == 1


def test_a_list_that_memcached_lost_is_a_503_that_says_nothing_of_it_and_a_log_line_that_does(
    give_store: Callable[[str], Store], caplog: pytest.LogCaptureFixture
) -> None:
    store = give_store("memcached")
    with Site(store.url) as site:
        here = sign_in(site)
        name = index_name(site.manager.rules.owner_hash("ada"))
        for verb in (site.sessions.for_user, site.sessions.end_all):
            lose(store, name)
            answer = site.visit(lambda: verb("ada"), here)
            assert (answer.status_code, answer.headers["Cache-Control"]) == (503, "no-store")
            assert "list of your devices" in answer.text
        assert any("lost the list" in line for line in log_lines(caplog))


def lose(store: Store, name: str) -> None:
    """As a cache does that has no room."""
    assert store.raw("delete", f"sess:{name}") == b"DELETED"
