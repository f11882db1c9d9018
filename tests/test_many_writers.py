"""Any interleaving of requests on one session, against a model that keeps who changed what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, cast

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from elasticache_sessions import Fields, Session, SessionEnded, SessionManager, Settings
from elasticache_sessions.django import SessionStore
from elasticache_sessions.django.managers import connect
from tests.support.load import PATIENT, contents
from tests.support.stores import MemoryStore, Store

REQUESTS = st.sampled_from([0, 1, 2, 3])
NAMES = st.sampled_from("abcd")


class Writer:
    """The session objects that requests write with: the core's, which Flask uses as they are."""

    keeps_empty = False
    """Whether a session stays when its last field goes."""
    saves_always = False
    """Whether saving is a write though nothing changed."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager

    def begin(self, **values: int) -> str:
        session = Session()
        session.fields.update(values)
        self.manager.save(session)
        return session.id or ""

    def open(self, session_id: str) -> Any:
        """The session with that id; None where there is none."""
        return self.manager.load(session_id)

    def fields(self, session: Any) -> MutableMapping[str, Any]:
        return cast(Session, session).fields

    def id(self, session: Any) -> str | None:
        return cast(Session, session).id

    def save(self, session: Any) -> None:
        self.manager.save(session)

    def cycle(self, session: Any) -> None:
        self.manager.cycle(session)

    def apply(self, session: Any, change: Callable[[Fields], None]) -> None:
        self.manager.apply(session, change)

    def end(self, session: Any) -> None:
        self.manager.end(session)


class DjangoWriter(Writer):
    keeps_empty = saves_always = True

    def __init__(self, url: str) -> None:
        made = connect(Settings(url=url, timeout=PATIENT, connect_timeout=PATIENT))
        super().__init__(made.sync)
        self.store = type("SessionStore", (SessionStore,), {"managers": staticmethod(lambda: made)})

    def open(self, session_id: str) -> Any:
        session = self.store(session_id)
        self.do(session, "get", "a")
        return session if session.session_key else None

    def do(self, session: SessionStore, verb: str, *arguments: Any) -> Any:
        return getattr(session, verb)(*arguments)

    def fields(self, session: Any) -> MutableMapping[str, Any]:
        return cast(MutableMapping[str, Any], session)

    def id(self, session: Any) -> str | None:
        return cast(str | None, session.session_key)

    def save(self, session: Any) -> None:
        self.do(session, "save")

    def cycle(self, session: Any) -> None:
        self.do(session, "cycle_key")
        self.do(session, "save")

    def apply(self, session: Any, change: Callable[[Fields], None]) -> None:
        self.do(session, "apply", change)

    def end(self, session: Any) -> None:
        self.do(session, "flush")


class AsyncDjangoWriter(DjangoWriter):
    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        super().__init__(url)
        self._runner = runner

    def do(self, session: SessionStore, verb: str, *arguments: Any) -> Any:
        return self._runner.run(getattr(session, f"a{verb}")(*arguments))


@contextmanager
def writer(framework: str, url: str) -> Iterator[Writer]:
    with asyncio.Runner() as runner:
        if framework == "flask":
            made = Writer(SessionManager.connect(Settings(url=url, timeout=PATIENT, connect_timeout=PATIENT)))
        elif framework == "django-wsgi":
            made = DjangoWriter(url)
        else:
            made = AsyncDjangoWriter(url, runner)
        try:
            yield made
        finally:
            made.manager.close()


class ManyWriters(RuleBasedStateMachine):
    """Four requests may read, change, save, cycle and end one session in any order.

    The model keeps the stored fields and, for each request, what it read and what it did since. What one request
    changed alone is never lost, a delete beats a concurrent change, and nothing appears that nobody wrote; an ended
    session stays ended.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self.writer = writer
        self.requests: dict[int, Any] = {}
        self.read: dict[int, dict[str, int]] = {}
        self.local: dict[int, dict[str, int]] = {}
        self.cleared: dict[int, bool] = {}
        self.under: dict[int, str] = {}
        self.values = iter(range(1, 10**9))
        self.begin()

    def begin(self) -> None:
        self.id, self.stored = self.writer.begin(a=0, b=0), {"a": 0, "b": 0}
        self.alive = True

    @rule(request=REQUESTS)
    def load(self, request: int) -> None:
        found = self.writer.open(self.id)
        assert (found is not None) == self.alive
        if found is None:
            self.begin()
            return
        assert dict(self.writer.fields(found).items()) == self.stored
        self.requests[request] = found
        self.read[request], self.local[request] = dict(self.stored), dict(self.stored)
        self.cleared[request], self.under[request] = False, self.id

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS, name=NAMES)
    def set(self, request: int, name: str) -> None:
        if request in self.requests:
            value = next(self.values)
            self.writer.fields(self.requests[request])[name] = self.local[request][name] = value

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS, name=NAMES)
    def delete(self, request: int, name: str) -> None:
        if request in self.requests:
            self.writer.fields(self.requests[request]).pop(name, None)
            self.local[request].pop(name, None)

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS)
    def clear(self, request: int) -> None:
        if request in self.requests:
            self.writer.fields(self.requests[request]).clear()
            self.local[request].clear()
            self.cleared[request] = True

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS)
    def save(self, request: int) -> None:
        self.finish(request, self.writer.save, always=self.writer.saves_always)

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS)
    def cycle(self, request: int) -> None:
        self.finish(request, self.writer.cycle, cycles=True)

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS, name=NAMES)
    def apply(self, request: int, name: str) -> None:
        value = next(self.values)
        self.finish(
            request,
            lambda session: self.writer.apply(session, lambda fields: fields.update({name: value})),
            {name: value},
        )

    @precondition(lambda self: self.requests)
    @rule(request=REQUESTS)
    def end(self, request: int) -> None:
        if session := self.requests.pop(request, None):
            self.writer.end(session)
            assert self.writer.id(session) is None
            if self.under[request] == self.id:
                self.alive = False
            assert (contents(self.writer.manager, self.id) is not None) == self.alive

    def finish(
        self,
        request: int,
        act: Any,
        also: dict[str, int] | None = None,
        *,
        cycles: bool = False,
        always: bool = False,
    ) -> None:
        session = self.requests.get(request)
        if session is None:
            return
        local, read = self.local[request], self.read[request]
        changed = local != read or self.cleared[request] or also is not None or cycles or always
        if changed and not (self.alive and self.under[request] == self.id):
            try:
                act(session)
            except SessionEnded:
                del self.requests[request]
                assert contents(self.writer.manager, self.under[request]) is None
                return
            raise AssertionError("an ended session was written to")
        act(session)
        if not changed:
            return
        after = self.expected(read, local, self.cleared[request]) | (also or {})
        # Whoever cycles and holds something still moves, though the others took the rest away.
        if not after and not (cycles and local) and not self.writer.keeps_empty:
            assert self.writer.id(session) is None
            self.alive = False
            del self.requests[request]
            return
        session_id = self.writer.id(session)
        assert session_id is not None
        assert (session_id != self.id) == cycles
        self.id, self.stored = session_id, after
        assert contents(self.writer.manager, self.id) == after
        assert dict(self.writer.fields(session).items()) == after
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


def run(writer: Writer, settings: hypothesis.settings | None = None) -> None:
    run_state_machine_as_test(lambda: ManyWriters(writer), settings=settings)  # type: ignore[arg-type]  # it calls it


@pytest.mark.hypothesis
def test_whatever_the_order_nothing_is_lost_and_nothing_comes_back(framework: str) -> None:
    with writer(framework, MemoryStore().url) as made:
        run(made)


def test_so_it_is_on_every_store(framework: str, networked_store: Store) -> None:
    with writer(framework, networked_store.url) as made:
        run(made, hypothesis.settings.get_profile("few"))
