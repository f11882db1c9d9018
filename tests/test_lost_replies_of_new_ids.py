"""Creating, ending and a new id, with a lost reply and another request's write in between: done once.

See test_lost_replies for how the two requests are interleaved.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from elasticache_sessions import Session, SessionEnded, SessionManager
from elasticache_sessions.record import Kind, unpack
from elasticache_sessions.session import new_id
from tests.support.instances import instances
from tests.support.interrupt import change, header_of, increment, interrupt, loaded
from tests.support.load import contents, creates, dropped, is_write, managers, stored_id
from tests.support.proxy import Proxy
from tests.support.stores import Store


# Where a write is one command, on one node.
@pytest.fixture
def one(proxy: Proxy) -> Iterator[SessionManager]:
    """The request whose replies are lost."""
    with managers(proxy.url) as (manager,):
        yield manager


@pytest.fixture
def other(networked_store: Store) -> Iterator[SessionManager]:
    """The requests in between: past the proxy."""
    with managers(networked_store.url) as (manager,):
        yield manager


@pytest.mark.usefixtures("one_copy")
@pytest.mark.parametrize("writes", [0, 1, 3])
def test_a_session_whose_creation_got_no_reply_is_created_once(
    one: SessionManager,
    other: SessionManager,
    proxy: Proxy,
    networked_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:
    known = new_id()  # nobody else could write to it otherwise
    monkeypatch.setattr(secrets, "token_urlsafe", lambda size: known)
    session = Session()
    session.fields["mine"] = "one"
    it_happened = interrupt(proxy, lambda: [change(other, known, theirs=number) for number in range(writes)])
    one.save(session)
    it_happened()
    assert session.id == known
    assert len(networked_store.keys()) == 1
    assert (
        contents(one, known)
        == {"mine": "one"} | ({"theirs": writes - 1} if writes else {})
        == dict(session.fields)
    )


# The writes of a cycle: the new record, then the old one's tombstone.
@pytest.mark.usefixtures("one_copy")
@pytest.mark.parametrize(("nth", "moved"), [(1, True), (2, False)])
@pytest.mark.parametrize("request_lost", [False, True])
def test_a_cycle_that_lost_a_reply_loses_nothing_and_leaves_one_session(
    one: SessionManager,
    other: SessionManager,
    proxy: Proxy,
    networked_store: Store,
    nth: int,
    moved: bool,
    request_lost: bool,
) -> None:
    session_id = stored_id(one, first=0)
    session = loaded(one, session_id)
    session.fields["mine"] = "one"
    refused: list[SessionEnded] = []

    def between() -> None:
        try:
            change(other, session_id, theirs=1)
        except SessionEnded as error:
            refused.append(error)
        except AssertionError:  # no session: it has ended
            refused.append(SessionEnded())

    it_happened = interrupt(proxy, between, nth=nth, request=request_lost)
    one.cycle(session)
    it_happened()
    assert session.id is not None and session.id != session_id
    # Once the tombstone is there, the other request came too late; before, its change moves along.
    assert (not refused) == (moved or request_lost)
    expected = {"first": 0, "mine": "one"} | ({} if refused else {"theirs": 1})
    assert contents(other, session.id) == expected == dict(session.fields)
    assert contents(other, session_id) is None
    kinds = sorted(unpack(networked_store.get(key) or b"").header.kind for key in networked_store.keys())
    assert kinds == [Kind.LIVE, Kind.TOMBSTONE]


@pytest.mark.usefixtures("one_copy")
def test_a_cycle_that_lost_the_reply_to_what_it_moved_along_loses_nothing(
    one: SessionManager, other: SessionManager, proxy: Proxy, networked_store: Store
) -> None:
    session_id = stored_id(one, first=0)
    session = loaded(one, session_id)
    # The others write just before the tombstone, so that it conflicts; what carries it over gets no reply.
    before = proxy.on_request(
        lambda exchange: change(other, session_id, theirs=1),
        when=lambda command: is_write(command) and not creates(command),
    )
    it_happened = interrupt(proxy, lambda: change(other, session_id, theirs=2), nth=3)
    one.cycle(session)
    it_happened()
    assert before.fired == 1
    assert contents(other, session.id or "") == {"first": 0, "theirs": 2}
    assert contents(other, session_id) is None
    kinds = sorted(unpack(networked_store.get(key) or b"").header.kind for key in networked_store.keys())
    assert kinds == [Kind.LIVE, Kind.TOMBSTONE]


def test_an_end_whose_reply_was_lost_ends_once_and_for_good(
    one: SessionManager, other: SessionManager, proxy: Proxy, networked_store: Store
) -> None:
    session_id = stored_id(one, first=0)
    reader, session = loaded(other, session_id), loaded(one, session_id)

    def between() -> None:
        assert other.load(session_id) is None
        reader.fields["late"] = True
        with pytest.raises(SessionEnded):
            other.save(reader)
        assert other.end(session_id) is False

    it_happened = interrupt(proxy, between)
    assert one.end(session) is True
    it_happened()
    assert contents(one, session_id) is None
    assert header_of(networked_store, session_id).generation == 2


def test_an_end_that_never_arrived_ends_what_others_have_written_since(
    one: SessionManager, other: SessionManager, proxy: Proxy
) -> None:
    session_id = stored_id(one, first=0)
    session = loaded(one, session_id)
    it_happened = interrupt(
        proxy, lambda: [change(other, session_id, theirs=number) for number in range(6)], request=True
    )
    assert one.end(session) is True
    it_happened()
    assert contents(one, session_id) is None


def test_many_replies_lost_in_a_row_are_one_write(
    one: SessionManager, proxy: Proxy, networked_store: Store
) -> None:
    session_id = stored_id(one, count=0)
    session = loaded(one, session_id)
    rule = proxy.lose_reply(when=is_write, times=3)
    assert one.apply(session, increment) == 1
    assert rule.fired == 3
    assert contents(one, session_id) == {"count": 1}
    assert header_of(networked_store, session_id).generation == 2


# Through a framework


def test_a_request_that_lost_a_reply_answers_as_if_nothing_had_happened(
    framework: str, proxy: Proxy, networked_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with instances(framework, proxy.url, networked_store.url) as (here, there):
        cookie = here.ask(lambda visit: visit.update(first=0)).session_id
        it_happened = interrupt(proxy, lambda: there.ask(lambda visit: visit.update(mine="there"), cookie))
        answer = here.ask(lambda visit: visit.update(mine="here"), cookie)
        it_happened()
        assert (answer.code, answer.session_id) == (200, cookie)
        assert there.ask(dict, cookie).result == {"first": 0, "mine": "there"}
        assert dropped(caplog) == []


def test_a_logout_that_lost_its_reply_is_a_logout(
    framework: str, proxy: Proxy, networked_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with instances(framework, proxy.url, networked_store.url) as (here, there):
        cookie = here.ask(lambda visit: visit.update(first=0)).session_id
        it_happened = interrupt(proxy, lambda: there.ask(lambda visit: visit.get("first"), cookie))
        answer = here.ask(lambda visit: visit.logout(), cookie)
        it_happened()
        assert (answer.code, answer.cookie) == (200, "")
        assert there.ask(dict, cookie).result == {}
        assert caplog.messages == []


@pytest.mark.parametrize("nth", [1, 2])
def test_a_login_that_lost_a_reply_is_a_login(
    framework: str, proxy: Proxy, networked_store: Store, caplog: pytest.LogCaptureFixture, nth: int
) -> None:
    with instances(framework, proxy.url, networked_store.url) as (here, there):
        cookie = here.ask(lambda visit: visit.update(first=0)).session_id
        it_happened = interrupt(proxy, lambda: there.ask(lambda visit: visit.get("first"), cookie), nth=nth)
        answer = here.ask(lambda visit: visit.login("ada"), cookie)
        it_happened()
        assert answer.session_id != cookie
        assert there.ask(dict, answer.session_id).result == {"first": 0} | here.habits.signed_in("ada")
        assert there.ask(dict, cookie).result == {}
        assert caplog.messages == []
