"""The figures of `growth.json` in docs/performance.md, between marks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from .growth_visitors import SIZES
from .pages import with_block

Found = Mapping[str, Any]
OURS: Final = "elasticache-sessions"


def filled(page: str, found: Found) -> str:
    """The page, with what stands between each pair of marks written anew; what was not measured stays."""
    for name, block in BLOCKS.items():
        if part_of(name) in found:
            page = with_block(page, name, block(found))
    return page


def part_of(name: str) -> str:
    """Where the figures of a block are."""
    return PARTS.get(name, name.removeprefix("growth-"))


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]], words: int = 1) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * words + "---:|" * (len(headings) - words)
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"


def memory(found: Found) -> Iterator[str]:
    """Of each server and size: what a session takes, and what ours takes by theirs."""
    rows = [row for row in found["memory"] if row["stack"] not in BESIDE]
    mine = {(row["server"], row["size"]): row for row in rows if row["stack"] == OURS}
    table = []
    for (server, size), own in mine.items():
        for row in rows:
            if (row["server"], row["size"]) != (server, size):
                continue
            taken = _taken(row)
            rest = taken - row["key"] - row["value"]
            by = "" if row["stack"].startswith(OURS) else f"{_taken(own) / taken:.2f}"
            name = f"**{row['stack']}**" if row["stack"] == OURS else row["stack"]
            place = f"{server}, {SIZES[size]}"
            table.append(
                (place, name, *(f"{one:.0f}" for one in (row["key"], row["value"], rest, taken)), by)
            )
    yield from _table(("", "bytes a session", "key", "value", "the rest", "all", "ours is"), table, 2)


def beside(found: Found) -> Iterator[str]:
    """What ours stores beside sessions."""
    rows = [
        (row["stack"], row["server"], *(f"{one:.0f}" for one in (row["key"], row["value"], _taken(row))))
        for row in sorted(found["memory"], key=lambda row: str(row["stack"]))
        if row["stack"] in BESIDE
    ]
    yield from _table(("bytes", "", "key", "value", "all"), rows, 2)


BESIDE: Final = ("a user's list of one session", "an ended session")


def _taken(row: Mapping[str, Any]) -> float:
    """Of Memcached what is taken from others: a whole chunk."""
    taken: float = row["held"] if row["server"] == "memcached" else row["used"]
    return taken


def speed(found: Found) -> Iterator[str]:
    rows = [
        (row["server"], f"{row['count']:,}", *(f"{row[name]:.0f}" for name in _TIMES))
        for row in found["speed"]
    ]
    yield from _table(
        ("", "sessions", "read, µs", "99 of 100 within", "save, µs", "99 of 100 within"), rows, 1
    )


_TIMES: Final = ("read", "read_99", "save", "save_99")


def cluster(found: Found) -> Iterator[str]:
    rows = [
        (
            *(row["nodes"], row["workers"], f"{row['requests_per_s']:,.0f}"),
            *(row["worker_cpu_us_per_request"], row["node_cpu_us_per_request"]),
            *(row["processors_of_workers"], row["processors_of_nodes"]),
        )
        for row in found["cluster"]
    ]
    headings = (
        "nodes",
        "workers",
        "requests/s",
        "CPU of workers, µs a request",
        "CPU of nodes, µs a request",
    )
    yield from _table((*headings, "processors busy with workers", "with nodes"), rows, 0)


def capacity(found: Found) -> Iterator[str]:
    rows: dict[tuple[str, int], list[str]] = {}
    names = list(dict.fromkeys(row["command"] for row in found["capacity"]))
    for row in found["capacity"]:
        rows.setdefault((row["server"], row["size"]), []).append(f"{row['node_cpu_us']:.1f}")
    table = [(f"{server}, {SIZES[size]}", *cells) for (server, size), cells in rows.items()]
    yield from _table(("CPU of the node, µs a command", *names), table)


def contention(found: Found) -> Iterator[str]:
    places = list(dict.fromkeys((row["kind"], row["distance_ms"]) for row in found["contention"]))
    yield from _crowds(
        found["contention"],
        places,
        lambda row: (row["kind"], row["distance_ms"]),
        lambda place: f"{place[0]}, {place[1]:.0f} ms away",
    )


def virtual(found: Found) -> Iterator[str]:
    places = list(dict.fromkeys(row["place"] for row in found["virtual"]))
    yield from _crowds(found["virtual"], places, lambda row: row["place"], str)


def _crowds(
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[Any],
    place_of: Callable[[Mapping[str, Any]], Any],
    title: Callable[[Any], str],
) -> Iterator[str]:
    """Round trips a request, and the slowest of a crowd in milliseconds, a column for each place."""
    counts = list(dict.fromkeys(row["requests"] for row in rows))
    by = {(place_of(row), row["requests"]): row for row in rows}
    table = [
        (
            count,
            *(
                f"{by[place, count]['trips']:.1f} / {by[place, count]['worst_ms']:.1f} ms"
                for place in places
                if (place, count) in by
            ),
        )
        for count in counts
    ]
    yield from _table(("at once", *map(title, places)), table, 0)


BLOCKS: Final[dict[str, Callable[[Found], Iterator[str]]]] = {
    "growth-memory": memory,
    "growth-beside": beside,
    "growth-speed": speed,
    "growth-cluster": cluster,
    "growth-capacity": capacity,
    "growth-contention": contention,
    "growth-virtual": virtual,
}
PARTS: Final = {"growth-beside": "memory"}
"""Where a block's figures are, if not under its name."""
