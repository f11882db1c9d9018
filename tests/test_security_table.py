"""Every row of the tables in docs/security.md names tests that are there, or says that it is the app's."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "security.md").read_text()
NAMED = re.compile(r"`(tests/\w+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    """The cells of each row of the tables whose last column is what shows it."""
    found: list[list[str]] = []
    for table in re.findall(r"^\|.*\| shown by \|\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE):
        found += [line.strip("|").split(" | ") for line in table.splitlines()]
    return found


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: cells[0].strip()[:40])
def test_each_row_names_tests_that_are_there_or_says_that_it_is_the_apps(cells: list[str]) -> None:
    assert len(cells) == 3
    named = NAMED.findall(cells[2])
    assert bool(named) != (cells[2].strip() == "the app"), cells[2]
    assert ", ".join(f"`{path}::{name}`" for path, name in named) in cells[2]
    assert [name for path, name in named if name not in functions_of(path)] == []


def test_each_requirement_has_its_row() -> None:
    firsts = [cells[0].strip() for cells in rows()]
    chapters = {"7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 3, "7.6": 2, "3.3": 5}
    wanted = [f"{section}.{number}" for section, last in chapters.items() for number in range(1, last + 1)]
    asvs = [first.split()[0] for first in firsts if re.match(r"\d\.\d\.\d ", first)]
    assert [each for each in asvs if not each.startswith("5.1.1")] == wanted
    assert len(firsts) > 50
    assert len(firsts) == len(set(firsts))
