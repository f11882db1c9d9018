"""A session goes with whoever held it: it does not wait for the garbage collector, nor have that come more often."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest
from flask import session

from elasticache_sessions import Session, SessionManager, Settings
from elasticache_sessions.django import SessionStore
from elasticache_sessions.flask import FlaskSession
from elasticache_sessions.flask_owners import current
from tests.support.flask_apps import Site
from tests.support.stores import MemoryStore


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_session_that_was_loaded_goes_at_once() -> None:
    manager = SessionManager.connect(Settings(url=MemoryStore().url))
    begun = Session()
    begun.fields["cart"] = ["tea"]
    manager.save(begun)
    loaded = manager.load(begun.id)
    assert loaded is not None
    known = ref(loaded), ref(loaded.fields)
    loaded.fields["cart"].append("milk")
    manager.save(loaded)
    del loaded
    assert [one() for one in known] == [None, None]


def test_flasks_goes_with_its_request() -> None:
    known: list[ref[FlaskSession]] = []
    with Site(MemoryStore().url) as site:

        def remembered() -> None:
            known.append(ref(current()))

        site.ask(lambda: (session.update(cart=["tea"]), remembered()))
        site.ask(lambda: (session["cart"], remembered()))
        site.ask(lambda: (session["cart"].append("milk"), remembered()))
        site.ask(lambda: (site.sessions.cycle_id(), remembered()))
        assert site.contents() == {"cart": ["tea", "milk"]}
    assert [one() for one in known] == [None] * 4


def test_djangos_goes_with_its_request() -> None:
    store = SessionStore()
    store["cart"] = ["tea"]
    store.save()
    key = store.session_key
    known: tuple[ref[Any], ...] = (ref(store), ref(store._state))
    store = SessionStore(key)
    store["cart"].append("milk")
    assert store._state.core is not None
    known = *known, ref(store), ref(store._state.core)
    store.save()
    del store
    assert [one() for one in known] == [None] * 4
