"""Sessions in use while something happens to the store, and what whoever uses them notices of it.

8 threads read, change and end sessions all the time, and write down what they were told. Replication is asynchronous:
what was told to be stored less than a second before the store failed may be gone, and nothing else.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from elasticache_sessions import AsyncSessionManager, Fields, SessionEnded, Settings, StoreUnavailable
from tests.support.demo import wait_until
from tests.support.instances import Answer, Instance, View
from tests.support.load import PATIENT, Manager, OnLoop, contents, managers, stored_id
from tests.support.loops import LoopThread

THREADS = 8
SESSIONS = 300
ENDED = 40
LAG = 1.0
"""Seconds: what is older than that when the store fails, the replica has."""
PROMISED = 3.0
"""Seconds after the store's own failover when nobody is told of a failure any more."""
TIMEOUT = 2.0
"""Seconds: more than a busy machine needs, and less than a store may be gone."""
KINDS = ("threads", "asyncio")
_PAUSE = 0.005  # seconds between two operations of a thread, on average
_UP = 60.0  # seconds until everything goes well again, at most

T = TypeVar("T")


class Site(Protocol):
    """Sessions as those see them who use them. Raises StoreUnavailable where they are told that it failed."""

    def new(self) -> str: ...

    def read(self, session_id: str) -> dict[str, Any] | None: ...

    def count(self, session_id: str) -> bool:
        """Add one to `count`, exactly. Whether there is such a session; so does `note`."""

    def note(self, session_id: str, name: str, value: int) -> bool: ...

    def end(self, session_id: str) -> None: ...


def increment(fields: Fields) -> None:
    fields["count"] += 1


@dataclass
class Core:
    """A manager's sessions."""

    manager: Manager

    def new(self) -> str:
        return stored_id(self.manager, count=0)

    def read(self, session_id: str) -> dict[str, Any] | None:
        return contents(self.manager, session_id)

    def count(self, session_id: str) -> bool:
        session = self.manager.load(session_id)
        try:
            return session is not None and self.manager.apply(session, increment) is None
        except SessionEnded:
            return False

    def note(self, session_id: str, name: str, value: int) -> bool:
        session = self.manager.load(session_id)
        if session is None:
            return False
        session.fields[name] = value
        try:
            self.manager.save(session)
        except SessionEnded:
            return False
        return True

    def end(self, session_id: str) -> None:
        self.manager.end(session_id)

    def renew(self, session_id: str) -> str | None:
        """Its new id, as who signs in gets one; None if there is no such session."""
        session = self.manager.load(session_id)
        if session is None:
            return None
        self.manager.cycle(session)
        return session.id


@contextmanager
def core(kind: str, url: str, timeout: float) -> Iterator[Core]:
    """A manager "for threads" or "for asyncio": there all the threads use one event loop."""
    if kind == "threads":
        with managers(url, timeout=timeout) as [manager]:
            yield Core(manager)
        return
    tasks = OnLoop(
        AsyncSessionManager.connect(Settings(url=url, timeout=timeout, connect_timeout=PATIENT)), LoopThread()
    )
    try:
        yield Core(tasks)
    finally:
        tasks.close()


@dataclass
class Pages:
    """What the visitors of a site with several instances see. A response other than 200 and 503 is an AssertionError, and
    so is one that takes the cookie away.
    """

    instances: list[Instance]
    codes: Counter[int] = field(default_factory=Counter)

    def _ask(self, view: View, cookie: str | None = None) -> Answer:
        answer = random.choice(self.instances).ask(view, cookie)
        self.codes[answer.code] += 1
        if answer.code == 503:
            assert answer.cookie is None, "a failure leaves the cookie alone"
            assert "Retry-After" in answer.headers
            raise StoreUnavailable("503")
        assert answer.code == 200, (answer.code, answer.errors)
        return answer

    def new(self) -> str:
        return self._ask(lambda visit: visit.update({"count": 0})).session_id

    def _visit(self, session_id: str, view: View) -> Any:
        answer = self._ask(view, session_id)
        self._keeps(answer, session_id)
        return answer.result

    def _keeps(self, answer: Answer, session_id: str) -> None:
        assert answer.cookie is None or answer.session_id == session_id, answer.cookie

    def read(self, session_id: str) -> dict[str, Any] | None:
        answer = self._ask(dict, session_id)
        if answer.result:  # of what was ended, the cookie may go
            self._keeps(answer, session_id)
        return answer.result or None

    def count(self, session_id: str) -> bool:
        return bool(self._visit(session_id, lambda visit: "count" in visit and [visit.apply(increment)]))

    def note(self, session_id: str, name: str, value: int) -> bool:
        return bool(self._visit(session_id, lambda visit: "count" in visit and [visit.update({name: value})]))

    def end(self, session_id: str) -> None:
        self._ask(lambda visit: visit.logout(), session_id)


@dataclass
class Kept:
    """A session that nobody ends."""

    id: str
    counted: list[float] = field(default_factory=list)
    """When each increment was acknowledged."""
    doubtful: list[float] = field(default_factory=list)
    """When one failed, which may have been stored."""
    noted: list[tuple[float, str, int]] = field(default_factory=list)
    """When, by whom and what; each writer's numbers rise."""
    missed: bool = False
    """Whether anybody was told that there is no such session."""


@dataclass
class Load:
    """What the threads do and were told."""

    site: Site
    kept: list[Kept]
    ended: list[tuple[float, str]]
    """When each was ended, and its id."""
    failures: list[float] = field(default_factory=list)
    """When somebody was told that the store failed."""
    reasons: Counter[str] = field(default_factory=Counter)
    given_up: list[float] = field(default_factory=list)
    """The seconds that each waited who was told so of a session that `is_given_up`."""
    is_given_up: Callable[[str | None], bool] = lambda session_id: False
    """Whether nothing is expected of a session any more; None: of new ones."""
    errors: list[BaseException] = field(default_factory=list)
    """Whatever else was raised: never."""
    back: set[str] = field(default_factory=set)
    """Ended sessions that were found again."""
    remembered: float = 1.0
    """The share of those that come and go which are asked for again."""
    unknown: set[str] = field(default_factory=set)
    """New sessions that were not found a moment later."""
    longest: float = 0.0
    failed_at: float = float("inf")
    _over: threading.Event = field(default_factory=threading.Event)
    _done: list[int] = field(default_factory=lambda: [0] * THREADS)
    _at_work: list[threading.Lock] = field(default_factory=lambda: [threading.Lock() for _ in range(THREADS)])

    def fault(self) -> None:
        """Now the store fails. What was acknowledged more than LAG before is to be there ever after."""
        self.failed_at = time.monotonic()

    def goes_on(self, operations: int = 40, *, well: bool = True) -> None:
        """Wait until each thread has done that much more, and nobody has been told of a failure for a second."""
        before = list(self._done)
        wait_until(
            lambda: (
                self.errors
                or (
                    all(now - then >= operations for now, then in zip(self._done, before, strict=True))
                    and (not well or not self.failures or time.monotonic() - self.failures[-1] > 1)
                )
            ),
            _UP,
            "sessions are served again",
        )

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Nobody does anything while the block runs."""
        with ExitStack() as stack:
            for lock in self._at_work:
                stack.enter_context(lock)
            yield

    @property
    def done(self) -> int:
        """How many operations there were."""
        return sum(self._done)

    def pace(self, operations: int) -> float:
        """How many a second go well, while each thread does that much more."""
        began, well = time.monotonic(), self._went_well
        self.goes_on(operations)
        return (self._went_well - well) / (time.monotonic() - began)

    @property
    def _went_well(self) -> int:
        return sum(self._done) - len(self.failures) - len(self.given_up)

    @property
    def last_failure(self) -> float:
        """Seconds from the fault to the last time that somebody was told of a failure; 0.0: nobody was."""
        return max(self.failures, default=self.failed_at) - self.failed_at

    def work(self, number: int) -> None:
        while not self._over.is_set():
            with self._at_work[number]:
                self._work(number)
            time.sleep(random.uniform(0, 2 * _PAUSE))

    def _work(self, number: int) -> None:
        session, (ended_at, ended) = random.choice(self.kept), random.choice(self.ended)
        for whose, act in (
            (session.id, partial(self._use, session, number)),
            (ended, partial(self._look_for_ended, ended_at, ended)),
            (None, self._come_and_go),
        ):
            began = time.monotonic()
            try:
                act()
            except StoreUnavailable as error:
                if self.is_given_up(whose):
                    self.given_up.append(time.monotonic() - began)
                else:
                    self.failures.append(time.monotonic())
                    self.reasons[str(error)] += 1
            except BaseException as error:
                self.errors.append(error)
            self._done[number] += 1
            self.longest = max(self.longest, time.monotonic() - began)

    def _use(self, session: Kept, number: int) -> None:
        site, what = self.site, random.random()
        if what < 0.45:
            if site.read(session.id) is None:
                session.missed = True
        elif what < 0.7:
            try:
                if not site.count(session.id):
                    session.missed = True
            except StoreUnavailable:
                session.doubtful.append(time.monotonic())
                raise
            session.counted.append(time.monotonic())
        else:
            if not site.note(session.id, f"by {number}", self._done[number]):
                session.missed = True
            session.noted.append((time.monotonic(), f"by {number}", self._done[number]))

    def _come_and_go(self) -> None:
        new = self.site.new()
        if self.site.read(new) is None and self._counts(time.monotonic()):
            self.unknown.add(new)
        self.site.end(new)
        if random.random() < self.remembered:
            self.ended.append((time.monotonic(), new))

    def _look_for_ended(self, ended_at: float, session_id: str) -> None:
        found = self.site.read(session_id)
        if found is not None and self._counts(ended_at):
            self.back.add(session_id)

    def _counts(self, when: float) -> bool:
        """Whether what was acknowledged then must have outlived the fault."""
        return when < self.failed_at - LAG

    def stop(self) -> None:
        self._over.set()

    def look(self) -> None:
        """See what has become of everything. A store that has to be asked again is none of what is looked for."""
        for session in self.kept:
            if self.is_given_up(session.id):
                continue
            found = patiently(lambda: self.site.read(session.id))
            if found is None:
                session.missed = True
                continue
            counted = sum(map(self._counts, session.counted))
            at_most = len(session.counted) + len(session.doubtful)
            assert counted <= found["count"] <= at_most, (counted, found, at_most)
            for when, name, value in session.noted:
                assert not self._counts(when) or found[name] >= value, (name, value, found)
        for ended_at, session_id in self.ended:
            if not self.is_given_up(session_id):
                patiently(lambda: self._look_for_ended(ended_at, session_id))

    @property
    def lost(self) -> int:
        return sum(session.missed for session in self.kept)

    def __str__(self) -> str:
        failures = f"{len(self.failures)} failed"
        if self.failures and self.failed_at < float("inf"):
            failures += f", the last {self.last_failure:.2f} s after the fault"
        if self.given_up:
            failures += f", {len(self.given_up)} were to fail"
        if self.unknown:
            failures += f", {len(self.unknown)} new sessions were not found"
        return (
            f"{self.done} operations, {failures}, the longest took {self.longest:.2f} s; "
            f"{self.lost} of {len(self.kept)} sessions lost, {len(self.back)} of {len(self.ended)} ended back"
        )


def patiently(act: Callable[[], T]) -> T:
    """Do it again while the store fails: a busy machine may keep it from answering in time."""
    until = time.monotonic() + _UP
    while True:
        try:
            return act()
        except StoreUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


@contextmanager
def under_load(name: str, site: Site, remembered: float = 1.0) -> Iterator[Load]:
    """THREADS that use SESSIONS sessions while the block runs, which begins when all is well and old enough.

    After it, no session is lost, no ended one back, nothing that was acknowledged is missing, and nothing was done twice.
    How many were told that the store failed is for the test to judge.
    """
    kept = [Kept(patiently(site.new)) for _ in range(SESSIONS)]
    ended = [patiently(site.new) for _ in range(ENDED)]
    for session_id in ended:
        patiently(lambda: site.end(session_id))
    load = Load(site, kept, [(time.monotonic(), session_id) for session_id in ended], remembered=remembered)
    threads = [
        threading.Thread(target=load.work, args=[number], daemon=True, name=f"load-{number}")
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    try:
        time.sleep(2 * LAG)  # so that there is something that is old enough
        load.goes_on()
        yield load
        load.goes_on()
    finally:
        load.stop()
        for thread in threads:
            thread.join()
        print(f"\n{name}: {load}")
    if load.errors:
        raise load.errors[0]
    load.look()
    assert load.lost == 0
    assert not load.back
    assert not load.unknown
