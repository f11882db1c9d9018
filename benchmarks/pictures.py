"""The pictures of README.md and docs/performance.md. On white, so that they can be read on a dark page as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .results import Results, Table

INK: Final = "#24292f"
FAINT: Final = "#8c959f"
OURS: Final = "#0969da"
OTHERS: Final = ("#bc8cff", "#d4a72c", "#8c959f", "#57ab5a")
TITLES: Final = {"flask-session": "Flask-Session, Redis, as it comes"}
Bars = tuple[tuple[str, str, str], ...]
"""Group, point, what it is called."""

FLASK_ROWS: Final[Bars] = (
    ("flask", "untouched 200 B", "session untouched"),
    ("flask", "read 200 B", "read"),
    ("flask", "change 200 B", "change one key"),
    ("flask", "read 50 KB", "read one key of 50 KB"),
    ("flask", "change 50 KB", "change one key of 50 KB"),
)
DJANGO_ROWS: Final[Bars] = (
    ("django", "untouched 200 B", "session untouched"),
    ("django", "read 200 B", "read"),
    ("django-sliding", "read 200 B", "read, SAVE_EVERY_REQUEST"),
    ("django", "change 200 B", "change one key"),
    ("django", "read 50 KB", "read one key of 50 KB"),
    ("django", "change 50 KB", "change one key of 50 KB"),
)


def draw(results: Results, folder: Path) -> None:
    """Both, as SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "font.family": "DejaVu Sans", "font.size": 9})
    _costs(results, folder / "performance.svg")
    _rates(results, folder / "performance-asgi.svg")


def _costs(results: Results, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 5.2), layout="constrained")
    _bars(left, "Flask", results, FLASK_ROWS, ("ours", "flask-session", "flask-session-still"))
    _bars(right, "Django", results, DJANGO_ROWS, ("ours", "redis-cache", "django-redis"))
    figure.suptitle(
        "What a session adds to a request, in µs (median; shorter is better)", color=INK, fontweight="bold"
    )
    _save(figure, path)


def _bars(axes: Any, title: str, results: Results, rows: Bars, stacks: tuple[str, ...]) -> None:
    height = 0.8 / len(stacks)
    longest = 0.0
    for number, stack in enumerate(stacks):
        costs = [results.table(group, point).cost(stack) for group, point, _ in rows]
        places = [row + number * height for row in range(len(rows))]
        widths = [cost.own for cost in costs]
        longest = max(longest, *widths)
        color = OURS if stack == "ours" else OTHERS[number - 1]
        axes.barh(places, widths, height * 0.9, label=TITLES.get(stack, costs[0].title), color=color)
        for place, width in zip(places, widths, strict=True):
            axes.annotate(
                f"{width:,.0f}", (max(width, 0), place), (3, 0), textcoords="offset points", va="center",
                color=INK if stack == "ours" else FAINT, fontsize=8, fontweight="bold" if stack == "ours" else "normal",
            )  # fmt: skip
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(rows))], [words for *_, words in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.12)
    axes.set_title(title, loc="left", color=INK)
    axes.legend(frameon=False, loc="upper right", labelcolor=INK)
    _bare(axes)


def _rates(results: Results, path: Path) -> None:
    from matplotlib import pyplot as plt

    table: Table = results.table("asgi", "read 2 KB")
    with_an_app = [cost for cost in table.costs if cost.kind not in ("layer", "floor")]
    costs = sorted(with_an_app, key=lambda cost: cost.total)
    figure, axes = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
    colors = [OURS if cost.kind == "ours" else FAINT for cost in costs]
    rates = [1e6 / cost.total for cost in costs]
    axes.barh([cost.title for cost in costs], rates, 0.7, color=colors)
    for place, rate in enumerate(rates):
        axes.annotate(
            f"{rate:,.0f}", (rate, place), (3, 0), textcoords="offset points", va="center", color=INK
        )
    axes.invert_yaxis()
    axes.set_xlim(0, max(rates) * 1.1)
    axes.set_title(
        f"Requests per second, {table.at_once} at once, each reads a session of 2 KB (longer is better)",
        loc="left", color=INK, fontweight="bold", fontsize=9.5, x=-0.2,
    )  # fmt: skip
    _bare(axes)
    _save(figure, path)


def _bare(axes: Any) -> None:
    axes.tick_params(colors=INK, length=0)
    axes.xaxis.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, facecolor="white", metadata={"Date": None})
