"""One process a stack, all idle but the one that is asked: so a stack's computing is its process's, and none disturbs another."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import traceback
from collections.abc import Iterable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, Self

from .cases import Ask, Block
from .sites import Site
from .stacks import Stack

WARM_UP: Final = 30
"""Requests before the first block of a kind: imports, connections, caches of the interpreter."""
LEAD_IN: Final = 2
"""Requests at the beginning of each block that do not count: another process has had the core, and its caches, until then."""


class WorkerFailed(Exception):
    """A stack raised; the message has its traceback."""


class Worker:
    """A stack in its process, and the pipe to it."""

    def __init__(self, stack: Stack, site: Site) -> None:
        self.stack = stack
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process: BaseProcess = spawn.Process(target=_serve, args=(stack, site, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, ask: Ask) -> Block:
        try:
            self._pipe.send(ask)
            answer: Block | str = self._pipe.recv()
        except (EOFError, OSError):
            answer = "its process ended"
        if isinstance(answer, str):
            raise WorkerFailed(f"{self.stack.title}: {answer}")
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class Crew:
    """The workers of some stacks at one site, by the stacks' names."""

    def __init__(self, stacks: Iterable[Stack], site: Site) -> None:
        self._workers: dict[str, Worker] = {}
        try:
            for stack in stacks:
                self._workers[stack.name] = Worker(stack, site)
        except BaseException:
            self.close()
            raise

    def run(self, name: str, ask: Ask) -> Block:
        return self._workers[name].run(ask)

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _serve(stack: Stack, site: Site, pipe: Connection) -> None:
    try:
        if stack.tree:
            assert "elasticache_sessions" not in sys.modules, (
                "this checkout's own package was imported already"
            )
            sys.path.insert(0, stack.tree)
        asked = stack.build(site)
        warm: set[Ask] = set()
        while True:
            try:
                ask: Ask = pipe.recv()
            except (EOFError, OSError):
                return  # nobody asks any more
            if ask not in warm:
                warm.add(ask)
                asked.run(replace(ask, requests=max(WARM_UP, ask.at_once)))
                # What is there by now stays; collecting what a request leaves behind is part of what it costs.
                gc.collect()
                gc.freeze()
            if ask.at_once == 1:
                asked.run(replace(ask, requests=LEAD_IN))
            pipe.send(asked.run(ask))
    except KeyboardInterrupt:
        return
    except BaseException:  # noqa: BLE001  # carried to who asked, whatever it is
        pipe.send(traceback.format_exc())
