"""Any interleaving of requests on one session, against a model that keeps who changed what."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from elasticache_sessions.clients.memory import MemoryClient
from elasticache_sessions.exceptions import SessionEnded
from elasticache_sessions.manager import SessionManager
from elasticache_sessions.session import Rules, Session

REQUESTS = st.sampled_from([0, 1, 2, 3])
NAMES = st.sampled_from("abcd")


class ManyWriters(RuleBasedStateMachine):
    """Four requests may read, change, save, cycle and end one session in any order.

    The model keeps the stored fields and, for each request, what it read and what it did since. What one request
    changed alone is never lost, a delete beats a concurrent change, and nothing appears that nobody wrote; an ended
    session stays ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.manager = SessionManager(MemoryClient(), Rules("s:", 1000))
        self.requests: dict[int, Session] = {}
        self.read: dict[int, dict[str, int]] = {}
        self.local: dict[int, dict[str, int]] = {}
        self.cleared: dict[int, bool] = {}
        self.under: dict[int, str] = {}
        self.values = iter(range(1, 10**9))
        self.begin()

    def begin(self) -> None:
        session = Session()
        session.fields.update(a=0, b=0)
        self.manager.save(session)
        assert session.id is not None
        self.id, self.stored = session.id, {"a": 0, "b": 0}
        self.alive = True

    @rule(request=REQUESTS)
    def load(self, request: int) -> None:
        found = self.manager.load(self.id)
        assert (found is not None) == self.alive
        if found is None:
            self.begin()
            return
        assert found.fields == self.stored
        self.requests[request] = found
        self.read[request], self.local[request] = dict(self.stored), dict(self.stored)
        self.cleared[request], self.under[request] = False, self.id

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS, name=NAMES)
    def set(self, request: int, name: str) -> None:
        if request in self.requests:
            value = next(self.values)
            self.requests[request].fields[name] = self.local[request][name] = value

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS, name=NAMES)
    def delete(self, request: int, name: str) -> None:
        if request in self.requests:
            self.requests[request].fields.pop(name, None)
            self.local[request].pop(name, None)

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS)
    def clear(self, request: int) -> None:
        if request in self.requests:
            self.requests[request].fields.clear()
            self.local[request].clear()
            self.cleared[request] = True

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS)
    def save(self, request: int) -> None:
        self.finish(request, self.manager.save)

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS)
    def cycle(self, request: int) -> None:
        self.finish(request, self.manager.cycle, cycles=True)

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS, name=NAMES)
    def apply(self, request: int, name: str) -> None:
        value = next(self.values)
        self.finish(
            request,
            lambda session: self.manager.apply(session, lambda fields: fields.update({name: value})),
            {name: value},
        )

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS)
    def end(self, request: int) -> None:
        if session := self.requests.pop(request, None):
            ended = self.manager.end(session)
            assert ended == (self.alive and self.under[request] == self.id)
            if ended:
                self.alive = False

    def finish(
        self, request: int, act: Any, also: dict[str, int] | None = None, *, cycles: bool = False
    ) -> None:
        session = self.requests.get(request)
        if session is None:
            return
        local, read = self.local[request], self.read[request]
        changed = local != read or self.cleared[request] or also is not None or cycles
        if changed and not (self.alive and self.under[request] == self.id):
            try:
                act(session)
            except SessionEnded:
                del self.requests[request]
                assert self.manager.load(self.under[request]) is None
                return
            raise AssertionError("an ended session was written to")
        act(session)
        if not changed:
            return
        after = self.expected(read, local, self.cleared[request]) | (also or {})
        if not after and (not cycles or self.cleared[request]):
            assert session.id is None
            self.alive = False
            del self.requests[request]
            return
        assert session.id is not None
        assert (session.id != self.id) == cycles
        self.id, self.stored = session.id, after
        found = self.manager.load(self.id)
        assert found is not None
        assert found.fields == after
        assert session.fields == after
        self.read[request], self.local[request] = dict(after), dict(after)
        self.cleared[request], self.under[request] = False, self.id

    def expected(self, read: dict[str, int], local: dict[str, int], cleared: bool) -> dict[str, int]:
        if cleared:
            return dict(local)
        after = {}
        for name in {*read, *local, *self.stored}:
            before, mine, theirs = read.get(name), local.get(name), self.stored.get(name)
            if mine == before:
                holds = theirs
            elif theirs == before:
                holds = mine
            elif before is not None and (mine is None or theirs is None):
                holds = None
            else:
                holds = mine
            if holds is not None:
                after[name] = holds
        return after


TestManyWriters = ManyWriters.TestCase
