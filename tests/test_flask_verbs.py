"""The extension's verbs, one after the other and together: cycle_id, login, logout, apply."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask, flash, session

from elasticache_sessions.exceptions import ConfigurationError
from tests.support.flask_apps import Site
from tests.support.stores import MemoryStore, Store


@pytest.fixture
def site(store: Store) -> Iterator[Site]:
    with Site(store.url) as site:
        yield site


@pytest.fixture
def memory_site() -> Iterator[Site]:
    with Site(MemoryStore().url) as site:
        yield site


def test_cycling_gives_a_new_id_and_keeps_the_content(site: Site) -> None:
    site.visit(lambda: session.update(cart=["tea"]))
    old = site.cookie()
    site.visit(site.sessions.cycle_id)
    assert site.cookie() not in (old, None)
    assert site.contents() == {"cart": ["tea"]}
    assert site.contents(site.client_with(old)) == {}


def test_what_is_put_in_after_logout_begins_a_new_session(site: Site) -> None:
    site.visit(lambda: session.update(user_id=1))
    old = site.cookie()
    site.visit(lambda: (site.sessions.logout(), flash("goodbye")))
    assert site.cookie() not in (old, None)
    assert site.contents() == {"_flashes": [("message", "goodbye")]}
    assert site.contents(site.client_with(old)) == {}


@pytest.mark.parametrize("verb", ["cycle_id", "login", "logout"])
def test_a_verb_is_not_forgotten_where_an_app_says_that_nothing_changed(memory_site: Site, verb: str) -> None:
    arguments = ["ada"] if verb == "login" else []
    memory_site.visit(lambda: session.update(a=1))
    old = memory_site.cookie()
    memory_site.visit(
        lambda: (
            getattr(memory_site.sessions, verb)(*arguments),
            setattr(session, "modified", False),
        )
    )
    assert memory_site.cookie() != old
    assert memory_site.contents(memory_site.client_with(old)) == {}


@pytest.mark.parametrize("verb", ["cycle_id", "login", "logout"])
def test_a_verb_is_not_forgotten_when_apply_follows(site: Site, verb: str) -> None:
    """Else an id from before the login stays good: session fixation."""
    arguments = ["ada"] if verb == "login" else []
    site.visit(lambda: session.update(a=1))
    old = site.cookie()
    site.visit(
        lambda: (
            getattr(site.sessions, verb)(*arguments),
            site.sessions.apply(lambda fields: fields.update(b=2)),
        )
    )
    assert site.cookie() not in (old, None)
    assert site.contents() == ({"b": 2} if verb == "logout" else {"a": 1, "b": 2})
    assert site.contents(site.client_with(old)) == {}


def test_the_first_login_is_not_forgotten_when_apply_follows(memory_site: Site) -> None:
    login = memory_site.sessions.login
    memory_site.visit(lambda: (login("ada"), memory_site.sessions.apply(lambda fields: fields.update(b=2))))
    loaded = memory_site.manager.load(memory_site.session_id())
    assert loaded is not None and loaded.stored is not None
    assert loaded.stored.header.owned


def test_a_verb_in_an_app_without_our_sessions_says_what_to_call(memory_site: Site) -> None:
    with (
        Flask("other").test_request_context(),
        pytest.raises(ConfigurationError, match=r"ElastiCacheSessions\(app\)"),
    ):
        memory_site.sessions.logout()


@pytest.mark.parametrize("nobody", [None, ""])
def test_nobody_cannot_be_logged_in(memory_site: Site, nobody: object) -> None:
    memory_site.visit(lambda: session.update(name="Ada"))
    cookie = memory_site.cookie()
    assert memory_site.visit(lambda: memory_site.sessions.login(nobody)).status_code == 500
    assert memory_site.cookie() == cookie
