"""How much memory a session takes, ours and the peers', and whether reading and writing slow down as sessions grow in number.

Each stack has servers of its own, one after another, and a process of its own, which takes them along when it ends.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from elasticache_sessions import SessionManager, Settings
from elasticache_sessions.manager import rules_for
from tests.support.servers import MEMCACHED, REDIS_7_0, VALKEY_9_1, Flavour, Server

from .growth_loading import Stored, batches, flat, load, memory
from .growth_records import (
    LIFETIME,
    STACKS,
    Kept,
    Stack,
    django_cache,
    flask_session,
    ours,
    signed_in,
    tombstone,
)
from .growth_visitors import Visitors

COMPRESSED: Final = "compressed"
LIST: Final = "a user's list of one session"
ENDED: Final = "an ended session"
_BATCH: Final = 10_000
_CHECKED: Final = 200
_OTHERS: Final = 20_000
_SAMPLE: Final = 2_000
_BLOCKS: Final = 150
_BLOCK: Final = 20


@dataclass(frozen=True, slots=True)
class Job:
    """One stack's sessions in each server of a kind."""

    stack: str
    size: int
    count: int
    memcached: bool
    few: tuple[int, ...] = ()
    """How fast ours reads and writes is measured beside servers with so few."""

    @property
    def title(self) -> str:
        return f"{self.stack}, {self.size} B, {'Memcached' if self.memcached else 'Valkey and Redis'}"


@dataclass(frozen=True, slots=True)
class Taken:
    """What the sessions of a stack take in a server, in bytes each, on average."""

    stack: str
    server: str
    size: int
    count: int
    key: float
    value: float
    used: float
    """As the server counts: `used_memory`; of Memcached, its items, without what their chunks have left over."""
    held: float
    """Resident; of Memcached, the chunks."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How long ours takes in a server with so many sessions, in µs: half of the times, and 99 of 100, were not longer."""

    server: str
    count: int
    read: float
    read_99: float
    save: float
    save_99: float


def jobs(count: int, in_memcached: int) -> list[Job]:
    few = (min(1_000, count), min(100_000, count))
    found = []
    for memcached, total in ((False, count), (True, in_memcached)):
        for size in (200, 2_000):
            names = [stack.__name__ for stack in STACKS] + [COMPRESSED] * (size == 2_000)
            found += [
                Job(name, size, total, memcached, few if name == ours.__name__ and size == 200 else ())
                for name in names
            ]
    return found


def stack_of(job: Job) -> Stack:
    made: dict[str, Callable[[], Stack]] = {
        "ours": lambda: ours(job.memcached),
        COMPRESSED: lambda: ours(job.memcached, compress_min_bytes=1_000),
        "flask_session": lambda: flask_session(job.memcached),
        "django_cache": lambda: django_cache(job.memcached),
    }
    return made[job.stack]()


def run(job: Job, advance: Callable[[int], None]) -> tuple[list[Taken], list[Speed]]:
    """In a process of its own. `advance`: called with how many more are stored."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_work, args=(job, its), daemon=True)
    process.start()
    its.close()
    try:
        while isinstance(said := mine.recv(), int):
            advance(said)
        found: tuple[list[Taken], list[Speed]] = said
        return found
    finally:
        process.join(20)
        process.kill()


def _work(job: Job, pipe: Connection) -> None:
    pipe.send(_measured(job, pipe.send))


def _measured(job: Job, advance: Callable[[int], None]) -> tuple[list[Taken], list[Speed]]:
    stack, kind = stack_of(job), job.memcached
    flavours: tuple[Flavour, ...] = (MEMCACHED,) if kind else (VALKEY_9_1, REDIS_7_0)
    with ExitStack() as stays:
        servers = [_started(flavour, stays) for flavour in flavours]
        before = [memory(server, kind) for server in servers]
        ids: list[tuple[int, str]] = []
        sizes = [0, 0]
        records = _noted(_made(stack, job, advance), job, ids, sizes)
        for batch in batches(records, _BATCH):
            for server in servers:
                load(server, batch, kind)
        taken = []
        for server, empty in zip(servers, before, strict=True):
            full = memory(server, kind)
            each = ((full.used - empty.used) / job.count, (full.held - empty.held) / job.count)
            taken.append(
                Taken(
                    *(stack.name, server.name, job.size, job.count),
                    *(sizes[0] / job.count, sizes[1] / job.count, *each),
                )
            )
            _check(stack, server, job, ids)
        if not job.few:
            return taken, []
        for flavour in flavours:
            taken += beside(flavour, job)
        return taken, _speeds(stack, job, servers[0], ids, flavours[0], stays)


def _started(flavour: Flavour, stays: ExitStack) -> Server:
    return stays.enter_context(Server(flavour, *(("-m", "8192", "-I", "1m") if flavour is MEMCACHED else ())))


def _made(stack: Stack, job: Job, advance: Callable[[int], None]) -> Iterator[Kept]:
    visitors = Visitors(job.size)
    for number in range(job.count):
        if number % 2_000 == 1_999:
            advance(2_000)
        yield stack.make(visitors.fields(number))


def _noted(
    records: Iterable[Kept], job: Job, ids: list[tuple[int, str]], sizes: list[int]
) -> Iterator[Stored]:
    """Remembers some ids, and adds up the sizes of keys and values."""
    every = max(1, job.count // _SAMPLE)
    for number, kept in enumerate(records):
        if number % every == 0 or number < 1_000:
            ids.append((number, kept.session_id))
        sizes[0] += len(kept.key)
        sizes[1] += len(kept.value)
        yield flat(kept)


def _check(stack: Stack, server: Server, job: Job, ids: list[tuple[int, str]]) -> None:
    """Some are read as the stack reads them: each holds what it was made of, but for what is drawn by lot."""
    reads, visitors = stack.loads(server.url), Visitors(job.size)
    for number, session_id in random.sample(ids, min(_CHECKED, len(ids))):
        found, made = reads(session_id), visitors.fields(number)
        assert {**found, "csrf": ""} == {**made, "csrf": ""}, f"{stack.name} holds something else: {found}"


def beside(flavour: Flavour, job: Job) -> list[Taken]:
    """What ours stores beside sessions: the list of a user who is signed in with one, and what an ended one leaves."""
    rules = rules_for(Settings(url="memory://"), idle_timeout=LIFETIME)
    visitors = Visitors(job.size)
    made = [signed_in(visitors.fields(number), rules) for number in range(_OTHERS)]
    return [
        _taken_by(LIST, flavour, job, [(one.listed.key, one.listed.value) for one in made]),
        _taken_by(ENDED, flavour, job, [(one.session.key, tombstone(one)) for one in made]),
    ]


def _taken_by(name: str, flavour: Flavour, job: Job, made: Sequence[tuple[bytes, bytes]]) -> Taken:
    with ExitStack() as stays:
        server = _started(flavour, stays)
        before = memory(server, job.memcached)
        load(server, ((key, value, 0) for key, value in made), job.memcached)
        full = memory(server, job.memcached)
    sizes = (sum(len(key) for key, _ in made), sum(len(value) for _, value in made))
    totals = (*sizes, full.used - before.used, full.held - before.held)
    return Taken(name, server.name, job.size, len(made), *(total / len(made) for total in totals))


def _speeds(
    stack: Stack,
    job: Job,
    full: Server,
    ids: list[tuple[int, str]],
    flavour: Flavour,
    stays: ExitStack,
) -> list[Speed]:
    """Blocks of reads and saves on each server in turn, so that they share what else the machine does."""
    servers = {job.count: (full, [session_id for _, session_id in ids])}
    for few in job.few:
        server, visitors = _started(flavour, stays), Visitors(job.size)
        made = [stack.make(visitors.fields(number)) for number in range(few)]
        load(server, map(flat, made), job.memcached)
        servers[few] = (server, [kept.session_id for kept in random.sample(made, min(_SAMPLE, few))])
    managers = {
        count: SessionManager.connect(Settings(url=server.url, timeout=5))
        for count, (server, _) in servers.items()
    }
    times: dict[int, tuple[list[float], list[float]]] = {count: ([], []) for count in servers}
    order = list(servers)
    for block in range(_BLOCKS):
        random.shuffle(order)
        for count in order:
            for session_id in random.choices(servers[count][1], k=_BLOCK):
                read, saved = _read_and_save(managers[count], session_id, block)
                if block:  # the first one connects
                    times[count][0].append(read)
                    times[count][1].append(saved)
    return [
        Speed(full.name, count, *_middle_and_late(times[count][0]), *_middle_and_late(times[count][1]))
        for count in sorted(servers)
    ]


def _read_and_save(manager: SessionManager, session_id: str, number: int) -> tuple[float, float]:
    began = time.perf_counter()
    session = manager.load(session_id)
    read = time.perf_counter()
    assert session is not None
    session.fields["theme"] = f"theme {number}"
    changed = time.perf_counter()
    manager.save(session)
    return read - began, time.perf_counter() - changed


def _middle_and_late(seconds: list[float]) -> tuple[float, float]:
    return statistics.median(seconds) * 1e6, statistics.quantiles(seconds, n=100)[98] * 1e6


def rows(found: Iterable[Taken | Speed]) -> list[dict[str, Any]]:
    return [
        {
            name: round(value, 1) if isinstance(value, float) else value
            for name in one.__slots__
            for value in [getattr(one, name)]
        }
        for one in found
    ]
