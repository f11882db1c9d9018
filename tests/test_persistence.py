"""Servers that come back with what they had, and servers without room: sessions there, ended ones not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from elasticache_sessions import Session, SessionEnded, SessionManager, StoreUnavailable
from tests.support.load import contents, manager_session, managers
from tests.support.servers import REDIS_7_0, VALKEY_9_1, Flavour, Server

LASTING = ("--appendonly", "yes", "--appendfsync", "always")
LARGE = "x" * 50_000


@pytest.fixture(params=[REDIS_7_0, VALKEY_9_1], ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    made: Flavour = request.param
    return made


@dataclass
class Sessions:
    """Some that live, some that were ended, some that got another id; and requests that read each before that."""

    living: list[Session] = field(default_factory=list)
    ended: list[Session] = field(default_factory=list)
    """As a request read them that has not noticed."""

    @classmethod
    def stored(cls, manager: SessionManager, each: int = 8) -> Sessions:
        made = cls()
        for number in range(each):
            made.living.append(manager_session(manager, number=number))
            for end in (manager.end, manager.cycle):
                session = manager_session(manager, number=number)
                late = manager.load(session.id)
                assert late is not None
                made.ended.append(late)
                end(session)
                if session.id is not None:
                    made.living.append(session)
        return made

    def are_as_they_were(self, manager: SessionManager) -> None:
        for session in self.living:
            assert contents(manager, session.id) == dict(session.fields)
        for late in self.ended:
            stays_ended(manager, late)


def stays_ended(manager: SessionManager, late: Session) -> None:
    """Neither a read finds the session, nor does the write of a request that had read it bring it back."""
    assert contents(manager, late.id) is None
    late.fields["late"] = True
    with pytest.raises(SessionEnded):
        manager.save(late)
    assert contents(manager, late.id) is None


# What the server keeps


@pytest.mark.parametrize("end", [Server.stop, Server.kill], ids=["stopped", "killed"])
def test_an_append_only_file_keeps_sessions_and_their_ends(
    flavour: Flavour, end: Callable[[Server], None]
) -> None:
    with Server(flavour, *LASTING) as server, managers(server.url) as [manager]:
        sessions = Sessions.stored(manager)
        end(server)
        server.start()
        sessions.are_as_they_were(manager)
        assert contents(manager, manager_session(manager, new=1).id) == {"new": 1}


def test_a_snapshot_brings_sessions_and_their_ends_to_another_server(flavour: Flavour) -> None:
    with Server(flavour) as old, Server(flavour) as new, managers(old.url, new.url) as [before, after]:
        sessions = Sessions.stored(before)
        old.command("SAVE")
        old.kill()
        new.stop()
        shutil.copy(old.directory / "dump.rdb", new.directory)
        new.start()
        sessions.are_as_they_were(after)


# What the server has no room for


@pytest.fixture
def full(flavour: Flavour) -> Iterator[tuple[SessionManager, Sessions, Session]]:
    """A server that took sessions until it was out of memory, and one more session, which may grow."""
    options = ("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    with Server(flavour, *options) as server, managers(server.url) as [manager]:
        sessions, small = Sessions.stored(manager), manager_session(manager, cart=["mug"])
        with pytest.raises(StoreUnavailable):
            for _ in range(1_000):
                manager_session(manager, large=LARGE)
        # What connections and scripts need goes up and down; now there is no room for anything.
        server.command("CONFIG", "SET", "maxmemory", "1mb")
        yield manager, sessions, small


def refused(act: Callable[[], object]) -> None:
    """`act` is refused for want of memory, once and for certain, and the error says what to do."""
    with pytest.raises(StoreUnavailable, match=r"is out of memory.*maxmemory-policy") as caught:
        act()
    assert not caught.value.sent


def grow(fields: dict[str, object]) -> None:
    fields["large"] = LARGE


def test_out_of_memory_a_write_is_refused_and_leaves_nothing_half_written(
    full: tuple[SessionManager, Sessions, Session],
) -> None:
    manager, sessions, small = full
    new = Session()
    new.fields["new"] = 1
    refused(lambda: manager.save(new))
    refused(lambda: manager.apply(small, grow))
    other = manager.load(small.id)
    assert other is not None
    other.fields["large"] = LARGE
    refused(lambda: manager.save(other))
    for act in (manager.cycle, manager.end):
        refused(lambda: act(manager.load(small.id) or small))
    assert contents(manager, small.id) == {"cart": ["mug"]}
    for session in sessions.living:
        assert contents(manager, session.id) == dict(session.fields)
    for late in sessions.ended:
        stays_ended(manager, late)


def test_with_room_again_a_change_that_was_refused_is_saved(flavour: Flavour) -> None:
    with Server(flavour, "--maxmemory-policy", "noeviction") as server, managers(server.url) as [manager]:
        session = manager_session(manager, cart=["mug"])
        session.fields["more"] = 1
        server.command("CONFIG", "SET", "maxmemory", "1")
        refused(lambda: manager.save(session))
        server.command("CONFIG", "SET", "maxmemory", "0")
        manager.save(session)
        assert contents(manager, session.id) == {"cart": ["mug"], "more": 1}


def test_an_evicted_session_is_missing_and_nobody_brings_it_back(flavour: Flavour) -> None:
    options = ("--maxmemory", "6mb", "--maxmemory-policy", "volatile-lru")
    with Server(flavour, *options) as server, managers(server.url) as [manager]:
        sessions = Sessions.stored(manager, each=60)
        requests = [manager.load(session.id) for session in sessions.living]
        keys = [manager.rules.key(session.id or "") for session in (*sessions.living, *sessions.ended)]
        for _ in range(2_000):
            manager_session(manager, large=LARGE)  # never an error: there is room for what is new
            there = server.command("EXISTS", *keys)
            assert isinstance(there, int)
            if there <= len(keys) // 4:
                break
        missing = manager.counts["missing"]
        gone = [number for number, session in enumerate(sessions.living) if manager.load(session.id) is None]
        assert 0 < len(gone) < len(sessions.living)
        assert manager.counts["missing"] == missing + len(gone)
        for number, (session, request) in enumerate(zip(sessions.living, requests, strict=True)):
            assert request is not None
            if number in gone:
                stays_ended(manager, request)
            else:
                assert contents(manager, session.id) == dict(session.fields)
        # Whether the tombstone is still there or was evicted: a write never creates what it did not read.
        tombstones = [manager.rules.key(late.id or "") for late in sessions.ended]
        assert server.command("EXISTS", *tombstones) != len(tombstones)
        for late in sessions.ended:
            stays_ended(manager, late)
