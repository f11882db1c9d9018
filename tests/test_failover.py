"""Cluster mode disabled: a primary becomes a replica while connections to it stay open, and its name means another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from elasticache_sessions import SessionManager, StoreUnavailable
from tests.support.failover import Name, demote, name_for
from tests.support.load import PATIENT, Manager, contents, manager_of, manager_session, managers
from tests.support.servers import REDIS_7_0, VALKEY_9_1
from tests.support.stores import Store
from tests.support.topologies import Replicated, replicated


@pytest.fixture(params=[REDIS_7_0, VALKEY_9_1], ids=lambda flavour: flavour.name)
def pair(request: pytest.FixtureRequest) -> Iterator[Replicated]:
    with replicated(flavour=request.param) as pair:
        yield pair


@pytest.fixture
def name(pair: Replicated) -> Iterator[Name]:
    with name_for(pair.primary) as name:
        yield name


@pytest.fixture(params=["threads", "asyncio"])
def manager(request: pytest.FixtureRequest, name: Name) -> Iterator[Manager]:
    """Knows the primary by its name."""
    with manager_of(request.param, name.url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
        yield manager


@pytest.fixture
def elsewhere(pair: Replicated) -> Iterator[SessionManager]:
    """Another instance, which is connected to what is the primary after the failover."""
    with managers(pair.replica.url) as [elsewhere]:
        yield elsewhere


def test_the_next_request_finds_the_new_primary(pair: Replicated, name: Name, manager: Manager) -> None:
    session = manager_session(manager, count=0)
    demote(pair)
    name.means(pair.replica)
    asked = name.asked
    manager.apply(session, lambda fields: fields.update(count=1))
    assert name.asked > asked
    assert contents(manager, session.id) == {"count": 1}


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_read_that_a_replica_would_refuse_changes_nothing_at_the_primary(
    single_store: Store, kind: str
) -> None:
    def changes() -> int:
        info = single_store.raw("INFO", "persistence")
        assert isinstance(info, bytes)
        return int(info.partition(b"rdb_changes_since_last_save:")[2].split()[0])

    with manager_of(kind, single_store.url, timeout=PATIENT) as manager:
        session = manager_session(manager, count=0)
        before = changes()
        assert manager.load(session.id) is not None
        assert not manager.end("x" * 40)
        assert changes() == before
        assert manager.end(session.id or "")
        assert changes() == before + 1


def test_what_was_ended_at_the_new_primary_is_not_read_from_the_old_one(
    pair: Replicated, name: Name, manager: Manager, elsewhere: SessionManager
) -> None:
    read, peeked = manager_session(manager, count=0), manager_session(manager, count=0)
    demote(pair)
    for session in (read, peeked):
        assert elsewhere.end(session.id or "")
    # The name still means the old one: whoever asks it must not be told what was true once.
    with pytest.raises(StoreUnavailable):
        manager.load(read.id)
    with pytest.raises(StoreUnavailable):
        manager.end(peeked.id or "")  # reads without sliding
    name.means(pair.replica)
    assert manager.load(read.id) is None
    assert not manager.end(peeked.id or "")


def test_what_was_stored_at_the_new_primary_is_not_missed_at_the_old_one(
    pair: Replicated, name: Name, manager: Manager, elsewhere: SessionManager
) -> None:
    manager_session(manager, count=0)
    demote(pair)
    session = manager_session(elsewhere, count=0)
    with pytest.raises(StoreUnavailable):
        manager.load(session.id)
    session.fields["count"] = 1
    with pytest.raises(StoreUnavailable):
        manager.save(session)  # not SessionEnded, which would sign the user out
    name.means(pair.replica)
    manager.save(session)
    assert contents(elsewhere, session.id) == {"count": 1}
