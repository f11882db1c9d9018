"""The benchmark's own reckoning, without measuring anything: `make bench` measures."""

from __future__ import annotations

import json
import random
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    growth_pages,
    growth_records,
    growth_virtual,
    growth_visitors,
    pages,
    payloads,
    plan,
    results,
    targets,
)
from benchmarks.browser import Jar
from benchmarks.cases import CASES, READ, Block
from benchmarks.delay import delayed
from benchmarks.figures import Measured, Sample, Spread, calm, difference, ratio
from benchmarks.growth_visitors import SIZES
from benchmarks.payloads import SMALL
from benchmarks.plan import Point
from elasticache_sessions.record import unpack
from elasticache_sessions.session import Rules

ROOT = Path(__file__).parents[1]
FLASK = next(group for group in plan.GROUPS if group.name == "flask")


def measured(**walls: list[float]) -> Measured:
    """What the stacks took to read in each round."""
    samples = {
        name.replace("_", "-"): [Sample(wall, wall / 2) for wall in mine] for name, mine in walls.items()
    }
    return Measured(FLASK, Point(READ, SMALL), samples)


def test_a_block_is_its_median_and_what_was_computed_on_average() -> None:
    assert Sample.of(Block((1_000, 2_000, 900_000), (1_000, 1_000, 4_000))) == Sample(2.0, 2.0)


def test_what_the_app_costs_without_sessions_is_subtracted_round_by_round() -> None:
    one = measured(plain=[100, 200], ours=[150, 260], redis_py=[50, 60])
    own = {stack.name: [sample.wall for sample in one.own(stack)] for stack in one.stacks()}
    assert own == {"plain": [100, 200], "ours": [50, 60], "redis-py": [50, 60]}


def test_the_rounds_in_which_all_together_took_least_count_and_stay_together() -> None:
    numbers = range(16)
    ours = [
        Sample(100 - number, 0) for number in numbers
    ]  # the later the faster, but all are slow from the ninth round on
    peer = [Sample(200 + 1000 * (number > 8), 0) for number in numbers]
    assert calm({"ours": ours, "peer": peer}) == {"ours": ours[5:9], "peer": peer[5:9]}
    assert calm({"ours": ours[:2]}) == {"ours": ours[:2]}


def test_a_ratio_is_that_of_the_medians_and_lies_between_what_other_rounds_would_have_said() -> None:
    mine, theirs = [10.0, 20.0, 30.0] * 5, [20.0, 40.0, 90.0] * 5
    found = ratio(mine, theirs)
    assert found.median == 0.5
    assert 1 / 3 <= found.low < 0.5 <= found.high <= 0.5  # rounds are drawn whole: none has 30 by 20
    assert difference(mine, theirs).median == -20


def test_a_steady_ratio_lies_between_itself() -> None:
    assert ratio([10, 20, 10], [20, 40, 20]) == Spread(0.5, 0.5, 0.5)


def test_every_target_is_of_something_that_is_measured() -> None:
    points = {f"{group.name} {point.name}": (group, point) for group in plan.GROUPS for point in group.points}
    for target in targets.TARGETS:
        group, point = points[target.where]
        able = {stack.name for stack in group.stacks if stack.can(point.case, point.size)}
        assert {target.mine, target.theirs} <= able, target
        assert (target.by == "rate") == group.asynchronous


def test_outcomes_say_what_was_reached() -> None:
    one = measured(plain=[100] * 3, ours=[140] * 3, flask_session=[200] * 3, redis_py=[60] * 3)
    read, cpu = targets.outcomes([one])
    assert (read.case, read.against, read.measured, read.reached) == (
        "read, 200 B",
        "Flask-Session as it comes",
        0.4,
        True,
    )
    assert (cpu.by, cpu.measured, cpu.reached) == ("CPU", -10, True)
    slower = targets.Outcome("", "", "rate", 3.0, 2.9, 2.8, 3.0)
    assert not slower.reached
    assert slower.words() == ("at least 3.00 times", "2.90 times", "2.80 times … 3.00 times")


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    one = measured(plain=[100.0, 100.0], ours=[140.0, 140.0], flask_session=[200.0, 200.0])
    said = results.Results.of([one], results.about())
    said.write(tmp_path / "results.json")
    assert results.Results.read(tmp_path / "results.json") == said


def test_a_part_of_the_plan_can_be_chosen() -> None:
    (group,) = plan.chosen("^flask read 2", "^ours$")
    assert [point.name for point in group.points] == ["read 200 B", "read 2 KB"]
    assert [stack.name for stack in group.stacks] == ["plain", "ours"]
    assert plan.chosen("nobody asks", None) == []


def test_each_payload_is_as_large_as_it_says_and_the_same_each_time() -> None:
    for size in payloads.SIZES:
        content = payloads.content(size)
        assert size * 0.9 < len(json.dumps(content)) <= size * 1.1
        assert content == payloads.content(size)
        assert content["name"] == payloads.NAME


def test_a_browser_keeps_and_forgets_cookies() -> None:
    jar = Jar()
    jar.keep("session=abc; HttpOnly; Path=/")
    jar.keep("other=1")
    jar.keep("session=; Max-Age=0; Path=/")
    assert jar.header == "other=1"


def test_the_long_way_hands_on_all_that_it_gets_in_order() -> None:
    with socket.create_server(("127.0.0.1", 0)) as echo:

        def answer() -> None:
            connection, _ = echo.accept()
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        with delayed(echo.getsockname()[1], 0.002) as port:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                sent = b"".join(number.to_bytes(4, "big") for number in range(20_000))
                connection.sendall(sent)
                got = b""
                while len(got) < len(sent):
                    got += connection.recv(65_536)
            thread.join(10)
    assert got == sent
    assert not thread.is_alive()  # the end of the connection was handed on as well


# docs/performance.md


def test_the_page_has_a_place_for_each_block_and_no_other() -> None:
    blocks = {*pages.BLOCKS, *growth_pages.BLOCKS}
    assert pages.marks((ROOT / "docs" / "performance.md").read_text()) == blocks


def test_the_page_says_what_the_last_whole_run_found() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page == pages.filled(page, results.Results.read(ROOT / "benchmarks" / "results.json"))


def test_the_page_says_what_became_of_growth() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    found = json.loads((ROOT / "benchmarks" / "growth.json").read_text())
    assert {growth_pages.part_of(name) for name in growth_pages.BLOCKS} <= set(found)
    assert page == growth_pages.filled(page, found)


def test_a_crowd_loses_no_change_in_virtual_time() -> None:
    place = growth_virtual.PLACES[0]
    (one,) = growth_virtual.crowd(place, 1, random.Random(1))
    assert (one.trips, one.conflicts) == (2, 0)
    crowd = growth_virtual.crowd(place, 16, random.Random(1))  # looks whether all changes are there
    assert sum(request.conflicts for request in crowd) >= 15


@pytest.mark.parametrize("size", SIZES)
def test_visitors_hold_as_much_as_they_are_to_and_no_two_the_same(size: int) -> None:
    visitors = growth_visitors.Visitors(size)
    made = [json.dumps(visitors.fields(number)) for number in range(1000)]
    assert len(set(made)) == len(made)
    assert sum(map(len, made)) / len(made) == pytest.approx(size, rel=0.05)


def test_what_is_loaded_by_the_million_is_what_a_sign_in_stores() -> None:
    fields = growth_visitors.Visitors(200).fields(7)
    stack, rules = growth_records.ours(memcached=False), Rules("sess:", growth_records.LIFETIME)
    kept, signed = stack.make(fields), growth_records.signed_in(fields, rules)
    loaded, stored = unpack(kept.value), unpack(signed.session.value)
    assert dict(loaded.fields) == dict(stored.fields)
    apart: dict[str, Any] = {"revisions": (), "created": 0, "authenticated_at": 0, "expires_at": 0}
    assert loaded.header._replace(**apart) == stored.header._replace(**apart)


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_measured_in_both_frameworks(case: str) -> None:
    points = {(group.name, point.case.name) for group in plan.GROUPS for point in group.points}
    assert {("flask", case), ("django", case)} <= points
