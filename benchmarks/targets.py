"""What was to be reached: our own cost as a ratio of another's, in the same run. Reported, and not gated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from .figures import Measured, difference, ratio

By = Literal["cost", "rate", "CPU"]
"""Our own cost by theirs; our requests per second by theirs; the CPU time of a request, in µs more than theirs."""


WORDS: Final = {"cost": "{:.2f}", "rate": "{:.2f} times", "CPU": "{:+.0f} µs"}


@dataclass(frozen=True, slots=True)
class Target:
    """`mine` and `theirs` are names of stacks at `where`, "<group> <point>"."""

    case: str
    against: str
    limit: float
    where: str
    theirs: str
    mine: str = "ours"
    by: By = "cost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Measured between `low` and `high`, at 95 %."""

    case: str
    against: str
    by: By
    limit: float
    measured: float
    low: float
    high: float

    @property
    def reached(self) -> bool:
        return self.measured >= self.limit if self.by == "rate" else self.measured <= self.limit

    def words(self) -> tuple[str, str, str]:
        """The limit, what was measured, and between what."""
        words = WORDS[self.by] if self.by != "cost" or self.limit >= 0.2 else "{:.3f}"
        limit = ("at least " if self.by == "rate" else "at most ") + words.format(self.limit)
        return limit, words.format(self.measured), f"{words} … {words}".format(self.low, self.high)


_REDIS_CACHE: Final = "Django cache + RedisCache"
_SAVED: Final = f"{_REDIS_CACHE}, SESSION_SAVE_EVERY_REQUEST"
_AS_IT_COMES: Final = "Flask-Session as it comes"
_STILL: Final = "Flask-Session, refresh off"
_GET: Final = "a bare GET by redis-py"
_SAME_DRIVER: Final = "a bare GET by socket and hiredis"

TARGETS: Final = (
    Target("untouched, with a cookie", _AS_IT_COMES, 0.10, "flask untouched 200 B", "flask-session"),
    Target("untouched, with a cookie", _STILL, 0.10, "flask untouched 200 B", "flask-session-still"),
    Target("read, 200 B", _AS_IT_COMES, 0.45, "flask read 200 B", "flask-session"),
    Target("read, 200 B", _REDIS_CACHE, 0.65, "django read 200 B", "redis-cache"),
    Target("read, 200 B (aim with libvalkey)", _REDIS_CACHE, 0.58, "django read 200 B", "redis-cache"),
    Target("read, sliding expiry", _SAVED, 0.28, "django-sliding read 200 B", "redis-cache"),
    Target(
        "read, sliding by IDLE_TIMEOUT", _SAVED, 0.28, "django-sliding read 200 B", "redis-cache", "ours-idle"
    ),
    Target("change one key, 200 B", _AS_IT_COMES, 0.85, "flask change 200 B", "flask-session"),
    Target("change one key, 200 B", _REDIS_CACHE, 0.42, "django change 200 B", "redis-cache"),
    Target("read one key of 50 KB", _AS_IT_COMES, 0.50, "flask read 50 KB", "flask-session"),
    Target("read one key of 50 KB", _REDIS_CACHE, 0.45, "django read 50 KB", "redis-cache"),
    Target("change one key of 50 KB", _AS_IT_COMES, 0.50, "flask change 50 KB", "flask-session"),
    Target("change one key of 50 KB", _REDIS_CACHE, 0.25, "django change 50 KB", "redis-cache"),
    Target(
        "read, Memcached",
        "Flask-Session, no_delay",
        0.70,
        "flask read 200 B",
        "flask-session-memcached",
        "ours-memcached",
    ),
    Target(
        "read, Memcached",
        "Django PyMemcacheCache",
        0.70,
        "django read 200 B",
        "pymemcache-cache",
        "ours-memcached",
    ),
    Target("read, ASGI, 50 at once, 2 KB", _REDIS_CACHE, 3.0, "asgi read 2 KB", "redis-cache", by="rate"),
    Target("read, ASGI, 50 at once, 2 KB", "django-redis", 1.8, "asgi read 2 KB", "django-redis", by="rate"),
    Target("read, Flask, store 1 ms away", "a bare GET", 1.15, "flask-far read 200 B", "redis-py"),
    Target("read, Django, store 1 ms away", "a bare GET", 1.15, "django-far read 200 B", "redis-py"),
    Target(
        "change, Flask, store 1 ms away",
        "a bare GET and a bare SET",
        1.15,
        "flask-far change 200 B",
        "redis-py",
    ),
    Target(
        "change, Django, store 1 ms away",
        "a bare GET and a bare SET",
        1.15,
        "django-far change 200 B",
        "redis-py",
    ),
    Target("CPU of a read, Flask, 200 B", _GET, 40, "flask read 200 B", "redis-py", by="CPU"),
    Target("CPU of a read, Flask, 200 B", _SAME_DRIVER, 40, "flask read 200 B", "hiredis", by="CPU"),
    Target("CPU of a read, Django, 200 B", _GET, 40, "django read 200 B", "redis-py", by="CPU"),
    Target("CPU of a read, Django, 200 B", _SAME_DRIVER, 40, "django read 200 B", "hiredis", by="CPU"),
)


def outcomes(measured: Iterable[Measured]) -> Iterator[Outcome]:
    """Of each target that was measured, in the table's order."""
    places = {f"{one.group.name} {one.point.name}": one for one in measured}
    for target in TARGETS:
        if (place := places.get(target.where)) and {target.mine, target.theirs} <= place.samples.keys():
            yield _outcome(target, place)


def _outcome(target: Target, place: Measured) -> Outcome:
    stacks = {stack.name: stack for stack in place.stacks()}
    mine, theirs = stacks[target.mine], stacks[target.theirs]
    if target.by == "rate":
        found = ratio(place.rates(mine), place.rates(theirs))
    elif target.by == "cost":
        found = ratio(*([sample.wall for sample in place.own(stack)] for stack in (mine, theirs)))
    else:
        found = difference(*([sample.cpu for sample in place.own(stack)] for stack in (mine, theirs)))
    return Outcome(target.case, target.against, target.by, target.limit, found.median, found.low, found.high)
