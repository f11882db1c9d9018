"""What managers tell of sessions: each event once, with the handles and the reason, and never an id."""

from __future__ import annotations

import logging

import pytest

from elasticache_sessions import AsyncSessionManager, Session, SessionManager, Settings, StoreUnavailable
from elasticache_sessions.session import SessionId, as_id, handle_of, new_id
from elasticache_sessions.settle import Event
from tests.support.load import Manager, OnLoop, manager_of, manager_session


def listening(manager: Manager) -> list[Event]:
    """What it tells from now on."""
    heard: list[Event] = []
    (manager.manager if isinstance(manager, OnLoop) else manager).on_event(heard.append)
    return heard


@pytest.fixture(params=["threads", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_whole_life_is_told_with_handles_and_reasons(kind: str) -> None:
    with manager_of(kind, "memory://") as manager:
        heard = listening(manager)
        session = manager_session(manager, a=1)
        first = session.handle or ""
        manager.cycle(session, "ada")
        second = session.handle or ""
        manager.end(session.id or "")
        assert heard == [
            Event("created", first),
            Event("cycled", first, second),
            Event("ended", second, "logout"),
        ]


def test_a_conflict_is_told(kind: str) -> None:
    with manager_of(kind, "memory://") as manager:
        session = manager_session(manager, a=1)
        other = manager.load(session.id)
        assert other is not None
        other.fields["b"] = session.fields["c"] = 2
        manager.save(other)
        heard = listening(manager)
        manager.save(session)
        assert heard == [Event("conflict", session.handle or "")]


def test_the_reason_of_an_end_is_told(kind: str) -> None:
    def ended(how: str) -> list[Event]:
        with manager_of(kind, "memory://") as manager:
            session = manager_session(manager, a=1)
            handle, heard = session.handle, listening(manager)
            match how:
                case "emptied":
                    del session.fields["a"]
                case "expired":
                    session.fields["b"], session.idle_ttl = 2, 0
                case "expired while cycling":
                    session.cycling, session.idle_ttl = True, 0
                case "ending":
                    session.fields.clear()  # what is left would begin another
                    session.ending = True
            manager.save(session)
            assert {event.handle for event in heard} == {handle}
            return heard

    assert [event.detail for event in ended("emptied")] == ["emptied"]
    assert [event.detail for event in ended("expired")] == ["expired"]
    assert [event.detail for event in ended("expired while cycling")] == ["expired"]
    assert [event.detail for event in ended("ending")] == ["logout"]


def test_the_end_of_a_users_sessions_is_told_of_each(kind: str) -> None:
    def signed_in(manager: Manager) -> str:
        session = manager_session(manager, a=1)
        manager.cycle(session, "ada")
        return session.handle or ""

    with manager_of(kind, "memory://", max_sessions_per_user=3) as manager:
        first, second, third = (signed_in(manager) for _ in range(3))
        heard = listening(manager)
        fourth = signed_in(manager)
        assert manager.end_of_user("ada", second)
        if isinstance(manager, OnLoop):
            assert manager.runner.run(manager.manager.end_all("ada", reason="left the company")) == 2
        else:
            assert manager.end_all("ada", reason="left the company") == 2
        ended = [(event.handle, event.detail) for event in heard if event.name == "ended"]
        assert ended[:2] == [(first, "limit"), (second, "signed_out")]
        assert set(ended[2:]) == {(third, "left the company"), (fourth, "left the company")}


def test_a_session_that_nobody_heard_of_ends_unheard() -> None:
    """Its id was to take the place of one that was ended meanwhile."""
    with manager_of("threads", "memory://") as manager:
        session = manager_session(manager, a=1)
        manager.end(str(session.id))
        heard = listening(manager)
        with pytest.raises(Exception, match="was ended"):
            manager.cycle(session)
        assert heard == []


@pytest.mark.usefixtures("never_left_alone")
def test_an_operation_that_the_store_failed_is_told_once_however_often_it_was_sent(kind: str) -> None:
    with manager_of(kind, "redis://127.0.0.1:1") as manager:
        heard = listening(manager)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                manager.load(new_id())
        assert [(event.name, event.handle) for event in heard] == [("unavailable", "")] * 2
        assert heard[0].detail.startswith("StoreUnavailable: the store did not answer")
        assert manager.counts == {"unavailable": 2}


def test_a_callback_that_raises_breaks_nothing_and_is_named_by_its_type_alone(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise ValueError(f"secret of {event.handle}")

    with manager_of(kind, "memory://") as manager:
        (manager.manager if isinstance(manager, OnLoop) else manager).on_event(fail)
        heard = listening(manager)
        session = manager_session(manager, a=1)
        assert manager.load(session.id) is not None
        assert [event.name for event in heard] == ["created"]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "ValueError" in record.getMessage()
    assert "secret" not in caplog.text
    assert record.exc_info is None


# An id in a variable


def test_an_id_shows_as_its_handle_and_is_a_str_otherwise() -> None:
    session_id = new_id()
    assert repr(session_id) == f"{[session_id]}"[1:-1] == f"<session {handle_of(session_id)}>"
    plain = str(session_id)
    assert type(plain) is str
    assert session_id == plain
    assert hash(session_id) == hash(plain)
    assert type(as_id(plain)) is SessionId
    assert as_id("x" * 39) is None


def test_sessions_hold_ids_that_show_as_handles() -> None:
    for manager in (
        SessionManager.connect(Settings(url="memory://")),
        OnLoop(AsyncSessionManager.connect(Settings(url="memory://"))),
    ):
        session = manager_session(manager, a=1)
        loaded = manager.load(str(session.id))
        assert loaded is not None
        manager.cycle(loaded)
        for each in (session, loaded):
            assert isinstance(each, Session)
            assert type(each.id) is SessionId
        manager.close()
