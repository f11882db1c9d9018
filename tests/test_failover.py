"""Cluster mode disabled: a primary becomes a replica while connections to it stay open, and its name means another."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from elasticache_sessions import SessionManager, StoreUnavailable
from tests.support.dialects import OPEN, Access
from tests.support.endpoints import Name, demote, name_for, swap
from tests.support.failover import KINDS, PROMISED, TIMEOUT, Load, core, under_load
from tests.support.load import PATIENT, Manager, contents, manager_of, manager_session, managers
from tests.support.servers import REDIS_7_0, VALKEY_9_1, Server
from tests.support.stores import Store
from tests.support.topologies import LEAST_RIGHTS, Replicated, replicated

FLAVOURS = (REDIS_7_0, VALKEY_9_1)
EACH = [pytest.param(*each, id=f"{each[0].name}-{each[1]}") for each in zip(FLAVOURS, KINDS, strict=True)]
SECURE = Access(tls=True, user="sessions", rights=LEAST_RIGHTS)


@pytest.fixture
def access() -> Access:
    """How the servers of `pair` let anybody in."""
    return OPEN


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.name)
def pair(request: pytest.FixtureRequest, access: Access) -> Iterator[Replicated]:
    with replicated(flavour=request.param, access=access) as pair:
        yield pair


@pytest.fixture
def name(pair: Replicated) -> Iterator[Name]:
    with name_for(pair.primary) as name:
        yield name


@pytest.fixture(params=KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
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


# In use


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "kind", "access"),
    [
        *((*each.values, OPEN) for each in EACH),
        (REDIS_7_0, "threads", SECURE),
    ],
    indirect=["pair"],
    ids=[*(str(each.id) for each in EACH), "redis-7.0-threads-tls"],
)
def test_a_failover_that_was_asked_for_costs_nothing(pair: Replicated, name: Name, kind: str) -> None:
    """As nobody's DNS is: the name always means the primary. What is connected to the old one has to notice."""
    name.follows(pair)
    scenario = f"a failover asked for, {pair.primary.name}, {kind}"
    with core(kind, name.url, timeout=PATIENT) as site, under_load(scenario, site) as load:
        swap(pair)
    assert not load.failures, load.reasons


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "kind"), EACH, indirect=["pair"])
def test_a_name_that_is_slow_to_change_costs_failures_until_it_has_and_nothing_else(
    pair: Replicated, name: Name, kind: str
) -> None:
    scenario = f"DNS a second late, {pair.primary.name}, {kind}"
    with core(kind, name.url, timeout=TIMEOUT) as site, under_load(scenario, site) as load:
        swap(pair)
        changed_at = change_after(1, name, pair.replica)
    is_over_soon(load, changed_at)


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "kind"), EACH, indirect=["pair"])
def test_a_primary_that_is_killed_costs_no_session(pair: Replicated, name: Name, kind: str) -> None:
    scenario = f"kill -9, {pair.primary.name}, {kind}"
    with core(kind, name.url, timeout=TIMEOUT) as site, under_load(scenario, site) as load:
        load.fault()
        pair.primary.kill()
        pair.replica.command("REPLICAOF", "NO", "ONE")
        changed_at = change_after(1, name, pair.replica)
    is_over_soon(load, changed_at)


def is_over_soon(load: Load, changed_at: float) -> None:
    assert load.failures
    last = load.failures[-1] - changed_at
    print(f"the last failed {last:.2f} s after the name had changed")
    assert last < PROMISED, load.reasons


def change_after(seconds: float, name: Name, server: Server) -> float:
    """Have the name mean `server` after some time. When it does, by the monotonic clock."""
    time.sleep(seconds)
    name.means(server)
    return time.monotonic()
