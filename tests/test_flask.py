"""Flask's session contract: what a view may do with `session`, and what the response says about it."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Response, flash, get_flashed_messages, request, session
from flask.sessions import SessionMixin
from markupsafe import Markup

from tests.support.flask_apps import Site, clear, errors_of_the_app
from tests.support.proxy import Proxy
from tests.support.stores import MemoryStore, Store


@pytest.fixture
def site(store: Store) -> Iterator[Site]:
    with Site(store.url) as site:
        yield site


@pytest.fixture
def memory_site() -> Iterator[Site]:
    with Site(MemoryStore().url) as site:
        yield site


def test_what_one_request_stores_the_next_one_reads(site: Site) -> None:
    values = {
        "tuple": (1, 2, [3]),
        "bytes": b"\xff",
        "markup": Markup("<b>"),
        "uuid": uuid.uuid4(),
        "datetime": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "looks like a type tag": {" t": "not a tuple"},
        "none": None,
    }
    site.visit(lambda: session.update(values))
    assert site.contents() == values
    assert {name: type(value) for name, value in site.contents().items()} == {
        name: type(value) for name, value in values.items()
    }


def test_each_browser_has_a_session_of_its_own(site: Site, store: Store) -> None:
    other = site.client_with(None)
    site.visit(lambda: session.update(name="Ada"))
    site.visit(lambda: session.update(name="Grace"), other)
    assert (site.contents(), site.contents(other)) == ({"name": "Ada"}, {"name": "Grace"})
    assert len(store.keys()) == 2


def test_an_app_needs_no_secret_key(memory_site: Site) -> None:
    assert memory_site.app.secret_key is None
    memory_site.visit(lambda: session.update(a=1))
    assert memory_site.contents() == {"a": 1}


def test_a_view_that_does_not_touch_the_session_costs_nothing_and_says_nothing(site: Site) -> None:
    site.visit(lambda: session.update(a=1))
    for client in (site.browser, site.client_with(None)):
        with site.recording() as commands:
            response = site.visit(client=client)
            assert site.browser.get("/no such page").status_code == 404
            assert site.browser.options("/").status_code == 200
        assert (response.status_code, commands) == (200, [])
        assert "Vary" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_a_read_without_a_cookie_costs_nothing(memory_site: Site) -> None:
    with memory_site.recording() as commands:
        assert memory_site.contents() == {}
    assert commands == []


def test_an_empty_session_that_was_not_changed_sets_no_cookie(site: Site, store: Store) -> None:
    response = site.visit(lambda: session.get("a"))
    assert "Set-Cookie" not in response.headers
    assert response.headers["Vary"] == "Cookie"
    assert store.keys() == []


@pytest.mark.parametrize("empty", [clear, lambda: session.pop("a"), lambda: session.popitem()[0]])
def test_an_emptied_session_ends_and_its_cookie_is_deleted(site: Site, empty: Callable[[], object]) -> None:
    site.visit(lambda: session.update(a=1))
    old = site.cookie()
    response = site.visit(empty)
    assert response.headers.getlist("Set-Cookie")[0].startswith("session=; Expires=Thu, 01 Jan 1970")
    assert response.headers["Vary"] == "Cookie"
    assert site.cookie() is None
    assert site.contents(site.client_with(old)) == {}


def test_a_session_is_new_until_it_is_stored(site: Site) -> None:
    assert site.ask(lambda: (session.new, session.update(a=1), session.new)) == (True, None, True)
    assert site.ask(lambda: session.new) is False


CHANGES: dict[str, Callable[[], object]] = {
    "assign": lambda: session.update(a=2),
    "delete": lambda: session.pop("list"),
    "in place": lambda: session["list"].append(1),
    "deep in place": lambda: session["dict"]["deep"].append(1),
    "clear": clear,
    "setdefault": lambda: session.setdefault("new", []),
    "by hand": lambda: setattr(session, "modified", True),
    "permanent": lambda: setattr(session, "permanent", True),
}
READS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "value": lambda: session["a"],
    "mutable": lambda: session["list"],
    "everything": lambda: dict(session),
    "in": lambda: "a" in session,
    "permanent": lambda: session.permanent,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_makes_the_session_modified_and_is_stored(
    memory_site: Site, change: Callable[[], object]
) -> None:
    memory_site.visit(lambda: session.update(a=1, list=[], dict={"deep": []}))
    with memory_site.recording() as commands:
        before, _, after = memory_site.ask(lambda: (session.modified, change(), session.modified))
    assert (before, after) == (False, True)
    assert commands == ["touch", "write"]


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_read_leaves_the_session_unmodified_and_writes_nothing(
    memory_site: Site, read: Callable[[], object]
) -> None:
    memory_site.visit(lambda: session.update(a=1, list=[], dict={"deep": []}))
    with memory_site.recording() as commands:
        assert memory_site.ask(lambda: (read(), session.modified))[1] is False
    assert "write" not in commands


def test_permanent_is_kept_and_can_be_taken_back(site: Site) -> None:
    assert site.ask(lambda: session.permanent) is False
    site.visit(lambda: setattr(session, "permanent", True))
    assert site.ask(lambda: session.permanent) is True
    assert site.contents() == {"_permanent": True}
    site.visit(lambda: setattr(session, "permanent", False))
    assert site.ask(lambda: session.permanent) is False


def test_saying_in_every_request_that_a_session_is_permanent_writes_nothing(memory_site: Site) -> None:
    """Many apps do, in a before_request function."""
    memory_site.visit(lambda: setattr(session, "permanent", True))
    with memory_site.recording() as commands:
        memory_site.visit(lambda: setattr(session, "permanent", True))
    assert "write" not in commands


ACCESSES: dict[str, Callable[[Any], object]] = {
    "in": lambda opened: "a" in opened,
    "len": len,
    "iteration": lambda opened: list(iter(opened)),
    "reversed": lambda opened: next(reversed(opened)),
    "getitem": lambda opened: opened["a"],
    "get": lambda opened: opened.get("none"),
    "keys": lambda opened: opened.keys(),
    "items": lambda opened: opened.items(),
    "bool": bool,
    "equality": lambda opened: opened == {},
    "copy": lambda opened: opened.copy(),
    "|": lambda opened: opened | {},
    "permanent": lambda opened: opened.permanent,
    "new": lambda opened: opened.new,
}


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES.keys())
def test_every_way_to_read_varies_by_cookie(
    memory_site: Site, access: Callable[[SessionMixin], object]
) -> None:
    """Past `flask.session`, which notices for us since Flask 3.1.3 (GHSA-68rp-wp8r-4726)."""
    memory_site.visit(lambda: session.update(a=1))
    app, interface = memory_site.app, memory_site.app.session_interface
    with app.test_request_context(headers={"Cookie": f"session={memory_site.cookie()}"}):
        opened = interface.open_session(app, request)
        assert opened is not None
        before = opened.accessed
        access(opened)
        assert (before, opened.accessed) == (False, True)
        response = Response()
        interface.save_session(app, opened, response)
    assert response.headers.getlist("Vary") == ["Cookie"]


def test_vary_is_added_to_the_apps_own(memory_site: Site) -> None:
    response = memory_site.visit(lambda: session.get("a") or Response(headers={"Vary": "Accept-Language"}))
    assert response.headers.getlist("Vary") == ["Accept-Language, Cookie"]


def test_an_after_request_function_may_use_the_session(site: Site) -> None:
    @site.app.after_request
    def count(response: Response) -> Response:
        session["count"] = session.get("count", 0) + 1
        return response

    site.visit()
    site.visit()
    assert site.contents() == {"count": 2}


def test_a_session_changed_before_an_error_is_stored(memory_site: Site) -> None:
    def fail() -> None:
        session["a"] = 1
        raise ZeroDivisionError

    assert memory_site.visit(fail).status_code == 500
    assert memory_site.contents() == {"a": 1}


def test_a_session_transaction_opens_and_saves(site: Site) -> None:
    with site.browser.session_transaction() as opened:
        assert (dict(opened), opened.new) == ({}, True)
        opened["cart"] = ["tea"]
    assert site.contents() == {"cart": ["tea"]}
    with site.browser.session_transaction() as opened:
        opened["cart"].append("milk")
    assert site.contents() == {"cart": ["tea", "milk"]}
    with site.browser.session_transaction() as opened:
        opened.clear()
    assert site.cookie() is None


def test_flashes_are_shown_once(site: Site) -> None:
    site.visit(lambda: (flash("saved"), flash("<b>", "error")))
    with_categories = lambda: get_flashed_messages(with_categories=True)  # noqa: E731  # the page's template
    assert site.ask(with_categories) == [("message", "saved"), ("error", "<b>")]
    assert site.ask(with_categories) == []


def test_async_views_use_the_same_session(site: Site) -> None:
    async def write() -> None:
        session["cart"] = ["tea"]

    async def change() -> None:
        session["cart"].append("milk")

    assert site.visit(write, path="/async").status_code == 200
    assert site.visit(change, path="/async").status_code == 200
    assert site.contents() == {"cart": ["tea", "milk"]}


def test_a_failed_open_is_followed_by_a_second_try(single_store: Store, single_proxy: Proxy) -> None:
    def read_twice() -> str:
        from elasticache_sessions import StoreUnavailable

        single_proxy.go_down()
        with pytest.raises(StoreUnavailable):
            session["a"]
        single_proxy.heal()
        return f"{session['a']} {len(session)}"

    with Site(single_proxy.url) as site:
        site.visit(lambda: session.update(a=1))
        response = site.visit(read_twice)
        assert (response.status_code, response.text) == (200, "1 1")
        assert "Set-Cookie" not in response.headers
        assert site.contents() == {"a": 1}


def test_an_open_that_raises_is_one_error(memory_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Flask hands None to save_session after that, while it answers 500."""
    interface = memory_site.app.session_interface
    interface.get_cookie_name = lambda app: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    assert memory_site.visit().status_code == 500
    assert len(errors_of_the_app(caplog)) == 1
