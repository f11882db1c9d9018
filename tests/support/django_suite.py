"""Django's own tests of sessions, run against ours, with a report of how each ended and what it asked of the store.

    python -W error -m tests.support.django_suite FOLDER URL REPORT

FOLDER: the folder `tests` of Django's source distribution. URL: the store. REPORT: the file to write, in JSON: what became of
each test ("passed", or why not), the commands that reached the store in it, and the keys that are left there at the end.
"""

from __future__ import annotations

import json
import os
import sys
import unittest
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import django
from django.conf import settings
from django.test import SimpleTestCase
from django.test.runner import DiscoverRunner
from django.test.utils import setup_test_environment

from elasticache_sessions import manager, operation
from elasticache_sessions.clients.base import Look, Read, Scan
from elasticache_sessions.operation import Question
from tests.support.load import PATIENT

_keys: Final[set[bytes]] = set()


class Result(unittest.TestResult):
    """Writes down how each test ended, under the names of its class and its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tests: dict[str, dict[str, Any]] = {}
        self.asked = 0

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().startTest(test)
        self.asked = 0

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().stopTest(test)
        # A part of a test (`subTest`) fails as a case of its own, which knows whose part it is.
        failed = {
            id(getattr(case, "test_case", case)): why
            for case, why in [*self.failures, *self.errors, *self.skipped]
        }
        self.tests[f"{type(test).__name__}.{test._testMethodName}"] = {
            "outcome": failed.get(id(test), "passed"),
            "asked": self.asked,
        }


def count_commands(result: Result) -> None:
    """Whoever asks the store goes through this."""
    put = operation.put

    def noting(client: Any, question: Question) -> Any:
        result.asked += 1
        if not isinstance(question, Look | Scan):
            _keys.add(question.key)
        return put(client, question)

    setattr(manager, "put", noting)  # noqa: B010 - of an imported name


def cases(suite: ModuleType) -> Iterator[type[unittest.TestCase]]:
    """Django's cases, with our engine in the places that they look it up in."""
    from elasticache_sessions.django import SessionStore
    from elasticache_sessions.django.middleware import SessionMiddleware

    django_middleware = suite.SessionMiddleware

    def get(session_key: str) -> Any:
        session = SessionStore(session_key)
        assert session.exists(session_key), "the store has no such session"
        return SimpleNamespace(get_decoded=lambda: dict(session.load()))

    # What only the table `django_session` would have, and sessions that a test makes itself.
    suite.Session = SimpleNamespace(objects=SimpleNamespace(get=get))  # type: ignore[attr-defined]
    suite.DatabaseSession = SessionStore  # type: ignore[attr-defined]

    class Engine(suite.SessionTestsMixin, SimpleTestCase):  # type: ignore[name-defined, misc]
        backend = SessionStore

    class DjangosMiddleware(suite.SessionMiddlewareTests):  # type: ignore[name-defined, misc]
        def setUp(self) -> None:
            suite.SessionMiddleware = django_middleware  # type: ignore[attr-defined]

    class OurMiddleware(suite.SessionMiddlewareTests):  # type: ignore[name-defined, misc]
        def setUp(self) -> None:
            suite.SessionMiddleware = SessionMiddleware  # type: ignore[attr-defined]

    class Base(suite.SessionBaseTests):  # type: ignore[name-defined, misc]
        def setUp(self) -> None:
            suite.SessionBase = SessionStore  # type: ignore[attr-defined]
            self.session = SessionStore()

    yield from (Engine, DjangosMiddleware, OurMiddleware, Base)


# What an abstract class leaves out says nothing of an engine; the fourth is new in Django 6.1.
_BASE: Final = ("test_is_empty", "test_test_cookie", "test_atest_cookie", "test_bool")


def chosen(case: type[unittest.TestCase]) -> list[unittest.TestCase]:
    names = unittest.defaultTestLoader.getTestCaseNames(case)
    return [case(name) for name in names if case.__name__ != "Base" or name in _BASE]


def main(folder: str, url: str, written: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django_site.settings"
    sys.path.insert(0, folder)
    # Its module of tests defines a model, and imports the one of Django's sessions.
    settings.INSTALLED_APPS += ["django.contrib.sessions", "sessions_tests"]
    settings.ELASTICACHE_SESSIONS_URL = url
    settings.ELASTICACHE_SESSIONS_TIMEOUT = settings.ELASTICACHE_SESSIONS_CONNECT_TIMEOUT = PATIENT
    django.setup()
    from sessions_tests import tests as suite  # type: ignore[import-not-found]

    from elasticache_sessions.django import SessionStore

    setup_test_environment()
    DiscoverRunner(verbosity=0).setup_databases()
    result = Result()
    count_commands(result)
    unittest.TestSuite(chain.from_iterable(map(chosen, cases(suite)))).run(result)
    sync = SessionStore.managers().sync
    left = sorted(key.decode() for key in _keys if sync._client.perform(Read(key)) is not None)
    report = {"tests": result.tests, "left": left, "django": django.get_version()}
    Path(written).write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
