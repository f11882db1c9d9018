"""What is measured beside what: groups of stacks that are asked in turn, and the cases of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from .cases import CASES, CHANGE, READ, UNTOUCHED, Case
from .payloads import LARGE, MEDIUM, SIZES, SMALL
from .stacks import ASYNC, BY_IDLE_TIMEOUT, DJANGO, FLASK, FLOOR, LAYERS, PLAIN, Stack


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
    """Stacks that answer the same points in the same rounds."""

    name: str
    title: str
    stacks: tuple[Stack, ...]
    points: tuple[Point, ...]
    sliding: bool = False
    far: bool = False
    """Whether the store is a millisecond away."""
    at_once: int = 1
    """How many requests are under way at a time; where it is more than one, they are asked by ASGI."""
    share: float = 1.0
    """Of the rounds: fewer do where a block takes long."""

    @property
    def asynchronous(self) -> bool:
        return self.at_once > 1

    def rounds(self, rounds: int) -> int:
        return max(2, round(rounds * self.share))

    def requests(self, requests: int) -> int:
        """In a block."""
        return 2 * self.at_once if self.asynchronous else requests


def _points(sizes: tuple[int, ...], *cases: Case) -> tuple[Point, ...]:
    return tuple(Point(case, size) for size in sizes for case in cases)


def _named(stacks: tuple[Stack, ...], *names: str) -> tuple[Stack, ...]:
    return tuple(stack for stack in stacks if stack.name in (PLAIN, *names))


ALL: Final = (*_points((SMALL,), *CASES.values()), *_points((MEDIUM, LARGE), READ, CHANGE))
SLIDING: Final = _points((SMALL,), UNTOUCHED, READ, CHANGE)
FAR: Final = _points((SMALL,), READ, CHANGE)
FLASK_SLIDING: Final = "ours", "ours-memcached", "flask-session", "flask-session-memcached", "signed-cookie"
FLASK_FAR: Final = "ours", "ours-memcached", "flask-session", "flask-session-memcached"
DJANGO_FAR: Final = "ours", "ours-memcached", "redis-cache", "django-redis"
ASGI: Final = "ours", "ours-memcached", "redis-cache", "django-redis", "pymemcache-cache"
AT_ONCE: Final = 50

GROUPS: Final = (
    Group("flask", "Flask", (*FLASK, *LAYERS, *FLOOR), ALL),
    Group("django", "Django", (*DJANGO, *FLOOR), ALL),
    Group(
        "flask-sliding",
        "Flask, permanent sessions, refreshed",
        _named(FLASK, *FLASK_SLIDING),
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
    Group(
        "flask-far",
        "Flask, store 1 ms away",
        (*_named(FLASK, *FLASK_FAR), *_named(FLOOR, "redis-py", "pymemcache", "socket")),
        FAR,
        far=True,
        share=0.4,
    ),
    Group(
        "django-far",
        "Django, store 1 ms away",
        (*_named(DJANGO, *DJANGO_FAR), *_named(FLOOR, "redis-py", "pymemcache", "socket")),
        FAR,
        far=True,
        share=0.4,
    ),
    Group(
        "asgi",
        f"Django under ASGI, {AT_ONCE} requests at once",
        (*_named(DJANGO, *ASGI), *ASYNC),
        (*_points((SMALL,), READ, CHANGE), *_points((MEDIUM,), READ)),
        at_once=AT_ONCE,
        share=0.4,
    ),
)


def chosen(only: str | None, stacks: str | None, against: str = "") -> list[Group]:
    """The groups and points whose "group point" has `only` in it, as a regular expression; of their stacks those that `stacks`
    names, too. The app without sessions always stays. `against`: another checkout, whose package is measured as well.
    """
    groups = []
    for group in GROUPS:
        points = tuple(point for point in group.points if re.search(only or "", f"{group.name} {point.name}"))
        who = tuple(
            stack for stack in group.stacks if stack.kind == "plain" or re.search(stacks or "", stack.name)
        )
        if against:
            who += tuple(stack.in_tree(against) for stack in who if stack.kind in ("ours", "layer"))
        if points:
            groups.append(replace(group, points=points, stacks=who))
    return groups
