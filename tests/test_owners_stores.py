"""The list of an owner's sessions on real stores: fifty who sign in at once, what is left of a TTL, and lists that are lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from elasticache_sessions import IndexLost, Origin, Session, SessionEnded, SessionManager, TooManySessions
from elasticache_sessions.session import handle_of
from tests.support.crowds import many
from tests.support.load import PATIENT, Manager, OnLoop, at_once, manager_of
from tests.support.stores import MEMCACHED, REDIS, Store

ANNA = "anna"
MOST = 3
AT_ONCE = 50


@pytest.fixture(params=["threads", "asyncio"])
def manager(request: pytest.FixtureRequest, store: Store) -> Iterator[Manager]:
    with manager_of(request.param, store.url, timeout=PATIENT) as made:
        yield made


def new_session(user: str = ANNA) -> Session:
    session = Session(owner=user, origin=Origin("Phone/1.0", "192.0.2.1"))
    session.fields["a"] = 1
    return session


def signed_in(manager: Manager, user: str = ANNA) -> Session:
    session = new_session(user)
    manager.save(session)
    return session


def again(manager: Manager, session: Session) -> Session:
    found = manager.load(session.id)
    assert found is not None
    return found


def lose_the_list(manager: Manager, store: Store, user: str = ANNA) -> None:
    key = manager.rules.index_key(manager.rules.owner_hash(user))
    assert key in store.keys()
    if store.name in REDIS:
        store.raw("DEL", key)
    else:
        store.expire(key, 1)
    while key in store.keys():
        time.sleep(0.05)


def test_the_owner_sees_and_ends_sessions(manager: Manager) -> None:
    sessions = [signed_in(manager) for _ in range(3)]
    here = again(manager, sessions[1])
    found = manager.for_user(ANNA, here)
    assert [info.current for info in found] == [True, False, False]
    assert {info.handle for info in found} == {session.handle for session in sessions}
    assert {(info.user_agent, info.ip) for info in found} == {("Phone/1.0", "192.0.2.1")}
    assert manager.end_of_user(ANNA, str(sessions[0].handle))
    assert not manager.end_of_user(ANNA, str(sessions[0].handle))
    assert manager.load(sessions[0].id) is None
    assert manager.end_all(ANNA, keep=here) == 1
    assert manager.load(sessions[2].id) is None
    assert [info.handle for info in manager.for_user(ANNA)] == [here.handle]
    assert manager.end(here)
    assert manager.for_user(ANNA) == []


def test_it_was_last_seen_when_it_was_read_by_what_is_left_of_its_ttl(manager: Manager, store: Store) -> None:
    """As long as it takes: the TTL is set as it would be then."""
    session = signed_in(manager)
    store.expire(manager.rules.key(str(session.id)), manager.rules.idle_timeout - 7_200)
    (info,) = manager.for_user(ANNA)
    assert info.last_seen is not None
    # It was signed in just now, so no earlier than that is believed.
    assert info.last_seen == info.created_at
    manager.load(session.id)
    left = store.ttl(manager.rules.key(str(session.id)))
    assert left is not None
    assert left >= manager.rules.idle_timeout - 1
    (info,) = manager.for_user(ANNA)
    assert info.last_seen is not None
    assert abs(info.last_seen.timestamp() - time.time()) <= 60


def test_what_is_seen_does_not_slide(manager: Manager, store: Store) -> None:
    session = signed_in(manager)
    store.expire(manager.rules.key(str(session.id)), 1_000)
    manager.for_user(ANNA)
    left = store.ttl(manager.rules.key(str(session.id)))
    assert left is not None
    assert left <= 1_000


def test_a_list_that_is_lost_is_searched_for_or_said_to_be_lost(manager: Manager, store: Store) -> None:
    sessions, his = [signed_in(manager), signed_in(manager)], signed_in(manager, "ben")
    lose_the_list(manager, store)
    if store.name in MEMCACHED:
        with pytest.raises(IndexLost):
            manager.for_user(ANNA)
        with pytest.raises(IndexLost):
            manager.for_user(ANNA, again(manager, sessions[0]))
        (info,) = manager.for_user(ANNA)
        assert info.handle == sessions[0].handle
        with pytest.raises(IndexLost):
            manager.end_all(ANNA)
    else:
        found = {info.handle for info in manager.for_user(ANNA)}
        assert found == {session.handle for session in sessions}
        lose_the_list(manager, store)
        assert manager.end_all(ANNA) == 2
        assert manager.load(sessions[1].id) is None
    assert manager.counts["index_lost"] >= 2
    assert manager.load(sessions[0].id) is None
    assert manager.load(his.id) is not None


@pytest.mark.parametrize("on_limit", ["end_oldest", "refuse"])
def test_of_fifty_who_sign_in_at_once_never_one_too_many_is_signed_in(store: Store, on_limit: str) -> None:
    settings = {"timeout": PATIENT, "max_sessions_per_user": MOST, "on_limit": on_limit}
    with (
        manager_of("threads", store.url, **settings) as one,
        manager_of("asyncio", store.url, **settings) as other,
    ):
        assert isinstance(other, OnLoop)
        over: list[int] = []
        # With a list that is there: whoever searches for one finds sessions as well that nobody is signed in with yet.
        one.end(signed_in(one))

        def sign_in() -> Session | None:
            try:
                return signed_in(one)
            except TooManySessions:
                return None

        async def sign_in_async() -> Session | None:
            session = new_session()
            try:
                await other.manager.save(session)
            except TooManySessions:
                return None
            return session

        async def all_of_them() -> list[Session | None]:
            return await asyncio.gather(*(sign_in_async() for _ in range(AT_ONCE // 2)))

        def watch() -> None:
            # The list at one moment, less what has ended since.
            for _ in range(20):
                listed = len(one.for_user(ANNA))
                if listed > MOST:
                    over.append(listed)

        half = [sign_in] * (AT_ONCE // 2)
        *results, others, _ = at_once(*half, lambda: other.runner.run(all_of_them()), watch)
        results += others
        assert not over
        living = [session for session in results if session is not None and one.load(session.id) is not None]
        assert len(living) == MOST
        assert {info.handle for info in one.for_user(ANNA)} == {session.handle for session in living}
        assert len([session for session in results if session is not None]) == (
            MOST if on_limit == "refuse" else AT_ONCE
        )


def test_a_thousand_sessions_are_listed_and_ended(single_store: Store) -> None:
    with manager_of("threads", single_store.url, timeout=PATIENT) as manager:
        assert isinstance(manager, SessionManager)
        sessions = manager.run(many(manager.rules, manager.rules.owner_hash(ANNA)))
        at_work = again(manager, sessions[500])
        assert len(manager.for_user(ANNA, at_work)) == 1_000
        assert signed_in(manager).id is not None
        manager.end(signed_in(manager))
        assert manager.end_all(ANNA, keep=again(manager, sessions[0])) == 1_000
        with pytest.raises(SessionEnded):
            at_work.fields["late"] = 1
            manager.save(at_work)
        assert [info.handle for info in manager.for_user(ANNA)] == [handle_of(str(sessions[0].id))]
