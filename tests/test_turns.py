"""When a writer whom others were faster than tries again (`turns`), by a clock that the test moves."""

from __future__ import annotations

import random

import pytest

from elasticache_sessions.turns import Turns


@pytest.fixture(autouse=True)
def farthest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance picks the end of each window, so that a pause tells how large that is."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)


def pauses(attempts: int, each: float, *, start: float = 1_700_000_000.0) -> dict[int, float]:
    """Before which attempts a writer pauses, and for how long at most, where each attempt takes so many seconds."""
    now = start
    turns = Turns(lambda: now)
    found = {}
    for attempt in range(attempts):
        if pause := turns.pause_before(attempt):
            found[attempt] = pause
        now += each
    return found


def test_few_writers_never_pause() -> None:
    assert pauses(4, 0.001) == {}


def test_a_writer_pauses_now_and_then_and_is_eager_in_between() -> None:
    assert list(pauses(17, 0.001)) == [4, 7, 10, 13, 16]


def test_the_first_window_has_room_for_a_crowd_whose_attempts_take_as_long_as_ours() -> None:
    assert pauses(5, 0.001)[4] == pytest.approx(0.012, rel=0.01)
    assert pauses(5, 0.002)[4] == pytest.approx(0.024, rel=0.01)


def test_each_window_is_larger_than_the_one_before_up_to_a_bound() -> None:
    found = list(pauses(60, 0.001).values())
    assert found[1] == pytest.approx(found[0] * 1.5)
    assert found[2] == pytest.approx(found[0] * 1.5**2)
    assert max(found) == found[-1] == found[-2] == 0.25


@pytest.mark.parametrize(("each", "first"), [(0.0, 0.003), (-3600.0, 0.003), (3600.0, 0.05)])
def test_a_clock_that_stands_still_or_jumps_does_no_harm(each: float, first: float) -> None:
    assert pauses(5, each)[4] == first
