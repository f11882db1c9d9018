"""How long sessions live on Memcached, whose touch sets the TTL of whatever is there: the record decides."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from flask import session

from elasticache_sessions import Session
from tests.support.flask_apps import Site, log_lines
from tests.support.load import PATIENT, OnLoop, contents, manager_of
from tests.support.stores import MEMCACHED, Store

each_memcached = pytest.mark.parametrize("store", MEMCACHED, indirect=True)


@contextmanager
def lifetime(site: Site, seconds: int) -> Iterator[None]:
    before = site.app.config["PERMANENT_SESSION_LIFETIME"]
    site.app.config["PERMANENT_SESSION_LIFETIME"] = seconds
    yield
    site.app.config["PERMANENT_SESSION_LIFETIME"] = before


@each_memcached
@pytest.mark.parametrize("touch", [40, 1_000], ids=["cut", "stretched"])
def test_a_tombstone_that_was_touched_stays_one(store: Store, touch: int) -> None:
    with Site(store.url, PERMANENT_SESSION_LIFETIME=100) as site:
        site.visit(lambda: session.update(a=1))
        key, copy = site.key(), site.client_with(site.cookie())
        late = site.manager.load(site.session_id())
        assert late is not None
        site.visit(site.sessions.logout)
        tombstone = store.get(key)
        with lifetime(site, touch):
            assert site.contents(copy) == {}
        # Where the session has another copy, which may not have heard of its end, its tombstone is not let go sooner.
        left = max(touch, 100) if store.dialect.copies > 1 else touch
        assert store.ttl(key) in (left - 1, left)
        assert store.get(key) == tombstone
        late.fields["late"] = True
        assert site.manager.end(late) is False
        # Gone sooner than it would have been: a request that read the session before it ended still creates nothing.
        store.raw("delete", key)
        site.visit(lambda: session.update(b=1), copy)
        assert site.contents(copy) == {"b": 1}
        assert store.get(key) is None
        assert len(store.keys()) == 1


@each_memcached
def test_what_is_no_record_is_touched_and_stays_what_it_is(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with Site(store.url, PERMANENT_SESSION_LIFETIME=100) as site:
        site.browser = site.client_with("B" * 40)
        store.set(site.key(), b"of another program", 1_000)
        assert site.contents() == {}
        assert store.get(site.key()) == b"of another program"
        assert store.ttl(site.key()) in (99, 100)
        [line] = log_lines(caplog)
        assert site.handle() in line


@each_memcached
def test_a_touch_that_stretches_the_ttl_past_the_sessions_end_does_not_stretch_the_session(
    store: Store,
) -> None:
    with Site(store.url, PERMANENT_SESSION_LIFETIME=1_000, ELASTICACHE_SESSIONS_ABSOLUTE_TIMEOUT=50) as site:
        site.visit(lambda: session.update(a=1))
        assert store.ttl(site.key()) in (49, 50)
        assert site.contents() == {"a": 1}
        assert store.ttl(site.key()) in (999, 1_000)
        site.manager.rules = replace(site.manager.rules, clock=lambda: time.time() + 51)
        assert site.contents() == {}


@each_memcached
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.parametrize("idle_ttl", [50, 2_000])
def test_an_idle_timeout_of_its_own_is_kept(store: Store, kind: str, idle_ttl: int) -> None:
    with manager_of(kind, store.url, timeout=PATIENT, connect_timeout=PATIENT, idle_timeout=1_000) as manager:
        own = Session(idle_ttl=idle_ttl)
        own.fields["a"] = 1
        manager.save(own)
        managing = manager.manager if isinstance(manager, OnLoop) else manager
        rules = managing.rules

        def at(seconds: float) -> dict[str, object] | None:
            managing.rules = replace(rules, clock=lambda: time.time() + seconds)
            return contents(manager, own.id)

        # Used often enough, it lives on; the first use slides it to idle_ttl from there.
        assert at(idle_ttl * 0.8) == {"a": 1}
        assert at(idle_ttl * 1.6) == {"a": 1}
        assert at(idle_ttl * 2.7) is None
        assert store.keys() != [], "it was not the store that ended it"
