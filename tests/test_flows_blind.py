"""Where a touch is blind: a session still lives as long as its lifetimes say, and nothing comes back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, strategies as st

from elasticache_sessions import flows
from elasticache_sessions.clients.base import Command, Read, Reply, Write
from elasticache_sessions.exceptions import SessionEnded, StoreUnavailable
from elasticache_sessions.record import Kind
from elasticache_sessions.session import FOREVER, OWNED_ABSOLUTE_TIMEOUT, Session
from tests.support.bench import DAY, Bench, BlindBench, change

HOUR = 3600
# Beside the store-wide DAY of a bench.
SHORTER, LONGER = HOUR, 10 * DAY


@pytest.fixture
def bench() -> BlindBench:
    return BlindBench()


def own(bench: Bench, idle_ttl: int, **wishes: Any) -> Session:
    """A stored session with an idle timeout of its own."""
    session = Session(idle_ttl=idle_ttl, **wishes)
    session.fields["a"] = 1
    bench.run(flows.commit(session, bench.rules))
    return session


def reads(bench: Bench, session: Session) -> list[type[Command]]:
    """What reading it asks the store."""
    bench.asked.clear()
    bench.load(session)
    return [type(command) for command in bench.asked]


# Sliding


def test_a_session_without_a_lifetime_of_its_own_slides_by_the_touch_alone(bench: BlindBench) -> None:
    session = bench.new(a=1)
    for _ in range(5):
        bench.clock.time += DAY - 1
        assert reads(bench, session) == [Read]
        assert bench.header(session).idle_end == 0
    bench.clock.time += DAY
    assert bench.find(session) is None


@pytest.mark.parametrize("idle_ttl", [SHORTER, DAY])
def test_a_shorter_idle_timeout_of_its_own_slides_by_a_write_once_60_s_have_passed(
    bench: BlindBench, idle_ttl: int
) -> None:
    session = own(bench, idle_ttl)
    bench.clock.time += 59
    assert reads(bench, session) == [Read]
    bench.clock.time += 1
    assert reads(bench, session) == [Read, Write]
    assert bench.header(session).idle_end == bench.rules.now() + idle_ttl
    assert reads(bench, session) == [Read]


def test_a_very_short_one_slides_once_a_tenth_of_it_has_passed(bench: BlindBench) -> None:
    session = own(bench, 100)
    bench.clock.time += 9
    assert reads(bench, session) == [Read]
    bench.clock.time += 1
    assert reads(bench, session) == [Read, Write]


def test_a_longer_one_is_written_with_each_read_since_the_touch_has_cut_it(bench: BlindBench) -> None:
    session = own(bench, LONGER)
    for _ in range(3):
        assert reads(bench, session) == [Read, Write]
        assert bench.ttl(session) == LONGER


def test_a_process_that_dies_after_the_touch_leaves_the_store_wide_ttl_and_the_next_read_mends_it(
    bench: BlindBench,
) -> None:
    session = own(bench, LONGER)

    def die(command: Command, perform: Any) -> Reply:
        if isinstance(command, Write):
            raise StoreUnavailable("gone", sent=False)
        reply: Reply = perform()
        return reply

    bench.meddle = die
    with pytest.raises(StoreUnavailable):
        bench.find(session)
    assert bench.ttl(session) == DAY
    bench.meddle = lambda command, perform: perform()
    bench.clock.time += DAY - 1
    bench.load(session)
    assert bench.ttl(session) == LONGER


def test_sliding_keeps_the_content_and_is_one_write(bench: BlindBench) -> None:
    session = own(bench, LONGER)
    before = bench.header(session)
    assert bench.load(session).fields == {"a": 1}
    after = bench.header(session)
    assert after == before._replace(
        generation=before.generation + 1, revisions=(after.revision, *before.revisions[:3])
    )


def test_what_slid_can_be_changed_at_the_price_of_one_more_read(bench: BlindBench) -> None:
    session = bench.load(own(bench, LONGER))
    bench.asked.clear()
    session.fields["b"] = 2
    bench.save(session)
    assert [type(command) for command in bench.asked] == [Read, Write]
    assert bench.load(session).fields == {"a": 1, "b": 2}


def test_without_sliding_no_read_writes_and_its_time_counts_from_the_last_save() -> None:
    bench = BlindBench(sliding=False)
    session = own(bench, SHORTER)
    bench.clock.time += SHORTER - 1
    assert reads(bench, session) == [Read]
    bench.clock.time += 1
    assert bench.find(session) is None


def test_a_session_that_no_longer_fits_is_read_all_the_same(bench: BlindBench) -> None:
    session = own(bench, LONGER)
    bench.rules = dataclasses.replace(bench.rules, max_bytes=10)
    assert bench.load(session).fields == {"a": 1}


def test_a_record_that_does_not_say_when_it_ends_is_made_to_say_it(bench: BlindBench) -> None:
    rules, bench.rules = bench.rules, dataclasses.replace(bench.rules, blind_touch=False)
    session = own(bench, SHORTER)
    assert bench.header(session).idle_end == 0
    bench.rules = rules
    assert reads(bench, session) == [Read, Write]
    assert bench.header(session).idle_end == bench.rules.now() + SHORTER


# Beside others


def test_another_request_that_wrote_meanwhile_has_slid_it(bench: BlindBench) -> None:
    session = own(bench, LONGER)
    bench.on_write(change(bench, session, b=2))
    loaded = bench.load(session)
    assert loaded.fields == {"a": 1, "b": 2}
    assert bench.events.count("conflict") == 1
    assert bench.ttl(session) == LONGER
    # What it met is what it holds: its own change goes through at once.
    loaded.fields["c"] = 3
    bench.asked.clear()
    bench.save(loaded)
    assert len(bench.asked) == 1


def test_a_session_that_is_ended_while_it_slides_is_none(bench: BlindBench) -> None:
    session = own(bench, LONGER)
    bench.on_write(lambda: bench.run(flows.end_id(session.id, bench.rules)))
    assert bench.find(session) is None
    assert bench.header(session).kind is Kind.TOMBSTONE


def test_a_session_that_vanishes_while_it_slides_is_none(bench: BlindBench) -> None:
    session = own(bench, LONGER)
    bench.on_write(bench.client.clear)
    assert bench.find(session) is None
    assert list(bench.client.keys()) == []


def test_what_others_wrote_since_this_request_saved_moves_along_to_the_new_id(bench: BlindBench) -> None:
    """A write brings no token: the next one reads first, and finds what it has to carry over."""
    session = bench.new(a=1)
    change(bench, session, b=2)()
    bench.run(flows.cycle(session, bench.rules, "ada"))
    assert session.fields == {"a": 1, "b": 2}
    assert bench.load(session).fields == {"a": 1, "b": 2}


def test_a_cycle_after_a_save_costs_one_read_more_and_no_other(bench: BlindBench) -> None:
    session = bench.new(a=1)
    bench.asked.clear()
    bench.run(flows.cycle(session, bench.rules))
    assert [type(command) for command in bench.asked] == [Write, Read, Write]


def test_an_apply_that_changes_nothing_after_a_save_looks_once(bench: BlindBench) -> None:
    session = bench.new(a=1)
    bench.asked.clear()
    assert bench.run(flows.apply(session, lambda fields: fields["a"], bench.rules)) == 1
    assert [type(command) for command in bench.asked] == [Read]


# Ends


def test_a_touch_that_stretches_the_ttl_does_not_stretch_the_session(bench: BlindBench) -> None:
    session = own(bench, SHORTER)
    bench.clock.time += 59
    bench.load(session)  # does not write
    assert bench.ttl(session) == DAY
    bench.clock.time += SHORTER - 59
    assert bench.find(session) is None
    assert bench.ttl(session) is not None, "it was not the store that ended it"


@pytest.mark.parametrize("idle_ttl", [SHORTER, LONGER])
def test_an_end_of_its_own_stays_where_it_is_while_its_idle_time_slides(
    bench: BlindBench, idle_ttl: int
) -> None:
    end = bench.rules.now() + 3 * idle_ttl
    session = own(bench, idle_ttl, expires_at=end)
    for _ in range(5):
        bench.clock.time += idle_ttl // 2
        bench.load(session)
        assert (bench.header(session).expires_at, bench.header(session).idle_ttl) == (end, idle_ttl)
        change(bench, session, n=bench.rules.now())()
        assert bench.header(session).expires_at == end
    bench.clock.time = end - 1
    assert bench.find(session) is not None
    bench.clock.time = end
    assert bench.find(session) is None


def test_an_end_that_comes_first_needs_no_sliding(bench: BlindBench) -> None:
    session = own(bench, LONGER, expires_at=bench.rules.now() + HOUR)
    bench.clock.time += HOUR / 2
    assert reads(bench, session) == [Read]
    bench.clock.time += HOUR / 2
    assert bench.find(session) is None


def test_the_absolute_timeout_holds_beside_an_idle_timeout_of_its_own() -> None:
    bench = BlindBench(absolute_timeout=3 * HOUR)
    session = own(bench, HOUR)
    for _ in range(3):
        bench.clock.time += HOUR - 1
        bench.load(session)
    bench.clock.time += 3
    assert bench.find(session) is None


def test_signing_in_moves_the_fixed_end_and_keeps_the_idle_timeout(bench: BlindBench) -> None:
    session = own(bench, SHORTER)
    bench.clock.time += 100
    bench.run(flows.cycle(session, bench.rules, "ada"))
    header = bench.header(session)
    assert header.expires_at == bench.rules.now() + OWNED_ABSOLUTE_TIMEOUT
    assert (header.idle_ttl, header.idle_end) == (SHORTER, bench.rules.now() + SHORTER)


def test_the_longest_idle_timeout_has_room(bench: BlindBench) -> None:
    session = own(bench, 10 * FOREVER)
    assert bench.header(session).idle_end == FOREVER
    assert bench.find(session) is not None


# Tombstones


@pytest.mark.parametrize("idle_ttl", [SHORTER, LONGER])
def test_a_tombstone_whose_ttl_a_touch_changed_revives_nothing(bench: BlindBench, idle_ttl: int) -> None:
    session = own(bench, idle_ttl)
    early = bench.load(session)  # read before the end
    bench.run(flows.end_id(session.id, bench.rules))
    assert bench.header(session).idle_end == 0
    assert bench.find(session) is None  # touches it
    assert bench.ttl(session) == DAY
    early.fields["late"] = True
    for wait in (0, idle_ttl, DAY):
        bench.clock.time += wait
        assert bench.find(session) is None
        with pytest.raises(SessionEnded):
            bench.save(early)
        assert all(bench.header(session).kind is Kind.TOMBSTONE for _ in bench.client.keys())
    bench.clock.time += LONGER
    assert list(bench.client.keys()) == []
    with pytest.raises(SessionEnded):
        bench.save(early)
    assert list(bench.client.keys()) == []


# What is not there


def test_an_id_that_the_store_does_not_know_is_told_and_an_ended_one_is_not(bench: BlindBench) -> None:
    assert bench.find("x" * 40) is None
    assert bench.events == ["missing"]
    session = bench.new(a=1)
    bench.run(flows.end(bench.load(session), bench.rules))
    bench.client.put(bench.rules.key("y" * 40), b"no record", 60)
    bench.events.clear()
    assert bench.find(session) is None
    assert bench.find("no id") is None
    assert bench.find("y" * 40) is None
    assert bench.events == ["unreadable"]
    bench.client.clear()
    assert bench.find(session) is None
    assert bench.events == ["unreadable", "missing"]


# The model


class Lifetimes:
    """When a session that is used may have ended, and when it must have."""

    def __init__(self, bench: Bench, idle_ttl: int | None, end: int | None) -> None:
        self.idle = idle_ttl or bench.rules.idle_timeout
        self.lag = min(60, self.idle / 10)  # a read slides only once this much has passed
        self.end = FOREVER if end is None else int(bench.clock.time) + end
        self.used = bench.clock.time

    def use(self, now: float) -> None:
        self.used = now

    def must_live(self, now: float) -> bool:
        return now < min(self.used + self.idle - self.lag, self.end)

    def must_have_ended(self, now: float) -> bool:
        return now >= min(self.used + self.idle, self.end)


@pytest.mark.parametrize("kind", [Bench, BlindBench])
@given(
    idle_ttl=st.none() | st.integers(2, 3 * DAY),
    end=st.none() | st.integers(2, 5 * DAY),
    steps=st.lists(
        st.tuples(st.integers(0, DAY), st.sampled_from(["read", "write", "apply", "cycle"])), max_size=12
    ),
)
def test_a_session_lives_as_long_as_its_lifetimes_say(
    kind: type[Bench], idle_ttl: int | None, end: int | None, steps: list[tuple[int, str]]
) -> None:
    bench = kind()
    model = Lifetimes(bench, idle_ttl, end)
    session = Session(idle_ttl=idle_ttl, expires_at=None if end is None else model.end)
    session.fields["n"] = 0
    bench.save(session)
    for wait, step in steps:
        bench.clock.time += wait
        found = bench.find(session)
        if found is None:
            assert not model.must_live(bench.clock.time)
            return
        assert not model.must_have_ended(bench.clock.time)
        model.use(bench.clock.time)
        found.fields["n"] = found.fields["n"] + 1
        if step == "write":
            bench.save(found)
        elif step == "apply":
            bench.run(flows.apply(found, lambda fields: fields.update(n=0), bench.rules))
        elif step == "cycle":
            bench.run(flows.cycle(found, bench.rules))
            session = found
