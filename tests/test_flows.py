"""The flows, answered by hand: late, lost and contradictory replies, without a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from elasticache_sessions import codec, flows
from elasticache_sessions.clients.base import ABSENT, Command, Conflict, Entry, Read, Reply, Stored, Write
from elasticache_sessions.exceptions import (
    EncodeError,
    OutcomeUnknown,
    SessionEnded,
    StoreUnavailable,
    ValueTooLarge,
)
from elasticache_sessions.fields import Fields
from elasticache_sessions.record import Header, Kind, Record, pack, unpack
from elasticache_sessions.session import (
    OWNED_ABSOLUTE_TIMEOUT,
    Rules,
    Session,
    end_of,
    handle_of,
    is_id,
    new_id,
    ttl_of,
)
from tests.support.bench import Bench, BlindBench, change

DAY = 86_400


@pytest.fixture(params=["looking", "blind"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A store whose touch looks at what is there, and one like Memcached."""
    return Bench() if request.param == "looking" else BlindBench()


# Ids


@pytest.mark.parametrize(
    "text", [None, b"x" * 40, "", "x" * 39, "x" * 41, "é" * 40, "x" * 39 + "\n", "x" * 39 + "."]
)
def test_what_cannot_be_an_id_is_no_session_and_asks_nothing(bench: Bench, text: object) -> None:
    assert not is_id(text)
    assert bench.run(flows.load(text, bench.rules)) is None
    assert bench.run(flows.end_id(text, bench.rules)) is False
    assert bench.asked == []


def test_ids_have_forty_characters_and_handles_tell_nothing_of_them() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    for session_id in ids:
        assert is_id(session_id)
        assert session_id not in handle_of(session_id)
        assert len(handle_of(session_id)) == 43


# Saving


def test_an_empty_session_of_nobody_is_not_stored(bench: Bench) -> None:
    session = Session()
    bench.save(session)
    assert session.id is None
    assert bench.asked == []


def test_saving_what_did_not_change_asks_nothing(bench: Bench) -> None:
    session = bench.load(bench.new(a=1, cart=[1]))
    bench.asked.clear()
    assert (session.fields["a"], session.fields["cart"]) == (1, [1])
    bench.save(session)
    assert bench.asked == []


def test_every_write_counts_the_generation_and_keeps_the_last_four_revisions(bench: Bench) -> None:
    session = bench.new(a=0)
    seen = [bench.header(session).revision]
    for number in range(1, 7):
        session.fields["a"] = number
        bench.save(session)
        seen.insert(0, bench.header(session).revision)
    header = bench.header(session)
    assert header.generation == 7
    assert list(header.revisions) == seen[:4]


def test_changes_of_two_requests_to_different_fields_both_hold(bench: Bench) -> None:
    first = bench.load(bench.new(a=1))
    second = bench.load(first)
    second.fields["b"] = 2
    bench.save(second)
    first.fields["c"] = 3
    bench.save(first)
    assert bench.load(first).fields == {"a": 1, "b": 2, "c": 3}
    assert first.fields == {"a": 1, "b": 2, "c": 3}
    assert bench.events.count("conflict") == 1


def test_a_delete_beats_a_concurrent_change_from_both_sides(bench: Bench) -> None:
    first = bench.new(a=1, b=1)
    second = bench.load(first)
    del first.fields["a"], second.fields["b"]
    first.fields["b"] = second.fields["a"] = 2
    bench.save(first)
    bench.save(second)
    assert bench.find(first) is None, "nothing is left: the session is ended"
    assert bench.header(first).kind is Kind.TOMBSTONE


def test_after_clear_the_save_replaces_and_takes_nothing_from_others(bench: Bench) -> None:
    first = bench.new(a=1)
    change(bench, first, b=2)()
    first.fields.clear()
    first.fields["c"] = 3
    bench.save(first)
    assert bench.load(first).fields == {"c": 3}


def test_a_session_emptied_while_another_request_added_to_it_lives_on(bench: Bench) -> None:
    first = bench.new(a=1)
    change(bench, first, b=2)()
    del first.fields["a"]
    bench.save(first)
    assert bench.load(first).fields == {"b": 2}


def test_two_requests_that_store_the_same_write_once(bench: Bench) -> None:
    first = bench.new(a=1)
    change(bench, first, b=2)()
    first.fields["b"] = 2
    bench.save(first)
    assert bench.header(first).generation == 2


@pytest.mark.parametrize("others", [1, 3, 7, 40])
def test_a_write_that_conflicts_again_and_again_loses_nothing(bench: Bench, others: int) -> None:
    session = bench.new(a=0)
    numbers = iter(range(others))

    def another() -> None:
        change(bench, session, **{f"other-{next(numbers)}": 1})()

    bench.on_write(another, times=others)
    session.fields["mine"] = 1
    bench.save(session)
    assert bench.load(session).fields == {"a": 0, "mine": 1} | {
        f"other-{number}": 1 for number in range(others)
    }
    assert bench.slept == max(0, others - 1) // 3  # before the fifth attempt, and every third after it


def test_a_write_that_never_gets_its_turn_gives_up_and_says_so(bench: Bench) -> None:
    session = bench.new(a=0)
    numbers = iter(range(10_000))

    def another() -> None:
        change(bench, session, other=next(numbers))()

    bench.on_write(another, times=10_000)
    session.fields["mine"] = 1
    with pytest.raises(StoreUnavailable, match="waited for its turn"):
        bench.save(session)
    assert "mine" not in bench.load(session).fields


def test_nothing_is_sent_when_a_value_cannot_be_stored(bench: Bench) -> None:
    session = bench.new(a=1)
    bench.asked.clear()
    session.fields["b"] = object()
    for flow in (
        flows.save(session, bench.rules),
        flows.cycle(session, bench.rules),
        flows.commit(session, bench.rules),
        flows.apply(session, lambda fields: None, bench.rules),
    ):
        with pytest.raises(EncodeError, match="'b'"):
            bench.run(flow)
    session.ending = True
    with pytest.raises(EncodeError, match="'b'"):
        bench.run(flows.commit(session, bench.rules))
    assert bench.asked == []
    assert bench.load(session).fields == {"a": 1}


def test_a_session_that_is_too_large_is_refused_before_it_is_sent() -> None:
    bench = Bench(max_bytes=1_000)
    session = bench.new(a=1)
    bench.asked.clear()
    session.fields["b"] = "x" * 1_000
    with pytest.raises(ValueTooLarge, match=r"1,\d\d\d bytes and may take 1,000"):
        bench.save(session)
    with pytest.raises(ValueTooLarge):
        bench.run(flows.cycle(session, bench.rules))
    assert bench.asked == []
    assert bench.load(session).fields == {"a": 1}


def test_forced_writes_though_nothing_changed(bench: Bench) -> None:
    session = bench.load(bench.new(a=1))
    session.forced = True
    bench.save(session)
    assert bench.header(session).generation == 2
    assert not session.forced


# Ends


def test_an_ended_session_cannot_be_brought_back(bench: Bench) -> None:
    session = bench.new(a=1)
    stale = [bench.load(session) for _ in range(4)]
    assert bench.run(flows.end(session, bench.rules)) is True
    assert session.id is None
    stale[0].fields["b"] = 2
    stale[1].fields.clear()
    for number, flow in enumerate(
        (
            flows.save(stale[0], bench.rules),
            flows.save(stale[1], bench.rules),
            flows.cycle(stale[2], bench.rules),
            flows.apply(stale[3], lambda fields: fields.update(c=3), bench.rules),
        )
    ):
        with pytest.raises(SessionEnded):
            bench.run(flow)
        assert bench.find(stale[number]) is None
    assert all(unpack(value).header.kind is Kind.TOMBSTONE for value in everything(bench))


def everything(bench: Bench) -> list[bytes]:
    entries = [bench.client.perform(Read(key)) for key in bench.client.keys()]
    return [entry.value for entry in entries if isinstance(entry, Entry)]


def test_ending_twice_says_that_the_second_did_nothing(bench: Bench) -> None:
    session = bench.new(a=1)
    other = bench.load(session)
    assert bench.run(flows.end(session, bench.rules)) is True
    assert bench.run(flows.end(other, bench.rules)) is False
    assert bench.run(flows.end(other, bench.rules)) is False


def test_ending_wins_over_a_write_in_between(bench: Bench) -> None:
    session = bench.new(a=1)
    change(bench, session, b=2)()
    assert bench.run(flows.end(session, bench.rules)) is True
    assert all(unpack(value).header.kind is Kind.TOMBSTONE for value in everything(bench))


def test_ending_an_unknown_id_writes_nothing(bench: Bench) -> None:
    assert bench.run(flows.end_id(new_id(), bench.rules)) is False
    assert [type(command) for command in bench.asked] == [Read]
    assert everything(bench) == []


def test_a_tombstone_holds_no_content_and_lives_as_long_as_the_record_could_have(bench: Bench) -> None:
    session = bench.new(secret="swordfish")
    other = bench.load(session)
    bench.run(flows.end(session, bench.rules))
    assert bench.ttl(other) == DAY
    assert b"swordfish" not in everything(bench)[0]


def test_a_session_that_is_gone_from_the_store_is_ended(bench: Bench) -> None:
    session = bench.new(a=1)
    bench.client.clear()
    session.fields["b"] = 2
    with pytest.raises(SessionEnded):
        bench.save(session)
    assert everything(bench) == []


# A new id


def test_cycling_moves_the_content_and_ends_the_old_id(bench: Bench) -> None:
    session = bench.new(a=1)
    old = session.id
    session.fields["b"] = 2
    bench.run(flows.cycle(session, bench.rules))
    assert session.id != old
    assert bench.find(old) is None
    assert bench.load(session).fields == {"a": 1, "b": 2}


def test_what_others_wrote_under_the_old_id_before_it_ended_moves_along(bench: Bench) -> None:
    session = bench.new(a=1, gone=1)
    assert session.id is not None
    old, key = session.id, bench.rules.key(session.id)
    wrote: list[str] = []

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        """Before each attempt to end the old record, another request changes it; seven times."""
        if isinstance(command, Write) and command.key == key and len(wrote) < 7:
            bench.meddle = lambda command, perform: perform()
            request = bench.load(old)
            request.fields.pop("gone", None)
            wrote.append(f"other-{len(wrote)}")
            request.fields[wrote[-1]] = 1
            bench.save(request)
            bench.meddle = meddle
        return perform()

    bench.meddle = meddle
    session.fields["mine"] = 1
    bench.run(flows.cycle(session, bench.rules))
    assert len(wrote) == 7
    assert bench.load(session).fields == {"a": 1, "mine": 1} | dict.fromkeys(wrote, 1)
    assert bench.find(old) is None


def test_cycling_a_session_that_was_ended_meanwhile_ends_the_new_one_too(bench: Bench) -> None:
    session = bench.new(a=1)
    other = bench.load(session)
    bench.run(flows.end(other, bench.rules))
    with pytest.raises(SessionEnded):
        bench.run(flows.cycle(session, bench.rules, "alice"))
    kinds = {unpack(value).header.kind: unpack(value).fields for value in everything(bench)}
    assert kinds == {Kind.TOMBSTONE: {}, Kind.INDEX: {}}


def test_the_new_record_is_stored_before_the_old_one_ends(bench: Bench) -> None:
    session = bench.new(a=1)
    old = session.id

    def fail_to_end(command: Command, perform: Callable[[], Reply]) -> Reply:
        if isinstance(command, Write) and command.token != ABSENT:
            raise StoreUnavailable("down")
        return perform()

    bench.meddle = fail_to_end
    with pytest.raises(StoreUnavailable):
        bench.run(flows.cycle(session, bench.rules, "alice"))
    bench.meddle = lambda command, perform: perform()
    assert session.id == old
    assert bench.load(old).fields == {"a": 1}, "an outage in the middle leaves the user where they were"


def test_a_new_session_that_is_owned_is_stored_though_empty(bench: Bench) -> None:
    session = Session(owner="alice")
    bench.run(flows.commit(session, bench.rules))
    assert bench.header(session).owner == bench.rules.owner_hash("alice")
    assert bench.load(session).fields == {}


def test_clearing_and_cycling_ends_the_session(bench: Bench) -> None:
    session = bench.new(a=1)
    session.fields.clear()
    session.cycling = True
    bench.run(flows.commit(session, bench.rules))
    assert session.id is None
    assert {unpack(value).header.kind for value in everything(bench)} == {Kind.TOMBSTONE}


def test_what_is_put_into_an_ended_session_begins_a_new_one(bench: Bench) -> None:
    session = bench.new(a=1)
    old = session.id
    session.fields.clear()
    session.ending = True
    session.fields["flash"] = "bye"
    bench.run(flows.commit(session, bench.rules))
    assert bench.find(old) is None
    assert session.id not in (None, old)
    assert bench.load(session).fields == {"flash": "bye"}


def test_the_owner_is_stored_as_a_hash_under_the_owner_key() -> None:
    hashes = set()
    for owner_key in (None, b"k" * 32, b"l" * 32):
        rules = Rules("s:", 60, owner_key=owner_key)
        hashes.add(rules.owner_hash("alice"))
        assert b"alice" not in rules.owner_hash("alice")
        assert rules.owner_hash("alice") == rules.owner_hash("alice")
    assert len(hashes) == 3
    assert Rules("s:", 60).owner_hash("a") != Rules("t:", 60).owner_hash("a")


# Lost replies: the manager sends again, and the flow must see what happened the first time.


def lose_first_reply(bench: Bench, in_between: Callable[[], object] = lambda: None) -> list[Write]:
    """The first write is carried out, its reply lost, others act, and the same write is sent again."""
    lost: list[Write] = []

    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        if not isinstance(command, Write) or lost:
            return perform()
        lost.append(command)
        perform()
        in_between()
        reply = perform()
        return dataclasses.replace(reply, resent=True) if isinstance(reply, Conflict) else reply

    bench.meddle = meddle
    return lost


def increment(fields: Fields) -> int:
    fields["n"] = fields.get("n", 0) + 1
    value: int = fields["n"]
    return value


def test_a_write_whose_reply_was_lost_is_not_applied_twice(bench: Bench) -> None:
    session = bench.new(n=0)
    lost = lose_first_reply(bench)
    assert bench.run(flows.apply(session, increment, bench.rules)) == 1
    assert lost
    assert bench.load(session).fields == {"n": 1}
    assert bench.header(session).generation == 2


@pytest.mark.parametrize("others", [1, 2, 3])
def test_a_write_whose_reply_was_lost_recognises_itself_among_the_last_revisions(
    bench: Bench, others: int
) -> None:
    session = bench.new(n=0)
    lose_first_reply(bench, lambda: [change(bench, session, **{f"o{n}": n})() for n in range(others)])
    assert bench.run(flows.apply(session, increment, bench.rules)) == 1
    assert bench.load(session).fields == {"n": 1} | {f"o{n}": n for n in range(others)}


@pytest.mark.parametrize("others", [4, 5, 20])
def test_when_it_has_rolled_past_apply_says_that_nobody_knows(bench: Bench, others: int) -> None:
    session = bench.new(n=0)
    lose_first_reply(bench, lambda: [change(bench, session, o=n)() for n in range(others)])
    with pytest.raises(OutcomeUnknown):
        bench.run(flows.apply(session, increment, bench.rules))
    assert bench.load(session).fields["n"] == 1


@pytest.mark.parametrize("others", [1, 3, 4, 20])
def test_a_save_whose_reply_was_lost_is_merged_again_and_loses_nothing(bench: Bench, others: int) -> None:
    session = bench.new(n=0)
    lose_first_reply(bench, lambda: [change(bench, session, **{f"o{n}": n})() for n in range(others)])
    session.fields["mine"] = 1
    bench.save(session)
    assert bench.load(session).fields == {"n": 0, "mine": 1} | {f"o{n}": n for n in range(others)}


def test_a_conflict_that_was_sent_once_never_makes_the_outcome_unknown(bench: Bench) -> None:
    session = bench.new(n=0)
    for number in range(20):
        change(bench, session, o=number)()
    assert bench.run(flows.apply(session, increment, bench.rules)) == 1


@pytest.mark.parametrize("sent", [True, False])
def test_an_apply_that_never_heard_back_says_that_nobody_knows_if_it_was_sent(
    bench: Bench, sent: bool
) -> None:
    session = bench.load(bench.new(n=0))

    def fail(command: Command, perform: Callable[[], Reply]) -> Reply:
        raise StoreUnavailable("gone", sent=sent)

    bench.meddle = fail
    with pytest.raises(StoreUnavailable) as raised:
        bench.run(flows.apply(session, increment, bench.rules))
    assert isinstance(raised.value, OutcomeUnknown) is sent


def test_a_created_session_whose_reply_was_lost_is_there_once(bench: Bench) -> None:
    lose_first_reply(bench)
    session = bench.new(a=1)
    assert bench.load(session).fields == {"a": 1}
    assert len(everything(bench)) == 1


def test_an_end_whose_reply_was_lost_is_an_end(bench: Bench) -> None:
    session = bench.new(a=1)
    lose_first_reply(bench)
    assert bench.run(flows.end(session, bench.rules)) is True


def test_a_cycle_whose_replies_were_lost_is_a_cycle(bench: Bench) -> None:
    session = bench.new(a=1)

    def lose_each(command: Command, perform: Callable[[], Reply]) -> Reply:
        reply = perform()
        if isinstance(command, Write):
            reply = perform()
            assert isinstance(reply, Conflict)
            return dataclasses.replace(reply, resent=True)
        return reply

    bench.meddle = lose_each
    bench.run(flows.cycle(session, bench.rules))
    assert bench.load(session).fields == {"a": 1}
    assert len(everything(bench)) == 2


def test_a_lost_write_under_somebody_elses_tombstone_is_an_ended_session(bench: Bench) -> None:
    session = bench.new(a=1)
    other = bench.load(session)
    lose_first_reply(bench, lambda: bench.run(flows.end_id(other.id, bench.rules)))
    session.fields["b"] = 2
    with pytest.raises(SessionEnded):
        bench.save(session)


def test_a_store_that_says_a_random_id_is_taken_is_not_believed(bench: Bench) -> None:
    other = pack(Record(Header(Kind.LIVE, 1, (b"other!",), 1), {"x": b"\xc0"}))
    bench.meddle = lambda command, perform: Conflict(Entry(other, b"other!"))
    with pytest.raises(StoreUnavailable, match="taken"):
        bench.new(a=1)


def test_a_client_that_gives_no_new_token_costs_one_read_before_the_next_write(bench: Bench) -> None:
    """As Memcached does."""

    def forgetful(command: Command, perform: Callable[[], Reply]) -> Reply:
        reply = perform()
        return Stored(None) if isinstance(reply, Stored) else reply

    bench.meddle = forgetful
    session = bench.new(a=1)
    bench.asked.clear()
    session.fields["b"] = 2
    bench.save(session)
    assert [type(command) for command in bench.asked] == [Read, Write]
    bench.run(flows.cycle(session, bench.rules))
    assert bench.load(session).fields == {"a": 1, "b": 2}


# apply


def test_apply_runs_on_the_newest_state_and_returns_what_the_function_returned(bench: Bench) -> None:
    first = bench.new(n=0)
    second = bench.load(first)
    assert bench.run(flows.apply(first, increment, bench.rules)) == 1
    assert bench.run(flows.apply(second, increment, bench.rules)) == 2
    assert second.fields["n"] == 2


def test_apply_stores_what_the_request_changed_so_far(bench: Bench) -> None:
    session = bench.new(n=0)
    session.fields["mine"] = 1
    change(bench, session, theirs=1)()
    assert bench.run(flows.apply(session, sorted, bench.rules)) == [
        "mine",
        "n",
        "theirs",
    ]
    assert bench.load(session).fields == {"n": 0, "mine": 1, "theirs": 1}


def test_apply_that_finds_nothing_to_change_has_looked_at_the_newest_state(bench: Bench) -> None:
    session = bench.new(stock=0)
    change(bench, session, stock=1)()

    def take(fields: Fields) -> bool:
        if not fields["stock"]:
            return False
        fields["stock"] -= 1
        return True

    assert bench.run(flows.apply(session, take, bench.rules)) is True
    assert bench.run(flows.apply(session, take, bench.rules)) is False
    assert bench.load(session).fields == {"stock": 0}


def test_apply_on_a_new_session_creates_it(bench: Bench) -> None:
    session = Session()
    assert bench.run(flows.apply(session, increment, bench.rules)) == 1
    assert bench.load(session).fields == {"n": 1}


def test_when_the_function_raises_nothing_is_stored(bench: Bench) -> None:
    session = bench.new(n=0)

    def half(fields: Fields) -> None:
        fields["n"] = 5
        raise LookupError

    with pytest.raises(LookupError):
        bench.run(flows.apply(session, half, bench.rules))
    assert bench.load(session).fields == {"n": 0}
    assert session.fields == {"n": 0}


def test_apply_that_empties_the_session_ends_it(bench: Bench) -> None:
    session = bench.new(n=0)
    bench.run(flows.apply(session, lambda fields: fields.clear(), bench.rules))
    assert session.id is None


# What cannot be read


@pytest.mark.parametrize("value", [b"", b"x", b"\x02" + b"x" * 90, bytes(200)])
def test_what_cannot_be_read_is_no_session_is_told_once_and_stays(bench: Bench, value: bytes) -> None:
    session_id = new_id()
    bench.client.put(bench.rules.key(session_id), value, DAY)
    assert bench.find(session_id) is None
    assert bench.events == ["unreadable"]
    assert everything(bench) == [value]


def test_a_record_that_became_unreadable_meanwhile_is_an_ended_session(bench: Bench) -> None:
    session = bench.new(a=1)
    assert session.id is not None
    bench.client.put(bench.rules.key(session.id), b"garbage", DAY)
    session.fields["b"] = 2
    with pytest.raises(SessionEnded):
        bench.save(session)
    assert everything(bench) == [b"garbage"]


# Lifetimes


def test_a_session_slides_with_each_read_but_not_past_its_idle_timeout(bench: Bench) -> None:
    session = bench.new(a=1)
    for _ in range(5):
        bench.clock.time += DAY - 1
        assert bench.find(session) is not None
    bench.clock.time += DAY
    assert bench.find(session) is None


def test_without_sliding_the_time_counts_from_the_last_save() -> None:
    bench = Bench(sliding=False)
    session = bench.new(a=1)
    bench.clock.time += DAY / 2
    assert bench.find(session) is not None
    bench.clock.time += DAY / 2
    assert bench.find(session) is None


def test_the_absolute_timeout_counts_from_creation_and_neither_use_nor_cycling_extends_it() -> None:
    bench = Bench(absolute_timeout=3 * DAY)
    session = bench.new(a=0)
    for number in range(1, 6):
        bench.clock.time += DAY / 2
        session = bench.load(session)
        session.fields["a"] = number
        bench.save(session)
        bench.run(flows.cycle(session, bench.rules))
    bench.clock.time += DAY / 2 - 1
    assert bench.find(session) is not None
    bench.clock.time += 1
    assert bench.find(session) is None


def test_signing_in_starts_the_absolute_timeout_anew() -> None:
    bench = Bench(absolute_timeout=2 * DAY)
    session = bench.new(a=0)
    bench.clock.time += DAY - 1
    session = bench.load(session)
    bench.run(flows.cycle(session, bench.rules, "alice"))
    assert end_of(bench.header(session), bench.rules) == bench.rules.now() + 2 * DAY
    assert bench.header(session).created == bench.rules.now() - DAY + 1


def test_an_owned_session_ends_after_thirty_days_without_a_setting(bench: Bench) -> None:
    session = Session(owner="alice")
    bench.run(flows.commit(session, bench.rules))
    for _ in range(OWNED_ABSOLUTE_TIMEOUT // DAY * 2 - 1):
        bench.clock.time += DAY / 2
        assert bench.find(session) is not None
    bench.clock.time += DAY / 2
    assert bench.find(session) is None


def test_a_shorter_absolute_timeout_holds_for_sessions_that_are_there_already(bench: Bench) -> None:
    session = bench.new(a=1)
    bench.rules = dataclasses.replace(bench.rules, absolute_timeout=60)
    bench.clock.time += 59
    assert bench.find(session) is not None
    bench.clock.time += 1
    assert bench.find(session) is None


def test_a_session_with_an_idle_timeout_of_its_own_keeps_it(bench: Bench) -> None:
    session = bench.new(a=1)
    session.idle_ttl = 100
    bench.save(session)
    assert bench.ttl(session) == 100
    for _ in range(5):
        bench.clock.time += 99
        assert bench.find(session) is not None
        assert bench.ttl(session) == 100
    session = bench.load(session)
    session.fields["a"] = 2
    bench.save(session)
    assert bench.ttl(session) == 100
    bench.clock.time += 100
    assert bench.find(session) is None


def test_a_session_with_an_end_of_its_own_is_never_stretched(bench: Bench) -> None:
    session = bench.new(a=1)
    session.expires_at = bench.clock.time + 100.5
    bench.save(session)
    bench.clock.time += 50
    session = bench.load(session)
    session.fields["a"] = 2
    bench.save(session)
    assert bench.ttl(session) == 51
    bench.clock.time += 50.9
    assert bench.find(session) is not None
    bench.clock.time += 0.1
    assert bench.find(session) is None


def test_the_header_decides_where_the_store_forgot_to_collect(bench: Bench) -> None:
    session = bench.new(a=1)
    session.expires_at = bench.clock.time + 10
    bench.save(session)
    assert session.id is not None
    key = bench.rules.key(session.id)
    bench.client.put(key, everything(bench)[0], DAY)
    bench.clock.time += 10
    assert bench.find(session) is None
    session.fields["a"] = 2
    with pytest.raises(SessionEnded):
        bench.save(session)


def test_a_read_never_stretches_a_tombstone() -> None:
    bench = Bench()
    session = bench.new(a=1)
    other = bench.load(session)
    bench.run(flows.end(session, bench.rules))
    bench.clock.time += DAY / 2
    assert bench.find(other) is None
    assert bench.ttl(other) == DAY / 2


@pytest.mark.parametrize("lifetime", [0, -1])
def test_a_lifetime_of_nothing_creates_no_session_and_ends_one(lifetime: int) -> None:
    bench = Bench(idle_timeout=lifetime)
    session = Session()
    session.fields["a"] = 1
    bench.save(session)
    assert session.id is None
    assert bench.asked == []

    bench = Bench()
    session = bench.new(a=1)
    session.idle_ttl = lifetime
    bench.save(session)
    assert session.id is None
    assert {unpack(value).header.kind for value in everything(bench)} == {Kind.TOMBSTONE}


def test_an_end_in_the_past_ends_the_session(bench: Bench) -> None:
    session = bench.new(a=1)
    session.expires_at = bench.clock.time - 1
    bench.save(session)
    assert session.id is None


def test_ttls_are_whole_seconds_and_at_least_one(bench: Bench) -> None:
    header = Header(Kind.LIVE, 1, (b"x" * 6,), bench.rules.now(), expires_at=bench.rules.now() + 1)
    assert ttl_of(header, bench.rules) == 1


def test_fields_are_encoded_once_each_by_the_codec(bench: Bench) -> None:
    session = bench.new(a=[1])
    assert unpack(everything(bench)[0]).fields == {"a": codec.encode([1])}
    assert session.stored is not None


def test_what_others_wished_for_the_lifetime_moves_along_to_the_new_id(bench: Bench) -> None:
    session = bench.new(a=1)
    other = bench.load(session)
    other.idle_ttl, other.expires_at = 60, bench.clock.time + 500
    bench.save(other)
    bench.run(flows.cycle(session, bench.rules))
    assert (bench.header(session).idle_ttl, bench.ttl(session)) == (60, 60)
    assert bench.header(session).expires_at == bench.clock.time + 500


def test_cycling_what_this_request_emptied_ends_it_unless_others_put_something_in(bench: Bench) -> None:
    session = bench.new(a=1)
    del session.fields["a"]
    bench.run(flows.cycle(session, bench.rules))
    assert session.id is None
    session = bench.new(a=1)
    old = session.id
    change(bench, session, b=2)()
    del session.fields["a"]
    bench.run(flows.cycle(session, bench.rules))
    assert session.id not in (None, old)
    assert bench.load(session).fields == {"b": 2}
    assert bench.find(old) is None


def test_the_end_of_the_old_id_is_sent_once_more_when_its_reply_does_not_come(bench: Bench) -> None:
    session = bench.new(a=1)
    old, hung = session.id, [2]

    def hang(command: Command, perform: Callable[[], Reply]) -> Reply:
        if isinstance(command, Write) and command.token != ABSENT and hung:
            hung.pop()
            perform()
            raise StoreUnavailable("no reply")
        return perform()

    bench.meddle = hang
    bench.run(flows.cycle(session, bench.rules, "alice"))
    assert not hung
    assert bench.find(old) is None
    assert bench.load(session).fields == {"a": 1}, "the new id is the user's: nobody is logged out"


@pytest.mark.parametrize(
    ("given", "kept"), [(0.5, 1), (10.2, 11), (float("inf"), 2**32 - 1), (2**40, 2**32 - 1)]
)
def test_lifetimes_are_whole_seconds_and_have_room(bench: Bench, given: float, kept: int) -> None:
    session = bench.new(a=1)
    session.idle_ttl = given
    bench.save(session)
    assert bench.header(session).idle_ttl == kept
    session.expires_at = float("inf")
    bench.save(session)
    assert bench.header(session).expires_at == 2**32 - 1


def unreadable_field(bench: Bench) -> Session:
    """A record whose checksum fits and whose field is of a type that only a newer version knows."""
    session = bench.new(a=1)
    assert session.id is not None and session.stored is not None
    fields = {**session.stored.fields, "new": b"\xd4\x7f\x00"}
    bench.client.put(bench.rules.key(session.id), pack(Record(session.stored.header, fields)), DAY)
    return bench.load(session)


def test_a_field_that_cannot_be_decoded_is_never_written_over(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    session = unreadable_field(bench)
    before = everything(bench)
    with pytest.raises(SessionEnded, match="cannot be read"):
        bench.run(flows.apply(session, lambda fields: fields.get("new"), bench.rules))
    assert everything(bench) == before
    handle = session.handle
    assert session.fields.get("new") is None
    assert session.fields == {}
    bench.save(session)
    assert everything(bench) == before
    [line] = caplog.messages
    assert handle is not None and handle in line


def test_a_field_that_cannot_be_decoded_and_is_not_asked_for_stays_as_it_is(bench: Bench) -> None:
    session = unreadable_field(bench)
    assert bench.run(flows.apply(session, increment, bench.rules)) == 1
    header, fields = bench.header(session), unpack(everything(bench)[0]).fields
    assert fields["new"] == b"\xd4\x7f\x00"
    assert header.generation == 2


def test_wishes_are_part_of_a_save(bench: Bench) -> None:
    session = bench.new(a=1)
    old = session.id
    session.owner = "alice"
    bench.run(flows.commit(session, bench.rules))
    assert session.id != old and bench.header(session).owned
    session.ending = True
    session.fields.clear()
    bench.run(flows.commit(session, bench.rules))
    assert session.id is None


def test_nothing_secret_is_shown_by_a_session_or_its_rules() -> None:
    bench = Bench(owner_key=b"swordfish-swordfish")
    session = bench.new(secret="swordfish")
    assert session.id is not None
    for shown in (repr(session), repr(bench.rules)):
        assert "swordfish" not in shown and session.id not in shown


# Nodes that fail one by one


def place(key: bytes) -> str:
    return f"node {key[-1] % 4}"


def down(bench: Bench, *nodes: str) -> None:
    def meddle(command: Command, perform: Callable[[], Reply]) -> Reply:
        if place(command.key) in nodes:
            raise StoreUnavailable(f"{place(command.key)} is down")
        return perform()

    bench.meddle = meddle


@pytest.mark.parametrize("dead", [("node 0",), ("node 0", "node 3")])
def test_a_new_session_finds_a_node_that_lives(dead: tuple[str, ...]) -> None:
    bench = Bench(node_of=place)
    down(bench, *dead)
    for number in range(40):
        bench.asked.clear()
        assert bench.load(bench.new(number=number)).fields["number"] == number
        tried = [place(command.key) for command in bench.asked if isinstance(command, Write)]
        assert len(tried) == len(set(tried)), "no node is asked twice"


def test_after_three_nodes_that_failed_a_new_session_is_given_up() -> None:
    bench = Bench(node_of=place)
    down(bench, "node 0", "node 1", "node 2", "node 3")
    with pytest.raises(StoreUnavailable):
        bench.new(a=1)
    assert len({place(command.key) for command in bench.asked}) == len(bench.asked) == 3


def test_where_all_fails_at_once_a_new_session_is_tried_once(bench: Bench) -> None:
    down(bench, "node 0", "node 1", "node 2", "node 3")
    with pytest.raises(StoreUnavailable):
        bench.new(a=1)
    assert len(bench.asked) == 1


def test_an_id_that_was_announced_is_kept_where_its_node_lives() -> None:
    bench = Bench(node_of=place)
    session = bench.new(a=1)
    session.next_id = known = new_id()
    bench.run(flows.cycle(session, bench.rules))
    assert session.id == known
    while place(bench.rules.key(session.next_id or "")) != "node 0":
        session.next_id = new_id()
    down(bench, "node 0")
    if place(bench.rules.key(known)) != "node 0":
        bench.run(flows.cycle(session, bench.rules))
        assert place(bench.rules.key(session.id or "")) != "node 0"
