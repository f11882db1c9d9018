"""The list of an owner's sessions, question by question: what is on it, who ends, and what becomes of a list that is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from elasticache_sessions import (
    IndexLost,
    Session,
    SessionEnded,
    StoreUnavailable,
    TooManySessions,
    ValueTooLarge,
    flows,
    owners,
)
from elasticache_sessions.clients.base import Command, Entry, Read, Reply, Write
from elasticache_sessions.index import Origin, SessionInfo
from elasticache_sessions.record import Kind, pack, unpack
from elasticache_sessions.session import OWNED_ABSOLUTE_TIMEOUT, Rules, handle_of
from tests.support.bench import DAY, Bench, BlindBench
from tests.support.crowds import many

ANNA, BEN = "anna", "ben"
HOUR = 3_600


class Desk(Bench):
    """A bench with users."""

    def sign_in(self, user: str = ANNA, origin: Origin | None = None, **fields: object) -> Session:
        session = Session(owner=user, origin=origin or Origin())
        session.fields.update({"a": 1, **fields})
        self.run(flows.commit(session, self.rules))
        return session

    def again(self, session: Session) -> Session:
        """As another request has it."""
        found = self.load(session)
        found.origin = session.origin
        return found

    def change(self, session: Session) -> None:
        session.fields["changed"] = session.fields.get("changed", 0) + 1
        self.run(flows.commit(session, self.rules))

    def of(self, user: str = ANNA, current: Session | None = None) -> list[SessionInfo]:
        found: list[SessionInfo] = self.run(owners.for_user(self.hash(user), self.rules, current))
        return found

    def handles(self, user: str = ANNA) -> set[str]:
        return {info.handle for info in self.of(user)}

    def end_all(self, user: str = ANNA, keep: Session | None = None) -> int:
        ended: int = self.run(owners.end_all(self.hash(user), self.rules, "signed_out", keep))
        return ended

    def hash(self, user: str) -> bytes:
        return self.rules.owner_hash(user)

    def key(self, user: str = ANNA) -> bytes:
        return self.rules.index_key(self.hash(user))

    def listed(self, user: str = ANNA) -> set[str]:
        """As it is stored, without a look at the sessions."""
        entry = self.client.perform(Read(self.key(user)))
        assert isinstance(entry, Entry)
        return set(unpack(entry.value).fields)

    def lose_the_list(self, user: str = ANNA) -> None:
        assert self.client._entries.pop(self.key(user))

    def with_rules(self, **rules: object) -> None:
        self.rules = dataclasses.replace(self.rules, **rules)  # type: ignore[arg-type]  # as each test needs them


class BlindDesk(Desk):
    """As Memcached, which cannot be searched either."""

    store = BlindBench.store

    def __init__(self) -> None:
        super().__init__()
        self.with_rules(can_scan=False)


@pytest.fixture(params=[Desk, BlindDesk], ids=["looking", "blind"])
def desk(request: pytest.FixtureRequest) -> Desk:
    made: Desk = request.param()
    return made


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# What is on the list


def test_it_tells_what_a_person_asks_of_each_session_and_no_id(desk: Desk) -> None:
    begun = desk.clock.time
    phone = desk.sign_in(origin=Origin("Phone/1.0", "192.0.2.1"))
    desk.clock.time += 7_200
    here = desk.sign_in(origin=Origin("Desk/2.0", "2001:db8::1"))
    now = desk.clock.time
    first, second = desk.of(current=here)
    assert first == SessionInfo(
        str(here.handle), at(now), at(now), None, "Desk/2.0", "2001:db8::1", current=True
    )
    assert second == SessionInfo(
        str(phone.handle), at(begun), at(begun), None, "Phone/1.0", "192.0.2.1", current=False
    )
    assert str(here.id) not in repr((first, second))


def test_what_a_request_says_of_itself_is_cut_and_cannot_break_a_line(desk: Desk) -> None:
    desk.sign_in(origin=Origin("a\r\nb\0" + "x" * 5_000, "192.0.2.1" * 50))
    (info,) = desk.of()
    assert info.user_agent.startswith("a  b x")
    assert info.user_agent.isprintable()
    assert len(info.user_agent) < 200
    assert len(info.ip) < 50


@pytest.mark.parametrize("idle_ttl", [None, 3 * DAY])
def test_a_session_that_slides_is_last_seen_when_it_was_read(idle_ttl: int | None) -> None:
    for desk in (Desk(), BlindDesk()):
        session = desk.sign_in()
        if idle_ttl is not None:
            session.idle_ttl = idle_ttl
            desk.change(session)
        desk.clock.time += 5_000
        assert desk.find(session)
        seen = desk.clock.time
        desk.clock.time += 3_000
        (info,) = desk.of()
        assert info.last_changed is None
        assert info.last_seen is not None
        if desk.client.blind_touch and idle_ttl is None:
            # What is left of a TTL only the real one says: tests/test_owners_stores.py.
            continue
        assert abs(info.last_seen.timestamp() - seen) <= 60


def test_where_the_absolute_end_comes_first_nobody_knows_when_it_was_last_seen() -> None:
    """It is no lie either: with Flask's defaults (31 and 30 days) that is always so."""
    desk = Desk()
    desk.with_rules(absolute_timeout=DAY // 2)
    session = desk.sign_in()
    (info,) = desk.of()
    assert info.last_seen == info.created_at, "just now"
    desk.clock.time += HOUR
    assert desk.find(session)
    (info,) = desk.of()
    assert info.last_seen is None
    assert info.last_changed is None


def test_where_reading_does_not_slide_it_says_when_a_session_changed() -> None:
    desk = Desk()
    desk.with_rules(sliding=False)
    session = desk.sign_in()
    desk.clock.time += 5_000
    changed = desk.clock.time
    desk.change(desk.again(session))
    desk.clock.time += 5_000
    assert desk.find(session)
    (info,) = desk.of()
    assert info.last_seen is None
    assert info.last_changed == at(changed)


def test_two_users_have_a_list_each(desk: Desk) -> None:
    hers, his = desk.sign_in(), desk.sign_in(BEN)
    assert desk.handles() == {hers.handle}
    assert desk.handles(BEN) == {his.handle}


def test_somebody_elses_session_is_not_ended(desk: Desk) -> None:
    hers, his = desk.sign_in(), desk.sign_in(BEN)
    assert not desk.run(owners.end_one(desk.hash(BEN), str(hers.handle), desk.rules, "signed_out"))
    assert desk.end_all(BEN, keep=hers) == 1
    assert desk.listed(BEN) == set()
    assert desk.find(hers)
    assert not desk.find(his)
    (info,) = desk.of(current=desk.sign_in(BEN))
    assert not info.current


@pytest.mark.parametrize("handle", ["", "x", "é" * 43, "a" * 42 + "\n", "a" * 44, "../" * 10])
def test_what_is_no_handle_asks_nothing(desk: Desk, handle: str) -> None:
    assert not desk.run(owners.end_one(desk.hash(ANNA), handle, desk.rules, "signed_out"))
    assert not desk.asked
    assert not desk.looks


def test_a_new_id_takes_the_place_of_the_old_one(desk: Desk) -> None:
    session = desk.sign_in(origin=Origin("Phone/1.0", "192.0.2.1"))
    old = session.handle
    again = desk.load(session)
    desk.run(flows.cycle(again, desk.rules))
    assert again.handle != old
    assert desk.listed() == {again.handle, old}, "until somebody looks"
    (info,) = desk.of()
    assert info.handle == again.handle
    assert info.user_agent == "Phone/1.0"
    assert desk.listed() == {again.handle}


def test_however_often_a_session_gets_a_new_id_the_list_does_not_grow(desk: Desk) -> None:
    desk.with_rules(max_sessions=2, on_limit="refuse")
    session, other = desk.sign_in(), desk.sign_in()
    for _ in range(5):
        session = desk.again(session)
        desk.run(flows.cycle(session, desk.rules))
        assert len(desk.listed()) == 3
    assert desk.handles() == {session.handle, other.handle}


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("number", range(1, 8))
def test_whatever_fails_while_it_gets_a_new_id_what_lives_is_listed(
    desk: Desk, number: int, carried_out: bool
) -> None:
    session, left = desk.again(desk.sign_in()), [number]
    old = session.id

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        left[0] -= 1
        if left[0] == 0:
            if carried_out:
                perform()
            raise StoreUnavailable("down", sent=carried_out)
        return perform()

    desk.meddle = meddle
    with suppress(StoreUnavailable, SessionEnded):
        desk.run(flows.cycle(session, desk.rules))
    desk.meddle = lambda command, perform: perform()
    assert old is not None
    if desk.find(old):
        assert handle_of(old) in desk.listed()
    else:
        assert session.handle in desk.listed()
    desk.end_all()
    assert not desk.find(old)
    assert not desk.find(session)


def test_what_grows_too_large_while_it_gets_a_new_id_leaves_the_old_one_alone(desk: Desk) -> None:
    session = desk.again(desk.sign_in(mine="x" * 400))
    desk.with_rules(max_bytes=1_000)
    old = session.id

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        reply = perform()
        if isinstance(command, Write) and command.key == desk.key():
            desk.meddle = lambda command, perform: perform()
            other = desk.load(old)
            other.fields["theirs"] = "y" * 400
            desk.save(other)
            session.fields["more"] = "z"
        return reply

    session.fields["mine"] = "z" * 500
    desk.meddle = meddle
    with pytest.raises(ValueTooLarge):
        desk.run(flows.cycle(session, desk.rules))
    assert desk.handles() == {handle_of(str(old))}
    assert desk.end_all() == 1
    assert not desk.find(old)


@pytest.mark.parametrize("before", range(1, 5))
def test_a_handle_that_is_out_of_date_by_one_new_id_ends_the_session_all_the_same(
    desk: Desk, before: int
) -> None:
    """Whichever command of the end the new id comes before."""
    session, left = desk.again(desk.sign_in()), [before]
    handle = str(session.handle)

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        left[0] -= 1
        if left[0] == 0:
            desk.meddle = lambda command, perform: perform()
            with suppress(SessionEnded):
                desk.run(flows.cycle(session, desk.rules))
        return perform()

    desk.meddle = meddle
    ended = desk.run(owners.end_one(desk.hash(ANNA), handle, desk.rules, "signed_out"))
    desk.meddle = lambda command, perform: perform()
    assert ended
    assert not desk.find(session)
    assert desk.handles() == set()


def test_signing_in_as_somebody_else_moves_it_to_their_list(desk: Desk) -> None:
    session = desk.sign_in()
    again = desk.again(session)
    again.owner = BEN
    desk.run(flows.commit(again, desk.rules))
    assert desk.listed() == set()
    assert desk.handles(BEN) == {again.handle}


def test_an_owner_among_the_fields_is_listed_however_he_gets_there(desk: Desk) -> None:
    """As Django keeps it, with and without a new id."""

    def derive(header, fields, rules):  # type: ignore[no-untyped-def]
        user = fields.get("user")
        owner = rules.owner_hash(str(user)) if user is not None else header.owner
        return header._replace(owner=owner, authenticated_at=header.authenticated_at or rules.now())

    desk.with_rules(derive=derive)
    session = desk.new(a=1)
    session.fields["user"] = ANNA
    desk.save(session)
    owner = desk.header(session).owner
    key = desk.rules.index_key(owner)
    entry = desk.client.perform(Read(key))
    assert isinstance(entry, Entry)
    assert set(unpack(entry.value).fields) == {session.handle}


# Off the list


@pytest.mark.parametrize("new_id", [False, True])
def test_whoever_tidies_up_a_session_and_puts_the_user_back_stays(desk: Desk, new_id: bool) -> None:
    session = desk.again(desk.sign_in(user_id=7, cart=[1]))
    begun = desk.clock.time
    desk.clock.time += 600
    session.fields.clear()
    session.fields["user_id"] = 7
    session.cycling = new_id
    desk.run(flows.commit(session, desk.rules))
    assert desk.handles() == {session.handle}
    assert desk.again(session).fields == {"user_id": 7}
    assert desk.header(session).authenticated_at == begun
    assert desk.end_all() == 1


@pytest.mark.parametrize("new_id", [False, True])
def test_whoever_clears_a_session_is_signed_out_of_it_whatever_it_holds_then(
    desk: Desk, new_id: bool
) -> None:
    session = desk.again(desk.sign_in())
    session.fields.clear()
    assert not session.fresh(60, desk.rules)
    session.fields["message"] = "Good-bye"
    assert not session.fresh(60, desk.rules)
    if new_id:
        session.cycling = True
    desk.run(flows.commit(session, desk.rules))
    assert desk.handles() == set()
    goes_on = desk.again(session)
    assert goes_on.fields == {"message": "Good-bye"}
    assert not desk.header(goes_on).owned
    assert not goes_on.fresh(60, desk.rules)
    goes_on.fields.clear()
    goes_on.fields["cart"] = [1]
    goes_on.owner = ANNA
    desk.run(flows.commit(goes_on, desk.rules))
    assert desk.handles() == {goes_on.handle}


def test_signing_out_takes_it_off_and_the_empty_list_stays(desk: Desk) -> None:
    session = desk.sign_in()
    desk.run(flows.end(desk.again(session), desk.rules))
    assert desk.listed() == set()
    left = desk.client.ttl(desk.key())
    assert left is not None
    assert left >= OWNED_ABSOLUTE_TIMEOUT
    assert desk.of() == []
    assert "index_lost" not in desk.events


def test_a_session_that_slides_is_never_dropped_and_one_that_is_gone_is(desk: Desk) -> None:
    used, unused = desk.sign_in(), desk.sign_in()
    for _ in range(8):
        desk.clock.time += DAY / 2
        assert desk.find(used)
    assert desk.listed() == {used.handle, unused.handle}, "nobody has looked"
    assert desk.handles() == {used.handle}
    assert desk.listed() == {used.handle}


def test_one_whose_absolute_end_has_passed_goes_without_a_look() -> None:
    desk = Desk()
    desk.with_rules(absolute_timeout=10 * DAY)
    old = desk.sign_in()
    desk.clock.time += 9 * DAY
    new = desk.sign_in()
    assert desk.listed() == {old.handle, new.handle}
    desk.clock.time += 2 * DAY
    newer = desk.sign_in()
    assert desk.listed() == {new.handle, newer.handle}
    assert not desk.looks


def test_what_a_newer_version_wrote_stays_listed(desk: Desk) -> None:
    session = desk.sign_in()
    key = desk.rules.key(str(session.id))
    desk.client.put(key, b"\x63" + b"?" * 200, 500)
    assert desk.of() == []
    assert desk.listed() == {session.handle}


def test_when_its_list_cannot_be_asked_a_session_ends_all_the_same(desk: Desk) -> None:
    session = desk.sign_in()
    again = desk.again(session)

    def fails(command: Command, perform: Callable[[], Reply]) -> Reply:
        if command.key == desk.key():
            raise StoreUnavailable("down")
        return perform()

    desk.meddle = fails
    assert desk.run(flows.end(again, desk.rules))
    assert not desk.find(session)


def test_who_cannot_be_listed_is_not_signed_in(desk: Desk) -> None:
    session = desk.new(a=1)
    desk.sign_in()
    for kind in (Read, Write):

        def fails(command: Command, perform: Callable[[], Reply], kind: type = kind) -> Reply:
            if command.key == desk.key() and isinstance(command, kind):
                raise StoreUnavailable("down")
            return perform()

        desk.meddle = fails
        before = desk.load(session)
        before.owner = ANNA
        with pytest.raises(StoreUnavailable):
            desk.run(flows.commit(before, desk.rules))
        desk.meddle = lambda command, perform: perform()
        assert desk.load(session).fields == {"a": 1}
        assert len(desk.handles()) == 1


# Limits


def test_the_oldest_session_ends_where_there_would_be_too_many(desk: Desk) -> None:
    desk.with_rules(max_sessions=3)
    sessions = []
    for _ in range(5):
        sessions.append(desk.sign_in())
        desk.clock.time += 10
    assert [bool(desk.find(session)) for session in sessions] == [False, False, True, True, True]
    assert desk.handles() == {session.handle for session in sessions[2:]}
    assert desk.events.count("ended") == 2


def test_what_is_gone_does_not_count(desk: Desk) -> None:
    desk.with_rules(max_sessions=2)
    kept = desk.sign_in()
    desk.sign_in()
    desk.clock.time += 0.9 * DAY
    assert desk.find(kept)
    desk.clock.time += 0.9 * DAY
    new = desk.sign_in()
    assert desk.find(kept)
    assert desk.handles() == {kept.handle, new.handle}


def test_one_too_many_is_refused_and_nothing_has_changed(desk: Desk) -> None:
    desk.with_rules(max_sessions=2, on_limit="refuse")
    first, second, visitor = desk.sign_in(), desk.sign_in(), desk.new(cart=[1])
    signing_in = desk.load(visitor)
    signing_in.owner = ANNA
    with pytest.raises(TooManySessions, match="MAX_SESSIONS_PER_USER"):
        desk.run(flows.commit(signing_in, desk.rules))
    with pytest.raises(TooManySessions):
        desk.sign_in()
    assert desk.handles() == {first.handle, second.handle}
    assert desk.load(visitor).fields == {"cart": [1]}
    desk.run(flows.cycle(desk.again(first), desk.rules))  # is no sign-in
    desk.run(flows.end(desk.again(second), desk.rules))
    assert desk.sign_in().id


def test_a_new_id_is_never_refused_even_where_the_list_had_lost_the_old_one(desk: Desk) -> None:
    desk.with_rules(max_sessions=1, on_limit="refuse")
    first = desk.sign_in()
    desk.lose_the_list()
    second = desk.sign_in()
    again = desk.again(first)
    desk.run(flows.cycle(again, desk.rules))
    assert again.handle in desk.listed()
    assert not desk.find(second)


def test_a_session_amid_a_new_id_counts_once_and_ends_with_both(desk: Desk) -> None:
    """The process that was about to end the old id was killed, so both live."""
    desk.with_rules(max_sessions=2)
    first = desk.sign_in()
    again, known = desk.again(first), desk.listed()

    def dies(command: Command, perform: Callable[[], Reply]) -> Reply:
        if isinstance(command, Write) and command.key == desk.rules.key(str(first.id)):
            raise SystemExit
        return perform()

    desk.meddle = dies
    with pytest.raises(SystemExit):
        desk.run(flows.cycle(again, desk.rules))
    desk.meddle = lambda command, perform: perform()
    assert len(desk.listed()) == 2
    (unknown,) = desk.listed() - known
    desk.clock.time += 1
    second = desk.sign_in()
    assert desk.handles() == {*known, unknown, second.handle}
    desk.clock.time += 1
    third = desk.sign_in()
    assert not desk.find(first)
    assert desk.handles() == {second.handle, third.handle}


def test_an_oldest_one_that_cannot_be_ended_keeps_the_next_one_out(desk: Desk) -> None:
    desk.with_rules(max_sessions=1)
    first = desk.sign_in()

    def fails(command: Command, perform: Callable[[], Reply]) -> Reply:
        if command.key == desk.rules.key(str(first.id)):
            raise StoreUnavailable("down")
        return perform()

    desk.meddle = fails
    with pytest.raises(StoreUnavailable):
        desk.sign_in()
    desk.meddle = lambda command, perform: perform()
    assert desk.handles() == {first.handle}


def test_a_user_with_a_thousand_sessions_signs_in_in_four_round_trips() -> None:
    desk = Desk()
    desk.run(many(desk.rules, desk.hash(ANNA)))
    assert len(desk.handles()) == 1_000
    desk.asked.clear()
    desk.looks = 0
    desk.sign_in()
    assert len(desk.asked) == 3, "the session, and the list read and written"
    assert desk.looks == 1, "at a few that may be gone"


@pytest.mark.parametrize("on_limit", ["end_oldest", "refuse"])
def test_two_clicks_on_sign_in_leave_one_session_and_end_no_other(desk: Desk, on_limit: str) -> None:
    desk.with_rules(max_sessions=1, on_limit=on_limit)
    visitor = desk.new(cart=[1])
    first, second = desk.load(visitor), desk.load(visitor)
    first.owner = second.owner = ANNA
    desk.run(flows.commit(first, desk.rules))
    with pytest.raises(SessionEnded):
        desk.run(flows.commit(second, desk.rules))
    assert desk.find(first)
    assert desk.handles() == {first.handle}


# All at once


def test_all_end_but_the_one_that_is_kept(desk: Desk) -> None:
    sessions = [desk.sign_in() for _ in range(4)]
    assert desk.end_all(keep=desk.again(sessions[1])) == 3
    assert [bool(desk.find(session)) for session in sessions] == [False, True, False, False]
    assert desk.handles() == {sessions[1].handle}
    assert desk.end_all() == 1
    assert desk.listed() == set()


def test_what_has_been_ended_cannot_be_stored_any_more(desk: Desk) -> None:
    session = desk.sign_in()
    at_work = desk.again(session)
    desk.end_all()
    with pytest.raises(SessionEnded):
        desk.change(at_work)
    assert not desk.find(session)


@pytest.mark.parametrize("before", range(1, 6))
def test_a_session_that_gets_a_new_id_meanwhile_ends_as_well(desk: Desk, before: int) -> None:
    """Whichever write of the cycle it comes before."""
    session = desk.sign_in()
    again, left = desk.again(session), [before]

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        if isinstance(command, Write):
            left[0] -= 1
            if left[0] == 0:
                desk.meddle = lambda command, perform: perform()
                desk.end_all()
        return perform()

    desk.meddle = meddle
    with suppress(SessionEnded):
        desk.run(flows.cycle(again, desk.rules))
    desk.meddle = lambda command, perform: perform()
    if left[0] > 0:
        desk.end_all()
    assert not desk.find(session)
    assert not desk.find(again)
    kinds = [unpack(value).header.kind for value, *_ in desk.client._entries.values()]
    assert Kind.LIVE not in kinds


@pytest.mark.parametrize("before", range(1, 4))
def test_two_that_sign_in_at_once_are_both_listed(desk: Desk, before: int) -> None:
    left = [before]

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        if isinstance(command, Write):
            left[0] -= 1
            if left[0] == 0:
                desk.meddle = lambda command, perform: perform()
                others.append(desk.sign_in())
        return perform()

    others: list[Session] = []
    desk.meddle = meddle
    one = desk.sign_in()
    assert desk.handles() == {one.handle, *(other.handle for other in others)}


def test_a_reply_that_is_lost_lists_nobody_twice(desk: Desk) -> None:
    first = desk.sign_in()
    lost = [1]

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        reply = perform()
        if isinstance(command, Write) and command.key == desk.key() and lost:
            lost.clear()
            return perform()  # the manager sends it again
        return reply

    desk.meddle = meddle
    second = desk.sign_in()
    assert desk.listed() == {first.handle, second.handle}


# A list that the store has lost


def test_a_store_that_can_be_searched_is() -> None:
    for asks in ("the owner", "an administrator"):
        desk = Desk()
        sessions, his = [desk.sign_in(), desk.sign_in()], desk.sign_in(BEN)
        desk.lose_the_list()
        current = desk.again(sessions[0]) if asks == "the owner" else None
        found = desk.of(current=current)
        assert {info.handle for info in found} == {session.handle for session in sessions}
        assert desk.events.count("index_lost") == 1
        assert desk.listed() == {session.handle for session in sessions}
        assert desk.handles(BEN) == {his.handle}


def test_an_administrator_ends_all_that_a_search_finds() -> None:
    desk = Desk()
    sessions, his = [desk.sign_in(), desk.sign_in()], desk.sign_in(BEN)
    desk.lose_the_list()
    assert desk.end_all() == 2
    assert not any(map(desk.find, sessions))
    assert desk.find(his)
    assert "index_lost" in desk.events


def test_who_has_never_signed_in_has_no_sessions_and_is_searched_for_once() -> None:
    desk = Desk()
    assert desk.of() == []
    looks = desk.looks
    assert desk.of() == []
    assert desk.looks == looks
    assert "index_lost" not in desk.events


def test_where_it_cannot_be_searched_that_is_said_and_never_that_there_are_none() -> None:
    desk = BlindDesk()
    session = desk.sign_in()
    desk.lose_the_list()
    for _ in range(2):
        with pytest.raises(IndexLost, match="memory"):
            desk.of()
    assert desk.events.count("index_lost") == 2
    # The owner asks, and his own session puts itself back.
    with pytest.raises(IndexLost):
        desk.of(current=desk.again(session))
    assert [info.current for info in desk.of(current=desk.again(session))] == [True]


def test_where_it_cannot_be_searched_an_administrator_ends_who_shows_himself() -> None:
    """Nobody can find the session that was lost; but it ends when it next changes, at most an hour later."""
    desk = BlindDesk()
    lost = desk.sign_in()
    desk.lose_the_list()
    desk.clock.time += 60
    with pytest.raises(IndexLost, match="The 0 that were listed have ended"):
        desk.end_all()
    assert "index_lost" in desk.events
    known = desk.sign_in()
    with pytest.raises(IndexLost, match="The 1 that were listed have ended"):
        desk.end_all()
    with pytest.raises(IndexLost):
        desk.of()  # which would be none
    assert not desk.find(known)
    assert desk.find(lost)
    desk.clock.time += HOUR
    with pytest.raises(SessionEnded):
        desk.change(desk.again(lost))
    assert not desk.find(lost)


def test_a_session_that_is_not_listed_puts_itself_back(desk: Desk) -> None:
    session = desk.sign_in()
    desk.lose_the_list()
    desk.clock.time += 60
    other = desk.sign_in()
    assert desk.listed() == {other.handle}
    at_work = desk.again(session)
    desk.change(at_work)
    assert desk.listed() == {other.handle}, "not within the first hour"
    desk.clock.time += HOUR
    desk.change(desk.again(session))
    assert desk.listed() == {other.handle, session.handle}
    assert desk.events.count("index_lost") == 1
    desk.asked.clear()
    desk.change(desk.again(session))
    assert not any(command.key == desk.key() for command in desk.asked), "once an hour"


def test_a_session_that_escaped_when_all_were_ended_ends_instead(desk: Desk) -> None:
    session = desk.sign_in()
    desk.lose_the_list()
    desk.clock.time += 60
    other = desk.sign_in()  # so that the list is there, and nobody knows that another was lost
    desk.clock.time += 60
    assert desk.end_all() == 1
    assert not desk.find(other)
    desk.clock.time += HOUR
    with pytest.raises(SessionEnded, match="signed out"):
        desk.change(desk.again(session))
    assert not desk.find(session)
    assert desk.listed() == set()
    assert desk.sign_in().id


@pytest.mark.parametrize("signs_in", [False, True])
def test_a_new_id_is_no_way_out_and_shows_that_the_list_was_lost(desk: Desk, signs_in: bool) -> None:
    escaped, silent = desk.sign_in(), desk.sign_in()
    desk.lose_the_list()
    desk.clock.time += 60
    again = desk.again(escaped)
    if signs_in:
        again.owner = ANNA
    desk.run(flows.commit(again, desk.rules) if signs_in else flows.cycle(again, desk.rules))
    assert "index_lost" in desk.events
    desk.clock.time += 60
    if desk.rules.can_scan:
        assert desk.end_all() == 2
        assert not desk.find(silent)
    else:
        with pytest.raises(IndexLost):
            desk.end_all()
    assert not desk.find(again)
    if not desk.rules.can_scan:
        with pytest.raises(SessionEnded):
            desk.run(flows.cycle(desk.again(silent), desk.rules))
        assert not desk.find(silent)
        assert desk.listed() == set()


def test_it_ends_as_well_when_its_owner_asks_what_there_is(desk: Desk) -> None:
    session = desk.sign_in()
    desk.lose_the_list()
    desk.clock.time += 60
    desk.sign_in()
    desk.clock.time += 60
    desk.end_all()
    assert desk.of(current=desk.again(session)) == []
    assert not desk.find(session)


def test_whoever_was_found_by_a_search_before_he_was_listed_needs_room_all_the_same() -> None:
    desk = Desk()
    desk.with_rules(max_sessions=1, on_limit="refuse")
    first = desk.sign_in()
    desk.lose_the_list()
    once = [1]

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        if command.key == desk.key() and once:
            once.clear()
            assert len(desk.of()) == 2, "the second one is stored, and nobody has its id yet"
        return perform()

    desk.meddle = meddle
    with pytest.raises(TooManySessions):
        desk.sign_in()
    assert desk.handles() == {first.handle}


def test_after_a_loss_that_was_noticed_a_search_finds_the_others() -> None:
    desk = Desk()
    noticed, silent = desk.sign_in(), desk.sign_in()
    desk.lose_the_list()
    desk.clock.time += HOUR + 60
    desk.change(desk.again(noticed))
    assert desk.listed() == {noticed.handle}
    assert desk.end_all() == 2
    assert not desk.find(silent)


def test_a_list_that_cannot_be_read_counts_as_lost(desk: Desk) -> None:
    session = desk.sign_in()
    entry = desk.client.perform(Read(desk.key()))
    assert isinstance(entry, Entry)
    desk.client.put(desk.key(), entry.value[:-1], 500)
    if desk.rules.can_scan:
        assert desk.handles() == {session.handle}
        return
    with pytest.raises(IndexLost):
        desk.of()
    other = desk.sign_in()
    with pytest.raises(IndexLost):
        desk.end_all()
    assert not desk.find(other)


# Lifetimes


def test_signing_in_starts_the_absolute_timeout_anew_and_a_new_id_does_not(desk: Desk) -> None:
    desk.with_rules(absolute_timeout=10 * DAY)
    session = desk.sign_in()
    for _ in range(9):
        desk.clock.time += 0.99 * DAY
        assert desk.find(session)
    again = desk.again(session)
    desk.run(flows.cycle(again, desk.rules))
    desk.clock.time += 0.99 * DAY
    assert desk.find(again)
    anew = desk.again(again)
    anew.signing_in = True
    desk.change(anew)
    desk.clock.time += 0.99 * DAY
    assert desk.find(anew)
    desk.run(flows.cycle(desk.again(anew), desk.rules))


def test_an_anonymous_session_ends_sooner_until_somebody_signs_in(desk: Desk) -> None:
    desk.with_rules(anonymous_idle_timeout=9 * DAY)
    kept = desk.new(a=1)
    assert (desk.ttl(kept) or 0) <= DAY, "no longer than any"
    desk.with_rules(anonymous_idle_timeout=600)
    bot, visitor = desk.new(a=1), desk.new(a=1)
    desk.clock.time += 500
    assert desk.find(visitor)
    desk.clock.time += 500
    assert desk.find(visitor)
    assert not desk.find(bot)
    signing_in = desk.load(visitor)
    signing_in.owner = ANNA
    desk.run(flows.commit(signing_in, desk.rules))
    desk.clock.time += DAY - 100
    assert desk.find(signing_in)


def test_the_rules_clock_may_be_behind_that_of_whoever_signed_in() -> None:
    """Two instances, 30 s apart."""
    desk = Desk()
    desk.with_rules(absolute_timeout=HOUR)
    ahead = dataclasses.replace(desk.rules, clock=lambda: desk.clock.time + 30)
    session = Session(owner=ANNA)
    session.fields["a"] = 1
    desk.run(flows.commit(session, ahead))
    assert desk.find(session)
    (info,) = desk.of()
    assert info.last_seen is not None
    desk.clock.time += HOUR - 40
    assert desk.find(session)
    assert desk.run(flows.load(session.id, ahead))
    desk.clock.time += 80
    assert not desk.find(session)
    assert not desk.run(flows.load(session.id, ahead))
    # Nobody has looked, and by some clock it may have a minute left: the next one to sign in leaves it there.
    assert desk.listed() == {session.handle}
    another = desk.sign_in()
    assert desk.listed() == {session.handle, another.handle}


def test_a_list_is_a_record_and_no_session(desk: Desk) -> None:
    """Its key is shorter than any session's, so no id leads to it."""
    desk.sign_in()
    entry = desk.client.perform(Read(desk.key()))
    assert isinstance(entry, Entry)
    record = unpack(entry.value)
    assert record.header.kind is Kind.INDEX
    assert pack(record) == entry.value
    assert len(desk.key()) < len(Rules("s:", DAY).key("x" * 40))
