"""What is asked of every stack: the requests that are timed, and those that come before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request."""

    name: str
    title: str
    path: str
    before: tuple[str, ...] = ()
    """What a browser without a cookie asks before each such request, untimed. Where nothing is, the browser has had a
    session from the beginning.
    """


UNTOUCHED: Final = Case("untouched", "untouched, with a cookie", "/untouched")
READ: Final = Case("read", "read one small field", "/read")
CHANGE: Final = Case("change", "change one key", "/change")
NEW_ID: Final = Case("new-id", "new id", "/new-id", ("/begin",))
LOGIN: Final = Case("login", "login", "/login", ("/begin",))
LOGOUT: Final = Case("logout", "logout", "/logout", ("/begin", "/login"))
CASES: Final = {case.name: case for case in (UNTOUCHED, READ, CHANGE, NEW_ID, LOGIN, LOGOUT)}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker is asked: so many requests of a case, in a row or at once."""

    case: Case
    size: int
    requests: int
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class Block:
    """The answer to an Ask, for each request in nanoseconds: what passed, and what the process computed. Of requests at once,
    one figure: all of them, by their number.
    """

    wall: tuple[int, ...]
    cpu: tuple[int, ...]


class Asked:
    """Answers an Ask. What is first asked for costs whatever it costs to warm up; that is the asker's affair."""

    def run(self, ask: Ask) -> Block:
        raise NotImplementedError
