"""What is measured beside what: groups of stacks that are asked in turn, and the cases of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from .cases import CASES, CHANGE, READ, UNTOUCHED, Case
from .payloads import LARGE, MEDIUM, SIZES, SMALL
from .stacks import BY_IDLE_TIMEOUT, DJANGO, FLASK, FLOOR, PLAIN, Stack


@dataclass(frozen=True, slots=True)
class Point:
    """One line of a table: a case with a payload."""

    case: Case
    size: int

    @property
    def name(self) -> str:
        return f"{self.case.name} {SIZES[self.size]}"


@dataclass(frozen=True, slots=True)
class Group:
    """Stacks in one framework, which answer the same points in the same rounds."""

    name: str
    title: str
    stacks: tuple[Stack, ...]
    points: tuple[Point, ...]
    sliding: bool = False
    far: bool = False
    """Whether the store is a millisecond away."""


SMALL_POINTS: Final = tuple(Point(case, SMALL) for case in CASES.values())
LARGER: Final = tuple(Point(case, size) for size in (MEDIUM, LARGE) for case in (READ, CHANGE))
SLIDING: Final = tuple(Point(case, SMALL) for case in (UNTOUCHED, READ, CHANGE))


def _named(stacks: tuple[Stack, ...], *names: str) -> tuple[Stack, ...]:
    return tuple(stack for stack in stacks if stack.name in names)


GROUPS: Final = (
    Group("flask", "Flask", (*FLASK, *FLOOR), SMALL_POINTS + LARGER),
    Group("django", "Django", (*DJANGO, *FLOOR), SMALL_POINTS + LARGER),
    Group(
        "flask-sliding",
        "Flask, permanent sessions, refreshed with each request",
        _named(
            FLASK,
            PLAIN,
            "ours",
            "ours-memcached",
            "flask-session",
            "flask-session-memcached",
            "signed-cookie",
        ),
        SLIDING,
        sliding=True,
    ),
    Group(
        "django-sliding",
        "Django, SESSION_SAVE_EVERY_REQUEST",
        (*(stack for stack in DJANGO if stack.name != "ours-encrypted"), BY_IDLE_TIMEOUT),
        SLIDING,
        sliding=True,
    ),
)


def chosen(only: str | None, stacks: str | None) -> list[Group]:
    """The groups and points whose "group point" has `only` in it, as a regular expression; of their stacks those that `stacks`
    names, too. The app without sessions always stays.
    """
    groups = []
    for group in GROUPS:
        points = tuple(point for point in group.points if re.search(only or "", f"{group.name} {point.name}"))
        who = tuple(
            stack for stack in group.stacks if stack.kind == "plain" or re.search(stacks or "", stack.name)
        )
        if points:
            groups.append(replace(group, points=points, stacks=who))
    return groups
