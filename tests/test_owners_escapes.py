"""No session lives that is on no list, whatever became of its lifetime, its id, the list or the clocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from elasticache_sessions import (
    IndexLost,
    Session,
    SessionEnded,
    ValueTooLarge,
    codec,
    enrolment,
    flows,
    owners,
)
from elasticache_sessions.index import CLOCKS_APART
from elasticache_sessions.record import Header
from elasticache_sessions.session import Rules
from tests.support.bench import DAY
from tests.test_owners import ANNA, HOUR, BlindDesk, Desk


@pytest.fixture(params=[Desk, BlindDesk], ids=["looking", "blind"])
def desk(request: pytest.FixtureRequest) -> Desk:
    made: Desk = request.param()
    return made


def test_a_session_whose_end_is_put_off_stays_on_the_list(desk: Desk) -> None:
    session = desk.sign_in()
    session.expires_at = desk.clock.time + HOUR / 2
    desk.change(session)
    desk.run(flows.cycle(session, desk.rules))
    session.expires_at = desk.clock.time + HOUR
    desk.change(session)
    desk.clock.time += HOUR - 60
    desk.sign_in()  # where those are taken off that are over
    assert session.handle in desk.listed()
    assert desk.end_all() == 2
    assert desk.find(session) is None


def escaped() -> tuple[Desk, Session]:
    """One that lives though all were ended, as the store had lost the list that it was on."""
    desk = BlindDesk()
    session = desk.sign_in()
    desk.lose_the_list()
    desk.clock.time += 1
    with pytest.raises(IndexLost):
        desk.end_all()
    return desk, session


def test_who_escaped_an_end_of_all_does_not_get_back_by_a_new_id() -> None:
    desk, session = escaped()
    found = desk.again(session)
    with pytest.raises(SessionEnded):
        desk.run(flows.cycle(found, desk.rules))
    assert desk.find(session) is None
    assert desk.listed() == set()
    assert "ended" in desk.events


def test_a_new_id_tells_that_the_list_was_lost(desk: Desk) -> None:
    other, session = desk.sign_in(), desk.sign_in()
    desk.lose_the_list()
    desk.clock.time += 1
    desk.run(flows.cycle(session, desk.rules))
    assert "index_lost" in desk.events
    if desk.rules.can_scan:
        assert desk.handles() == {other.handle, session.handle}
        assert desk.end_all(keep=session) == 1
        assert desk.find(other) is None
    else:
        with pytest.raises(IndexLost):
            desk.end_all(keep=session)
    assert desk.find(session)


def test_signing_in_anew_after_all_were_ended_is_no_escape() -> None:
    desk, session = escaped()
    desk.clock.time += 1
    found = desk.again(session)
    found.owner = ANNA
    desk.run(flows.commit(found, desk.rules))
    assert found.handle in desk.listed()


@pytest.mark.parametrize("does", ["list", "end"])
def test_by_a_clock_that_is_ahead_nothing_goes_that_another_instance_has_slide(does: str) -> None:
    desk = BlindDesk()
    session = desk.sign_in()
    session.idle_ttl = 300
    desk.change(session)
    desk.clock.time += 285
    ahead = replace(desk.rules, clock=lambda: desk.clock.time + CLOCKS_APART / 2)
    if does == "list":
        desk.run(owners.for_user(desk.hash(ANNA), ahead))
    else:
        desk.run(owners.end_all(desk.hash(ANNA), ahead, "signed_out"))
    found = desk.find(session)
    assert (found is not None, session.handle in desk.listed()) == (
        (True, True) if does == "list" else (False, False)
    )


def test_a_new_id_for_a_session_that_became_too_large_meanwhile_leaves_the_old_one_alone() -> None:
    desk = Desk()
    desk.with_rules(max_bytes=600)
    session = desk.sign_in()
    one, other = desk.again(session), desk.again(session)
    one.fields["mine"], other.fields["theirs"] = "m" * 300, "t" * 300
    desk.on_write(lambda: desk.run(flows.commit(other, desk.rules)))
    with pytest.raises(ValueTooLarge):
        desk.run(flows.cycle(one, desk.rules))
    assert desk.find(session)
    assert desk.handles() == {session.handle}


def test_nobody_is_refused_where_no_limit_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "MOST_SESSIONS", 3)
    desk = Desk()
    desk.with_rules(on_limit="refuse")
    sessions = [desk.sign_in() for _ in range(5)]
    assert desk.handles() == {session.handle for session in sessions[-3:]}


def by_its_user(header: Header, fields: Mapping[str, bytes], rules: Rules) -> Header:
    """As an adapter does that keeps the user among the content."""
    owner = rules.owner_hash(str(codec.decode(fields["user"])))
    return header if owner == header.owner else header._replace(owner=owner, authenticated_at=rules.now())


def test_neither_a_new_owner_key_nor_to_clear_all_else_signs_anybody_in_anew(desk: Desk) -> None:
    desk.with_rules(derive=by_its_user)
    session = desk.new(user=ANNA)
    signed_in = desk.header(session).authenticated_at
    desk.clock.time += HOUR
    desk.with_rules(owner_key=b"k" * 32)
    found = desk.again(session)
    desk.change(found)
    assert desk.header(found).authenticated_at == signed_in
    assert desk.handles() == {found.handle}
    found.fields.clear()
    found.fields["user"] = ANNA
    desk.change(found)
    assert desk.header(found).authenticated_at == signed_in
    found.fields["user"] = "ben"
    desk.change(found)
    assert desk.header(found).authenticated_at == signed_in + HOUR


def test_a_session_that_lives_longer_by_new_settings_stays_on_the_list(desk: Desk) -> None:
    """In an adapter that says with each write when the session ends."""
    desk.with_rules(
        absolute_timeout=DAY,
        idle_timeout=30 * DAY,
        derive=lambda header, _, __: header._replace(expires_at=0),
    )
    session = desk.sign_in()
    desk.with_rules(absolute_timeout=30 * DAY)
    desk.change(session)
    desk.sign_in()
    desk.clock.time += DAY + 2 * CLOCKS_APART
    desk.sign_in()
    assert session.handle in desk.listed()
    assert desk.end_all() == 3
    assert desk.find(session) is None
