"""Ways through a simulated world (`model`): chosen by hypothesis, by dice, or written down."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.support.model import Action, Broken, World

# How likely each is, so that most requests come to their end and most nodes recover.
WEIGHTS = {
    "begin": 6.0,
    "deliver": 12.0,
    "down": 12.0,
    "hear": 2.0,
    "arrive": 2.0,
    "heal": 2.0,
    "close": 2.0,
    "lose": 0.6,
    "stall": 0.6,
    "fail": 0.3,
    "die": 0.3,
    "cut": 0.6,
    "restart": 0.8,
    "trip": 0.6,
    "change": 0.3,
}
_RARE = {"end": 0.12, "bury": 0.06}
_MISHAPS = ("lose", "stall", "fail", "die", "cut", "restart", "trip")


def walk(world: World, seed: int, steps: int = 60) -> list[Action]:
    """A way through `world` by dice, and then to rest. Returns what was done before that; raises `Broken`."""
    dice = random.Random(seed)
    # Each walk has mishaps of its own: many of a few kinds find more than a few of all.
    weights = WEIGHTS | {verb: WEIGHTS[verb] * dice.choice((0, 0.3, 1, 3)) for verb in _MISHAPS}
    done: list[Action] = []
    if dice.random() < 0.8:
        world.run("w0", "create")
    for _ in range(steps):
        actions = world.possible()
        chances = [weights[verb] * (_RARE.get(rest[-1], 1) if rest else 1) for verb, *rest in actions]
        (action,) = dice.choices(actions, chances)
        done.append(action)
        world.do(action)
    world.settle()
    return done


def search(make: Callable[[], World], seeds: Sequence[int], steps: int = 60) -> Broken | None:
    """The first promise that is broken on any of these walks."""
    for seed in seeds:
        try:
            walk(make(), seed, steps)
        except Broken as broken:
            return broken
    return None


def play(world: World, story: str) -> World:
    """Do what is written down, a line for each action; "w0 save" is a request that nobody disturbs."""
    for line in story.strip().splitlines():
        words = tuple(line.split("#")[0].split())
        if words and words[0] in world.clients:
            world.run(*words)
        elif words:
            action = words
            assert action in world.possible(), f"{line.strip()} cannot happen after\n" + "\n".join(
                world.trace
            )
            world.do(action)
    return world


class Machine(RuleBasedStateMachine):
    """A way that hypothesis chooses, and makes shorter where a promise is broken."""

    def __init__(self, make: Callable[[], World], *, stepwise: bool = False) -> None:
        super().__init__()
        self.world = make()
        if not stepwise:
            self.world.run("w0", "create")

    def one_of(self, data: st.DataObject, *verbs: str) -> None:
        actions = [action for action in self.world.possible() if action[0] in verbs]
        if actions:
            self.world.do(data.draw(st.sampled_from(actions)))

    @rule(data=st.data())
    def begins(self, data: st.DataObject) -> None:
        self.one_of(data, "begin")

    def answers(self, data: st.DataObject) -> None:
        self.one_of(data, "deliver", "down", "hear")

    # Most of what happens, so that requests come to their end.
    one_answers = rule(data=st.data())(answers)
    another_answers = rule(data=st.data())(answers)
    yet_another_answers = rule(data=st.data())(answers)

    @precondition(lambda self: any(client.operation for client in self.world.clients.values()))
    @rule(data=st.data())
    def one_goes_on_alone(self, data: st.DataObject) -> None:
        busy = [name for name, client in self.world.clients.items() if client.operation]
        self.world.run(data.draw(st.sampled_from(busy)))

    @rule(data=st.data())
    def an_answer_goes_astray(self, data: st.DataObject) -> None:
        self.one_of(data, "lose", "stall", "fail", "die")

    @rule(data=st.data())
    def a_node_fails(self, data: st.DataObject) -> None:
        self.one_of(data, "cut", "restart", "trip")

    @rule(data=st.data())
    def something_recovers(self, data: st.DataObject) -> None:
        self.one_of(data, "heal", "close", "arrive")

    @precondition(lambda self: self.world.scales)
    @rule(data=st.data())
    def the_nodes_change(self, data: st.DataObject) -> None:
        self.one_of(data, "change", "hear")

    def teardown(self) -> None:
        self.world.settle()


def machine(make: Callable[[], World], **options: Any) -> Callable[[], Machine]:
    return lambda: Machine(make, **options)
