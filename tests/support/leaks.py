"""What logs and tracebacks show, to whoever looks for ids and for what sessions hold."""

from __future__ import annotations

import logging
import re
import secrets
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Final

import elasticache_sessions
from elasticache_sessions import Fields, session

_PACKAGE: Final = str(Path(elasticache_sessions.__file__).parent)
_LIKE_AN_ID: Final = re.compile(r"(?<![\w-])[\w-]{40}(?![\w-])", re.ASCII)
# Methods of a session that are given what it is to hold: whoever calls them has it in variables as well.
_VERBS: Final = frozenset({"__setitem__", "setdefault", "update"})


def shown(record: logging.LogRecord) -> str:
    """A log line as a handler writes it, with its traceback and, in our frames, the variables."""
    text = logging.Formatter().format(record)
    error = record.exc_info[1] if record.exc_info else None
    return text if error is None else f"{text}\n{shown_of(error)}"


def shown_of(error: BaseException) -> str:
    """An error with its causes, as a traceback shows them, and the variables of our frames."""
    lines = ["".join(traceback.format_exception(error))]
    seen: BaseException | None = error
    while seen is not None:
        lines += _variables(seen.__traceback__)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(lines)


def _variables(trace: TracebackType | None) -> Iterator[str]:
    for frame, _ in traceback.walk_tb(trace):
        if not frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_code.co_name in _VERBS:
            continue
        for name, value in frame.f_locals.items():
            # A session shows what it holds, as a dict does: docs/security.md says so.
            if not isinstance(value, Fields):
                yield f"{frame.f_code.co_qualname}: {name} = {value!r}"


class Ids:
    """Every id that this process has made since it began to remember."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def remember(self) -> None:
        """From now on, for good."""
        vars(session)["secrets"] = SimpleNamespace(token_urlsafe=self._token)  # all that is used of it

    def _token(self, size: int) -> str:
        made = secrets.token_urlsafe(size)
        self._made.add(made)
        return made

    def within(self, text: str) -> list[str]:
        return [word for word in _LIKE_AN_ID.findall(text) if word in self._made]


IDS: Final = Ids()


class Watch(logging.Handler):
    """Keeps the log lines that hold an id."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if IDS.within(text):
            self.found.append(text)
