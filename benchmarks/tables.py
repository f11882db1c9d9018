"""What a person sees: a progress bar, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .figures import Rounds, Spread, own, ratio
from .plan import Group, Point
from .stacks import PLAIN


@contextmanager
def progress_bar(blocks: int) -> Iterator[tuple[Console, Callable[[str], None]]]:
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("starting", total=blocks)
        yield bar.console, lambda what: bar.update(task, advance=1, description=what)


def show(console: Console, group: Group, point: Point, rounds: Rounds) -> None:
    table = Table(title=f"{group.title}: {point.name}", title_justify="left")
    table.add_column("stack")
    for heading in ("own µs", "quartiles", "CPU µs", "ours is"):
        table.add_column(heading, justify="right")
    walls = {}
    for stack in group.stacks:
        if stack.name not in rounds:
            continue
        costs = own(rounds, stack.name, PLAIN if stack.kind in ("ours", "peer") else None)
        walls[stack.name] = [cost.wall for cost in costs]
        wall, cpu = Spread.of(walls[stack.name]), Spread.of([cost.cpu for cost in costs])
        mine = "ours-memcached" if "memcache" in stack.name or "pylibmc" in stack.name else "ours"
        compared = ""
        if stack.kind in ("peer", "floor") and mine in walls:
            times = ratio(walls[mine], walls[stack.name])
            compared = f"{times.median:.2f} ({times.low:.2f}–{times.high:.2f})"
        quartiles = f"{wall.low:.0f}–{wall.high:.0f}"
        table.add_row(stack.title, f"{wall.median:.0f}", quartiles, f"{cpu.median:.0f}", compared)
    console.print(table)
