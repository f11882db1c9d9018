"""What a person sees: a progress bar, and tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .figures import Measured, ratio
from .results import table as of
from .stacks import Stack
from .targets import Outcome


class Advance(Protocol):
    """What is being done now, and how much of it has been done since."""

    def __call__(self, what: str, more: int = 1, /) -> None: ...


def console() -> Console:
    """Where nobody looks (a file, a log), a line may be as long as it likes."""
    return Console(width=None if sys.stdout.isatty() else 140)


@contextmanager
def progress_bar(total: int, on: Console | None = None) -> Iterator[Advance]:
    columns = (TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=on, refresh_per_second=2) as bar:
        task = bar.add_task("starting", total=total)

        def advance(what: str, more: int = 1, /) -> None:
            bar.update(task, advance=more, description=what)

        yield advance


def show(console: Console, measured: Measured) -> None:
    """One point: each stack's own cost, and what ours is of it."""
    found = of(measured)
    headings = (
        ("requests/s", "µs", "CPU µs", "ours is (95 %)")
        if found.at_once > 1
        else ("own µs", "quartiles", "CPU µs", "ours is (95 %)")
    )
    table = _table(f"{found.title}: {found.point}", ("stack",), headings)
    for stack, cost in zip(measured.stacks(), found.costs, strict=True):
        cells: tuple[str, ...] = (f"{cost.own:.0f}", f"{cost.low:.0f} … {cost.high:.0f}")
        if found.at_once > 1:
            cells = (f"{1e6 / cost.total:.0f}", f"{cost.total:.0f}")
        table.add_row(stack.title, *cells, f"{cost.cpu:.0f}", _ours_by(measured, stack))
    console.print(table)


def _ours_by(measured: Measured, stack: Stack) -> str:
    """What our own cost is of that stack's, on the same kind of server."""
    by_name = {one.name: one for one in measured.stacks()}
    mine = by_name.get("ours-memcached" if stack.on_memcached else "ours")
    if stack.tree:
        mine = by_name[stack.name.removesuffix("@")]
    elif stack.kind not in ("peer", "floor"):
        return ""
    if mine is None:
        return ""
    if measured.group.asynchronous:
        times = ratio(measured.rates(mine), measured.rates(stack))
    else:
        times = ratio(*([sample.wall for sample in measured.own(one)] for one in (mine, stack)))
    return f"{times.median:.2f} ({times.low:.2f} … {times.high:.2f})"


def show_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    table = _table("What was to be reached", ("case", "against"), ("limit", "measured", "95 %", "reached"))
    for one in outcomes:
        table.add_row(one.case, one.against, *one.words(), "[green]yes[/]" if one.reached else "[red]no[/]")
    console.print(table)


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
