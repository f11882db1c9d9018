"""What several nodes of Memcached promise, model-checked: any interleaving of requests, of the single questions that they ask
the nodes, and of what becomes of nodes, answers and clients.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from elasticache_sessions import StoreUnavailable
from elasticache_sessions.clients import memcached_views
from elasticache_sessions.clients.base import ABSENT, Command, Conflict, Entry, Read, Reply, Stored, Write
from elasticache_sessions.clients.memcached_asks import Ask, Flight
from elasticache_sessions.clients.memcached_copies import perform, write
from elasticache_sessions.clients.memcached_look import View
from elasticache_sessions.clients.memcached_nodes import Nodes
from elasticache_sessions.clients.memcached_views import Token
from elasticache_sessions.record import Header, Kind, Record, pack
from tests.support.model import Broken, World
from tests.support.model_nodes import REVISIONS
from tests.support.model_runs import machine, play, search


@pytest.fixture(autouse=True)
def same_revisions_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", REVISIONS)


def two() -> World:
    return World(perform)


def scaling() -> World:
    return World(perform, ("b", "c"), scales=True)


def scaling_alone() -> World:
    return World(perform, ("b", "c"), scales=True, copies=1)


def amid_a_change() -> World:
    """Where a node may fail before everybody has heard of a change: more than is promised."""
    return World(perform, ("b", "c"), scales=True, single_faults=False)


WORLDS = [two, scaling, scaling_alone]


# The promise: with one node in trouble at a time, nothing acknowledged is lost, and nothing that ended is back.


@pytest.mark.hypothesis
@pytest.mark.parametrize("make", WORLDS)
def test_no_order_of_things_breaks_the_promise(make: Callable[[], World]) -> None:
    # A tenth of a second each, on the long profile: the walks below go further for their time.
    settings = hypothesis.settings(max_examples=min(hypothesis.settings().max_examples, 300))
    run_state_machine_as_test(machine(make), settings=settings)  # type: ignore[arg-type]  # it calls it


@pytest.mark.parametrize("make", WORLDS)
def test_no_walk_breaks_the_promise(make: Callable[[], World]) -> None:
    broken = search(make, range(100))
    assert broken is None, broken


@pytest.mark.parametrize("make", WORLDS)
def test_no_walk_breaks_the_promise_where_the_copies_are_encrypted(
    make: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks after the copies has no key, and cannot make one of two."""
    monkeypatch.setattr(memcached_views, "_union", lambda _one, _other: None)
    broken = search(make, range(2_000, 2_040))
    assert broken is None, broken


@pytest.mark.slow
@pytest.mark.parametrize("make", WORLDS)
def test_no_walk_of_many_breaks_the_promise(make: Callable[[], World]) -> None:
    broken = search(make, range(1_000, 1_500))
    assert broken is None, broken


# What the model has found, in the words of `model_runs.play`; each broke the promise once. Each ends with all well again.

STORIES = {
    "the copies that one flight brings are of two moments": (
        two,
        """
        trip w0 a
        begin w1 save
        deliver w1 a
        deliver w1 b
        w0 save          # on b alone, which is acknowledged
        deliver w1 a     # half of a write
        begin w2 load
        deliver w2 a     # sees the half
        w1               # gives way, and writes again
        w2               # sees on b what is made of both; it must not take what it saw on a for the better one
        """,
    ),
    "what one flight brings is of two moments, and by two writers": (
        two,
        """
        begin w1 save
        deliver w1 a
        deliver w1 b
        trip w0 a
        w0 save          # on b alone
        deliver w1 a     # half of a write
        begin ender load
        deliver ender a  # sees the half
        die w1
        w2 save          # on both
        ender
        """,
    ),
    "what was written on a record that was alone is not alone itself": (
        two,
        """
        trip w0 a
        w0 save          # on b alone
        w1 load          # gives it to a
        begin w2 save
        deliver w2 a
        deliver w2 b
        w0 save          # on b alone again
        w2               # half of a write on a, which is nothing that may be acknowledged
        """,
    ),
    "a node goes down in the middle of a write, and the other one has half of another": (
        two,
        """
        begin w1 save
        deliver w1 a
        deliver w1 b
        begin w0 save
        deliver w0 a
        deliver w0 b
        deliver w1 a     # half of a write
        deliver w0 b
        trip w0 a
        w0               # acknowledged, as the only one
        die w1
        close w0 a
        """,
    ),
    "what was read has not held, so that nobody deleted it": (
        two,
        """
        begin w0 save
        deliver w0 a
        deliver w0 b
        begin w1 save
        deliver w1 a
        deliver w1 b
        deliver w0 a     # half of a write
        deliver w1 b     # half of another
        fail w1 over
        trip w1 a
        begin w1 save
        down w1 a
        deliver w1 b     # reads its own half
        w2 load          # which gives way
        w1
        w0
        """,
    ),
    "a write that is found again is on one node alone": (
        two,
        """
        begin w1 apply
        deliver w1 a
        deliver w1 b
        begin w0 save
        deliver w0 a
        deliver w0 b
        trip w1 a
        down w1 a
        deliver w1 b
        lose w1 b        # is stored
        fail w1 again
        deliver w0 a     # half of another write, on the node that decides
        w1               # is not to be content with b as it is
        w0
        """,
    ),
    "so many writes later nobody can tell whether one is among them": (
        two,
        """
        begin w2 apply
        deliver w2 a
        deliver w2 b
        deliver w2 a     # has decided
        w1 save          # on top of it
        trip w0 a
        w0 save          # on b alone
        close w0 a
        w1 save
        w0 save
        w1 save
        w2               # must not apply it again
        """,
    ),
    "a node forgets half of a write before the other half is stored": (
        two,
        """
        begin w2 save
        deliver w2 a
        deliver w2 b
        deliver w2 a     # the first half
        begin w1 load
        deliver w1 b
        restart a
        begin w0 apply
        deliver w0 b
        w1               # gives a what was there before
        w2               # the other half: nothing to acknowledge any more, or to be told from what w0 writes
        w0
        """,
    ),
    "a write that is found again is the same write made of something else": (
        two,
        """
        begin w1 save
        deliver w1 a
        deliver w1 b
        begin w2 load
        deliver w1 a     # the first attempt
        deliver w2 a
        trip w0 a
        w0 save
        w1               # the second attempt, under the same revision
        w2
        """,
    ),
    "a node with the tombstone forgets it while it is asked how long that lives": (
        two,
        """
        begin w0 save
        deliver w0 a
        deliver w0 b
        begin ender end
        deliver ender a
        deliver ender b
        deliver ender a  # the tombstone
        deliver w0 b     # half of a write
        deliver ender b  # refused
        deliver ender a
        restart a
        ender
        w0
        """,
    ),
    "a session leaves between two looks for it": (
        scaling_alone,
        """
        change a b c
        hear w1
        hear w2
        begin w2 load
        deliver w2 a     # not there yet
        w1 apply         # has moved it
        w2               # not there any more
        """,
    ),
    "a session begins where some do not look for it yet": (
        scaling_alone,
        """
        change a c
        hear w0
        w0 create
        w1 load
        """,
    ),
    "a session begins in a process that does not know yet which nodes there were": (
        scaling_alone,
        """
        change a c
        begin w0 load
        die w0
        w0 create
        w1 load
        """,
    ),
    "a node that joins takes the place of the only one that has the last write": (
        amid_a_change,
        """
        trip w1 b
        change a b c
        w1 save          # with old news, on c alone
        close w1 b
        hear w0
        w0 load          # from b and a
        """,
    ),
    "the node that decides gives way to the other one, which was alone": (
        two,
        """
        trip w0 a
        begin w2 apply
        deliver w2 a
        deliver w2 b
        w0 save
        w0 save
        deliver w2 a     # has decided
        w0 apply
        w1 save          # takes b for what counts, and nobody sees any more that it was alone
        w2
        """,
    ),
    "the node that decides forgets it, and so many writes follow that nobody can tell": (
        two,
        """
        begin w2 apply
        deliver w2 a
        deliver w2 b
        deliver w2 a     # has decided
        restart a
        w0 save
        w1 save
        w0 save
        w1 save
        w0 save
        w2
        """,
    ),
    "a node that gave a session away gets it back, while one of the others is down": (
        amid_a_change,
        """
        change a d
        hear w0
        w0 create        # leaves word on b and c
        hear ender
        trip ender a
        hear w1
        hear w2
        change a c d
        ender end        # with old news, on d alone
        close ender a
        hear w0
        w0 load          # from a and c
        """,
    ),
    "a node that is down for one with old news": (
        amid_a_change,
        """
        change b d
        hear w0
        w0 create
        w1 load
        trip w1 b
        begin w1 save
        w0 apply         # on b and d
        w1               # on c, if anywhere
        close w1 b
        """,
    ),
    "old news and new news have different nodes decide": (
        scaling,
        """
        begin w2 apply
        change a c d
        hear w1
        deliver w2 b
        deliver w2 c
        w1 apply
        w2
        """,
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_story_that_broke_the_promise_once_ends_well(name: str) -> None:
    make, story = STORIES[name]
    world = make()
    world.run("w0", "create")
    play(world, story).settle()


def test_two_that_take_another_node_for_the_one_that_decides_do_not_swap_their_halves() -> None:
    world = scaling()
    world.run("w0", "create")
    play(world, "change a b c\nhear w0\nhear w1\nhear w2\nhear ender\nw0 load")
    # As where a process has been told something else of the nodes before: nothing but the fence is left.
    world.clients["w1"].nodes = replace(world.news, last=())
    halves = "begin w0 save\ndeliver w0 b\ndeliver w0 a\nbegin w1 save\ndeliver w1 a\ndeliver w1 b"
    play(world, halves + "\ndeliver w0 b\ndeliver w1 a\ndeliver w0 a\ndeliver w1 b")
    for _ in range(12):
        for step in ("deliver w0 b", "deliver w0 a", "deliver w1 a", "deliver w1 b"):
            with suppress(AssertionError):  # it waits for something else
                play(world, step)
    play(world, "w2 load").settle()


# What two faults at a time do, beyond the promise. docs/memcached.md quotes them.


def unlucky() -> World:
    world = World(perform, single_faults=False)
    world.run("w0", "create")
    return world


@pytest.mark.parametrize(
    ("story", "outcome"),
    [
        pytest.param(
            """
            cut b
            ender end        # on a alone
            restart a
            heal b           # which has never heard of the end
            w0 load
            """,
            "an ended session is back",
            id="the only node with the tombstone forgets it, and the other one comes back",
        ),
        pytest.param(
            """
            cut b
            w0 save
            restart a
            heal b
            w1 load
            """,
            "w0=1 was acknowledged and lost",
            id="so does the only node with a change",
        ),
        pytest.param(
            """
            restart a
            restart b
            w0 load
            """,
            "a session is gone that nobody ended",
            id="both begin anew before anybody has read the session in between",
        ),
        pytest.param(
            """
            trip w0 a        # two clients that reach one node each, and not the same
            trip w1 b
            w0 apply
            w1 apply
            close w0 a
            close w1 b
            w2 load
            """,
            "applied, acknowledged and lost: {1}",
            id="two clients reach one node each, and change the same field",
        ),
    ],
)
def test_two_faults_at_a_time_may_break_it(story: str, outcome: str) -> None:
    with pytest.raises(Broken, match=re.escape(outcome)):
        play(unlucky(), story)


@pytest.mark.parametrize(
    "story",
    [
        pytest.param(
            """
            trip w1 b
            change a c d
            begin w2 save    # with old news
            hear w1
            deliver w2 c
            w1 save          # passes over b, where nobody is told that the session has left
            w2               # for w2, b decides
            w0 load
            """,
            id="a node that is to give a session away is down for one who moves it, and not for one with old news",
        ),
    ],
)
def test_a_fault_before_everybody_has_heard_of_a_change_may_break_it(story: str) -> None:
    world = amid_a_change()
    world.run("w0", "create")
    with pytest.raises(Broken, match="was acknowledged and lost"):
        play(world, story).settle()


def test_a_node_that_begins_anew_and_gives_an_old_number_to_something_else_is_taken_for_what_it_was() -> None:
    """CAS numbers begin anew with the process. For this to happen it must get to the very number that it gave this key in
    its last life, while a request that read it then is still at work.
    """
    world = World(perform, same_numbers=True)
    world.run("w0", "create")
    story = """
        begin w1 save
        deliver w1 a
        deliver w1 b
        begin w0 save
        deliver w0 a
        deliver w0 b
        restart a
        w0               # is stored on b, and given to a
        w1               # takes that for what a had before
        w2 load
        """
    with pytest.raises(Broken, match="w0=2 was acknowledged and lost"):
        play(world, story)


def test_of_two_clients_that_reach_one_node_each_both_keep_fields_of_their_own() -> None:
    play(unlucky(), "trip w0 a\ntrip w1 b\nbegin w0 save\nbegin w1 save\nw0\nw1").settle()


def test_an_end_holds_though_another_client_does_not_reach_the_node_that_has_it() -> None:
    play(unlucky(), "trip w0 b\ntrip ender a\nbegin w0 save\nender end\nw0").settle()


def test_a_node_that_has_nothing_does_not_speak_for_one_that_is_down() -> None:
    world = play(unlucky(), "restart a\ntrip w0 b")
    assert "w0 fails" in world.run("w0", "load")


def test_a_node_that_begins_anew_again_and_again_loses_nothing() -> None:
    play(unlucky(), "w0 save\nrestart a\nw1 load\nrestart b\nw2 load\nrestart a\nrestart a").settle()


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


def test_a_failure_after_a_node_has_taken_a_write_says_that_it_was_sent() -> None:
    """Else an `apply` would be told that nothing was stored, and be repeated."""
    key, parts = b"sess:key", {"a:1": b"1", "b:1": b"2"}
    first, second = Nodes(("a:1", "b:1")).owners(key, 2)
    view = View(Nodes(("a:1", "b:1")), 2)
    value = pack(Record(Header(Kind.LIVE, 2, (b"123456",), 0)))
    flow = write(Write(key, value, 60, Token(True, parts).packed(), exactly_once=True), view)
    asks = next(flow)
    assert isinstance(asks, list)
    assert [ask.node for ask in asks] == [first, second]
    flow.send([Stored(None), Entry(value, parts[second])])
    with pytest.raises(StoreUnavailable) as failed:
        flow.throw(StoreUnavailable("refused", sent=False, retry=True))
    assert failed.value.sent
