"""What several nodes of Memcached promise, model-checked: any interleaving of requests, of the single questions that they ask
the nodes, and of what becomes of nodes, answers and clients.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from elasticache_sessions.clients.base import ABSENT, Command, Conflict, Entry, Read, Reply, Stored, Write
from elasticache_sessions.clients.memcached_asks import Ask, Flight
from elasticache_sessions.clients.memcached_copies import perform
from elasticache_sessions.clients.memcached_look import View
from tests.support.model import Broken, World
from tests.support.model_nodes import REVISIONS
from tests.support.model_runs import machine, search


@pytest.fixture(autouse=True)
def same_revisions_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", REVISIONS)


def two() -> World:
    return World(perform)


def scaling() -> World:
    return World(perform, ("b", "c"), scales=True)


def scaling_alone() -> World:
    return World(perform, ("b", "c"), scales=True, copies=1)


WORLDS = [two, scaling, scaling_alone]


# The promise: with one node in trouble at a time, nothing acknowledged is lost, and nothing that ended is back.


@pytest.mark.hypothesis
@pytest.mark.parametrize("make", WORLDS)
def test_no_order_of_things_breaks_the_promise(make: Callable[[], World]) -> None:
    run_state_machine_as_test(machine(make))  # type: ignore[arg-type]  # it calls it


@pytest.mark.parametrize("make", WORLDS)
def test_no_walk_breaks_the_promise(make: Callable[[], World]) -> None:
    broken = search(make, range(100))
    assert broken is None, broken


@pytest.mark.slow
@pytest.mark.parametrize("make", WORLDS)
def test_no_walk_of_many_breaks_the_promise(make: Callable[[], World]) -> None:
    broken = search(make, range(1_000, 3_000))
    assert broken is None, broken


# The model can fail.


def careless(command: Command, view: View) -> Flight[Reply]:
    """Two copies as one would write them down first: asks both, believes the first, and repairs nothing."""
    owners = view.owners(command.key)
    if isinstance(command, Write):
        tokens = dict.fromkeys(owners, "") if command.token == ABSENT else json.loads(command.token)
        answers = yield [
            Ask(node, Write(command.key, command.value, command.ttl, token.encode()))
            for node, token in tokens.items()
        ]
        if any(isinstance(answer, Stored) for answer in answers):
            return Stored(None)
        return Conflict((yield from _first(command.key, owners)))
    if isinstance(command, Read):
        return (yield from _first(command.key, owners))
    answers = yield [Ask(node, command) for node in owners]
    return any(answer is True for answer in answers)


def _first(key: bytes, owners: tuple[str, ...]) -> Flight[Entry | None]:
    answers: list[Any] = yield [Ask(node, Read(key)) for node in owners]
    found = {node: answer for node, answer in zip(owners, answers, strict=True) if isinstance(answer, Entry)}
    tokens = json.dumps({node: entry.token.decode() for node, entry in found.items()}).encode()
    return next((Entry(entry.value, tokens) for entry in found.values()), None)


def test_hypothesis_finds_what_a_careless_protocol_loses() -> None:
    settings = hypothesis.settings(max_examples=200, phases=(hypothesis.Phase.generate,), derandomize=True)
    with pytest.raises(Broken):
        run_state_machine_as_test(machine(lambda: World(careless)), settings=settings)  # type: ignore[arg-type]


def test_walks_find_all_that_a_careless_protocol_does() -> None:
    found = set()
    for seed in range(100):
        broken = search(lambda: World(careless), [seed])
        found.add(str(broken).split("\n")[0].split("=")[0].split(":")[0])
    assert found >= {
        "an ended session is back",
        "applied, acknowledged and lost",
        "w0",
        "after a quiet load the copies differ",
    }
