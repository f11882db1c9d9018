"""Carries out a flight (`memcached_asks`): what several nodes are asked, all of it under way at once, in one thread.

It decides nothing but how long a node that does not answer is worth waiting for while others did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Final

from ..exceptions import StoreUnavailable
from ..limit import running
from .base import Conflict, Glance, Replace, Stored, Write
from .breaker import Breaker, Breakers, LeftAlone
from .memcached_asks import DOWN, Answer, Ask
from .memcached_connection import Connection
from .pool import Pool

# Seconds until a node that failed is asked again, while others answered: the first time, the second, and each after it.
_PAUSES: Final = (0.0, 0.02, 0.05)


class Flights:
    """For threads and greenlets, as part of an operation (`limit.running`)."""

    def __init__(
        self,
        pool_of: Callable[[str], Pool[Connection]],
        breakers: Breakers,
        heard: Callable[[str, bool], object] = lambda node, answers: None,
    ) -> None:
        """`heard`: told of each node that was asked whether it answers."""
        self._pool_of, self._breakers, self._heard = pool_of, breakers, heard

    def fly(self, asks: Sequence[Ask]) -> list[Answer]:
        """The answers, in the order of `asks`, which ask no node twice.

        A node that fails while another answers is asked again, each time within half of the time that is left, until it
        answers or its breaker is open: then DOWN is its answer. If it was sent a `Write` more than once, its `Conflict` says so
        (`resent`).

        Raises:
            StoreUnavailable: nobody answered; or a node did not that is not known to be down, or it said an error.
                `sent`: any write of the flight may have reached its node.
            ValueTooLarge: a node said so. Another may have stored it.
        """
        course = _Course(asks)
        self._ask(course)
        pauses = chain(_PAUSES, repeat(_PAUSES[-1]))
        while course.failures:
            if len(asks) == 1 or not course.answers:
                raise course.failure()
            for node in [node for node in course.failures if self._breaker(node).is_open]:
                del course.failures[node]
                course.answers[node] = DOWN
            if not course.failures:
                break
            pause = next(pauses)
            if pause >= running().left() or not all(map(_may_pass, course.failures.values())):
                raise course.failure()
            time.sleep(pause)
            self._ask(course)
        return [course.answers[ask.node] for ask in asks]

    def look(self, node: str, keys: Sequence[bytes]) -> list[Glance | None]:
        """What one node holds of `keys`. Raises StoreUnavailable."""
        with self._breaker(node), self._pool_of(node).connection() as connection:
            return connection.look(keys)

    def _breaker(self, node: str) -> Breaker:
        return self._breakers.of(f"the Memcached node {node}")

    def _ask(self, course: _Course) -> None:
        """Ask every node that has not answered yet."""
        again = bool(course.answers)
        course.failures.clear()
        # One order for everybody: of two that each hold a connection, none waits for the other's.
        asks = [ask for ask in course.asks if ask.node not in course.answers]
        questions = [self._question(ask, course) for ask in asks]
        try:
            for ask, question in zip(asks, questions, strict=True):
                course.advance(ask, question)
            # Those that answer must not pay for one that does not, and it may have to be asked three times.
            share = running().half if again or len(asks) - len(course.failures) > 1 else nullcontext
            for _ in ("sent", "answered"):
                for ask, question in zip(asks, questions, strict=True):
                    if ask.node not in course.failures:
                        with share():
                            course.advance(ask, question)
        finally:
            for question in questions:
                question.close()
            for ask in asks:
                failure = course.failures.get(ask.node)
                if failure is None or failure.silent or isinstance(failure, LeftAlone):
                    self._heard(ask.node, failure is None)

    def _question(self, ask: Ask, course: _Course) -> Generator[None, None, None]:
        """One question, step by step: its breaker lets it through; it is sent; it is answered. If it is left in between, its
        connection is closed.
        """
        with self._breaker(ask.node):
            yield
            with self._pool_of(ask.node).connection() as connection:
                connection.begin(ask.command)
                yield
                said = connection.finish()
        course.answered(ask, said)


class _Course:
    """How far a flight is."""

    def __init__(self, asks: Sequence[Ask]) -> None:
        self.asks = sorted(asks, key=attrgetter("node"))
        self.answers: dict[str, Answer] = {}
        self.failures: dict[str, StoreUnavailable] = {}
        self._sent: set[str] = set()
        assert len({ask.node for ask in asks}) == len(asks), "a flight asks a node once"

    def advance(self, ask: Ask, question: Generator[None, None, None]) -> None:
        """Take a question its next step."""
        try:
            next(question, None)
        except StoreUnavailable as error:
            self.failures[ask.node] = error
            if error.sent:
                self._sent.add(ask.node)

    def answered(self, ask: Ask, said: Any) -> None:
        if isinstance(ask.command, Write):
            said = Stored(None) if said else Conflict(None, resent=ask.node in self._sent)
        self.answers[ask.node] = said

    def failure(self) -> StoreUnavailable:
        """What to raise. Rather what a node did than that one is left alone; rather what may help at once if all is asked
        again.
        """
        errors = self.failures.values()
        error = min(errors, key=lambda each: (isinstance(each, LeftAlone), not each.retry, each.retry_after))
        reached = self._sent | {node for node, answer in self.answers.items() if answer is not DOWN}
        written = {ask.node for ask in self.asks if isinstance(ask.command, Write | Replace)}
        error.sent = error.sent or bool(reached & written)
        return error


def _may_pass(error: StoreUnavailable) -> bool:
    """Whether it may help to ask that node again. Not after an error that it said."""
    return error.retry or error.silent is not False or isinstance(error, LeftAlone)
