"""Two instances whose clocks are 30 s apart: nobody is signed out sooner, nor stays longer, than by that much."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from elasticache_sessions import Session, SessionManager
from tests.support.load import PATIENT, manager_of
from tests.support.stores import Store

ANNA = "anna"
APART = 30
ABSOLUTE = 3_600
Instance = Callable[[float], SessionManager]


@pytest.fixture
def instance(store: Store) -> Iterator[Instance]:
    """An instance whose clock is that many seconds ahead of the store's."""
    with ExitStack() as stack:

        def make(ahead: float) -> SessionManager:
            settings = {"timeout": PATIENT, "absolute_timeout": ABSOLUTE, "idle_timeout": 7_200}
            manager = stack.enter_context(manager_of("threads", store.url, **settings))
            assert isinstance(manager, SessionManager)
            manager.rules = replace(manager.rules, clock=lambda: time.time() + ahead)
            return manager

        yield make


def sign_in(manager: SessionManager) -> Session:
    session = Session(owner=ANNA)
    session.fields["a"] = 1
    manager.save(session)
    return session


@pytest.mark.parametrize("ahead", [-APART, APART])
def test_a_session_ends_at_its_absolute_end_give_or_take_the_difference(
    instance: Instance, ahead: int
) -> None:
    session = sign_in(instance(ahead))
    for manager in (instance(0), instance(-ahead)):
        assert manager.load(session.id) is not None
    sooner, later = instance(ABSOLUTE - 2 * APART), instance(ABSOLUTE + 2 * APART)
    assert sooner.load(session.id) is not None
    assert len(sooner.for_user(ANNA)) == 1
    assert later.load(session.id) is None
    assert later.for_user(ANNA) == []


@pytest.mark.parametrize("ahead", [-APART, APART])
def test_an_end_of_its_own_is_kept_give_or_take_the_difference(instance: Instance, ahead: int) -> None:
    one = instance(ahead)
    session = Session(expires_at=time.time() + 600)
    session.fields["a"] = 1
    one.save(session)
    assert instance(600 - APART).load(session.id) is not None
    assert instance(600 + APART).load(session.id) is None


@pytest.mark.parametrize("ahead", [-APART, APART])
def test_an_idle_timeout_of_its_own_slides_in_whichever_instance(instance: Instance, ahead: int) -> None:
    one, other = instance(ahead), instance(-ahead)
    session = Session(idle_ttl=200)
    session.fields["a"] = 1
    one.save(session)
    for manager in (other, one, other):
        assert manager.load(session.id) is not None
    found = other.load(session.id)
    assert found is not None
    found.fields["b"] = 1
    other.save(found)
    assert one.load(session.id) is not None


@pytest.mark.parametrize("ahead", [-APART, APART])
def test_who_signed_in_there_is_fresh_here_and_seen_and_ended(instance: Instance, ahead: int) -> None:
    one, other = instance(ahead), instance(0)
    session = sign_in(one)
    found = other.load(session.id)
    assert found is not None
    assert found.fresh(60, other.rules)
    (info,) = other.for_user(ANNA, found)
    assert info.current
    assert info.last_seen is not None
    assert abs(info.last_seen.timestamp() - time.time()) <= 60 + APART
    assert other.end_all(ANNA) == 1
    assert one.load(session.id) is None
    again = sign_in(one)
    changed = other.load(again.id)
    assert changed is not None
    changed.fields["b"] = 1
    other.save(changed)
    assert [info.handle for info in other.for_user(ANNA)] == [again.handle]
