"""More nodes, more workers: how many requests a second that makes, and what is used up first.

A worker is a process that does one request after another: it reads a session, sliding, and every fifth changes and saves it.
Nodes and workers share the machine, so what is counted beside requests is whose processor time it was.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from elasticache_sessions import Session, SessionManager, Settings
from tests.support.topologies import cluster

from .growth_capacity import cpu_of
from .growth_visitors import Visitors

NODES: Final = (1, 3, 6)
WORKERS: Final = (1, 2, 4, 8)
SESSIONS: Final = 5_000
EACH_SAVES: Final = 5
"""One request of so many changes something."""
_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of workers came to."""

    requests: int
    trips: int
    seconds: float
    workers_cpu: float
    nodes_cpu: tuple[float, ...]
    """Seconds of processor time."""


def steps() -> int:
    return _ROUNDS * len(NODES) * len(WORKERS)


def measure(seconds: float, advance: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each cluster in turn with each number of workers, and all that some times, so that they share what else there is."""
    seen: dict[tuple[int, int], list[Work]] = {}
    with ExitStack() as stays:
        clusters = {}
        for nodes in NODES:
            made = stays.enter_context(cluster(size=nodes))
            url = f"redis://{made.host}:{made.port}/?cluster=true"
            pids = [node.pid for node in made.nodes if node.pid is not None]
            clusters[nodes] = (pids, stays.enter_context(_workers(url, max(WORKERS))))
        for _ in range(_ROUNDS):
            for nodes, (pids, pipes) in clusters.items():
                for workers in WORKERS:
                    seen.setdefault((nodes, workers), []).append(_run(pipes[:workers], pids, seconds))
                    advance(f"{nodes} nodes, {workers} workers")
    return [_row(nodes, workers, works) for (nodes, workers), works in seen.items()]


def _run(pipes: Sequence[Connection], pids: Sequence[int], seconds: float) -> Work:
    before, began = [cpu_of(pid) for pid in pids], time.monotonic()
    for pipe in pipes:
        pipe.send(seconds)
    done = [pipe.recv() for pipe in pipes]
    took = time.monotonic() - began
    nodes = tuple(cpu_of(pid) - was for pid, was in zip(pids, before, strict=True))
    requests, trips, cpu = (sum(column) for column in zip(*done, strict=True))
    return Work(requests, trips, took, cpu, nodes)


def _row(nodes: int, workers: int, works: Sequence[Work]) -> dict[str, Any]:
    def middle(of: Callable[[Work], float], digits: int = 0) -> float:
        return round(statistics.median(map(of, works)), digits or None)

    return {
        "nodes": nodes,
        "workers": workers,
        "requests_per_s": middle(lambda work: work.requests / work.seconds),
        "worker_cpu_us_per_request": middle(lambda work: work.workers_cpu / work.requests * 1e6),
        "node_cpu_us_per_request": middle(lambda work: sum(work.nodes_cpu) / work.requests * 1e6, 1),
        "trips_per_request": middle(lambda work: work.trips / work.requests, 2),
        "processors_of_workers": middle(lambda work: work.workers_cpu / work.seconds, 2),
        "processors_of_nodes": middle(lambda work: sum(work.nodes_cpu) / work.seconds, 2),
        "busiest_node": middle(lambda work: max(work.nodes_cpu) / work.seconds, 2),
    }


@contextmanager
def _workers(url: str, count: int) -> Iterator[list[Connection]]:
    """Processes that work for as many seconds as they are sent."""
    context = multiprocessing.get_context("spawn")
    ids = _begun(url)
    pipes, processes = [], []
    try:
        for _ in range(count):
            ours, its = context.Pipe()
            process = context.Process(target=_work, args=(url, ids, its), daemon=True)
            process.start()
            its.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            assert pipe.recv() == "ready"
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _begun(url: str) -> list[str]:
    """The ids of the sessions that there are."""
    manager, visitors, ids = SessionManager.connect(Settings(url=url, timeout=5)), Visitors(200), []
    for number in range(SESSIONS):
        session = Session()
        session.fields.update(visitors.fields(number))
        manager.save(session)
        assert session.id is not None
        ids.append(session.id)
    manager.close()
    return ids


def _work(url: str, ids: Sequence[str], pipe: Connection) -> None:
    manager = SessionManager.connect(Settings(url=url, timeout=5))
    for session_id in ids[:200]:  # connects to every node
        manager.load(session_id)
    pipe.send("ready")
    while True:
        seconds: float = pipe.recv()
        pipe.send(_worked(manager, ids, seconds))


def _worked(manager: SessionManager, ids: Sequence[str], seconds: float) -> tuple[int, int, float]:
    requests = saves = 0
    end, cpu = time.monotonic() + seconds, time.process_time()
    while time.monotonic() < end:
        session = manager.load(random.choice(ids))
        assert session is not None
        requests += 1
        if requests % EACH_SAVES == 0:
            session.fields["theme"] = f"theme {requests}"
            manager.save(session)
            saves += 1
    return requests, requests + saves, time.process_time() - cpu
