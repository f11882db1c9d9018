"""The figures in docs/performance.md, between marks, so that they are always those of `results.json`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from .results import Results, Table

LEFT_OUT: Final = ("plain", "layer")


def filled(page: str, results: Results) -> str:
    """The page, with what stands between each pair of marks written anew."""
    for name, block in BLOCKS.items():
        page = with_block(page, name, block(results))
    return page


def with_block(page: str, name: str, lines: Iterable[str]) -> str:
    """The page, with these lines between the marks of that name; as it is where it has none."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, found, rest = page.partition(begin)
    if not found:
        return page
    return before + begin + "".join(f"{line}\n" for line in lines) + end + rest.partition(end)[2]


def targets(results: Results) -> Iterator[str]:
    yield "| case | against | aim | measured | 95 % | reached |"
    yield "|---|---|---|---|---|---|"
    for one in results.targets:
        yield f"| {one.case} | {one.against} | {' | '.join(one.words())} | {'yes' if one.reached else '**no**'} |"


def costs(group: str, *points: str) -> Callable[[Results], Iterator[str]]:
    """What each stack costs of its own in µs, a column for each point."""

    def block(results: Results) -> Iterator[str]:
        tables = [table for table in results.tables if table.group == group and table.point in points]
        yield f"| {' | '.join(['own cost, µs', *(table.point for table in tables)])} |"
        yield "|---|" + "---:|" * len(tables)
        for stack, title in _stacks(tables):
            cells = [_cell(table, stack) for table in tables]
            bold = "**" if stack.startswith("ours") else ""
            yield f"| {bold}{title}{bold} | {' | '.join(cells)} |"

    return block


def rates(results: Results) -> Iterator[str]:
    """And the CPU time of the whole request, in µs."""
    tables = [table for table in results.tables if table.at_once > 1]
    yield f"| {' | '.join(['requests per second', *(f'{table.point} | CPU, µs' for table in tables)])} |"
    yield "|---|" + "---:|" * 2 * len(tables)
    for stack, title in _stacks(tables, left_out=()):
        found = [next((cost for cost in table.costs if cost.stack == stack), None) for table in tables]
        cells = [f"{1e6 / cost.total:,.0f} | {cost.computed:,.0f}" if cost else " | " for cost in found]
        yield f"| {title} | {' | '.join(cells)} |"


def times(results: Results) -> Iterator[str]:
    """How many times as many requests per second, ours and, as nobody can have more, an app without sessions."""
    yield "| times as many requests per second as | RedisCache | django-redis |"
    yield "|---|---:|---:|"
    for point in ("read 200 B", "read 2 KB"):
        table = results.table("asgi", point)
        for stack in ("ours", "plain"):
            mine = table.cost(stack)
            by = [table.cost(peer).total / mine.total for peer in ("redis-cache", "django-redis")]
            yield f"| {mine.title}, {point} | {by[0]:.2f} | {by[1]:.2f} |"


def layers(results: Results) -> Iterator[str]:
    """Where the time of our own goes: the floor, the client, the manager, the frameworks' adapters."""
    yield "| µs | read 200 B | CPU | change 200 B | CPU |"
    yield "|---|---:|---:|---:|---:|"
    for group, stack, title in _LAYERS:
        found = [results.table(group, point).cost(stack) for point in _FAR]
        yield f"| {title} | {' | '.join(f'{cost.own:.0f} | {cost.cpu:.0f}' for cost in found)} |"


def about(results: Results) -> Iterator[str]:
    """Where and with what it was measured."""
    said = results.about
    known = ("date", "commit", "processor", "system", "python")
    yield f"{said['date']}, commit {said['commit']}: {said['processor']}, {said['system']}, Python {said['python']};"
    yield ", ".join(f"{name} {value}" for name, value in said.items() if name not in known) + "."


def _stacks(tables: list[Table], left_out: tuple[str, ...] = LEFT_OUT) -> list[tuple[str, str]]:
    found = {cost.stack: cost.title for table in tables for cost in table.costs if cost.kind not in left_out}
    return list(found.items())


def _cell(table: Table, stack: str) -> str:
    return next((f"{cost.own:.0f}" for cost in table.costs if cost.stack == stack), "")


_SMALL: Final = (
    "untouched 200 B",
    "read 200 B",
    "change 200 B",
    "new-id 200 B",
    "login 200 B",
    "logout 200 B",
)
_LARGER: Final = ("read 2 KB", "change 2 KB", "read 50 KB", "change 50 KB")
_SLIDING: Final = ("untouched 200 B", "read 200 B", "change 200 B")
_LAYERS: Final = (
    ("flask", "hiredis", "a socket and hiredis"),
    ("flask", "valkey-py", "valkey-py with libvalkey"),
    ("flask", "redis-py", "redis-py with hiredis"),
    ("flask", "our-client", "our client"),
    ("flask", "our-client-libvalkey", "our client over valkey-py with libvalkey"),
    ("flask", "our-manager", "our manager"),
    ("flask", "ours", "ours in Flask"),
    ("flask", "ours-libvalkey", "ours in Flask over valkey-py with libvalkey"),
    ("flask", "least", "the least in Flask"),
    ("django", "ours", "ours in Django"),
    ("django", "least", "the least in Django"),
    ("flask", "socket-memcached", "a socket to Memcached"),
    ("flask", "pymemcache", "pymemcache"),
    ("flask", "our-client-memcached", "our client, Memcached"),
    ("flask", "our-manager-memcached", "our manager, Memcached"),
    ("flask", "ours-memcached", "ours in Flask, Memcached"),
    ("django", "ours-memcached", "ours in Django, Memcached"),
)
_FAR: Final = ("read 200 B", "change 200 B")

BLOCKS: Final[dict[str, Callable[[Results], Iterator[str]]]] = {
    "targets": targets,
    "flask": costs("flask", *_SMALL),
    "flask-larger": costs("flask", *_LARGER),
    "flask-sliding": costs("flask-sliding", *_SLIDING),
    "flask-far": costs("flask-far", *_FAR),
    "django": costs("django", *_SMALL),
    "django-larger": costs("django", *_LARGER),
    "django-sliding": costs("django-sliding", *_SLIDING),
    "django-far": costs("django-far", *_FAR),
    "asgi": rates,
    "asgi-times": times,
    "layers": layers,
    "about": about,
}


def marks(page: str) -> set[str]:
    """The blocks that a page has room for, those of others too."""
    return set(re.findall(r"^<!-- ([\w-]+):begin -->$", page, re.MULTILINE))
