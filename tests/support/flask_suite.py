"""A pytest plugin for Flask's own tests: every app in them gets our sessions, and a report tells which tests had some.

    python -m pytest -p tests.support.flask_suite …

The store is what ELASTICACHE_SESSIONS_URL says. FLASK_SUITE_REPORT names the file for the report, in JSON: for each test its
outcome and why, and how many of our sessions were opened and saved in it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import flask
import flask.sessions
import pytest
from _pytest import monkeypatch
from flask.sessions import SessionMixin

from elasticache_sessions.flask import ElastiCacheSessionInterface, ElastiCacheSessions, FlaskSession

_report: dict[str, dict[str, Any]] = {}
_running: list[str] = []


def _count(what: str) -> None:
    if _running:
        _report[_running[-1]][what] += 1


class Counting(ElastiCacheSessionInterface):
    """Ours; where a test builds upon Flask's own class, it builds upon this one, whose manager comes with the app."""

    def __init__(self) -> None:
        """Called without arguments, as Flask's is."""

    def open_session(self, app: flask.Flask, request: flask.Request) -> FlaskSession:
        _count("opened")
        return super().open_session(app, request)

    def save_session(self, app: flask.Flask, session: SessionMixin, response: flask.Response) -> None:
        _count("saved")
        super().save_session(app, session, response)


_own = flask.Flask.session_interface
_make = flask.Flask.__init__


def _make_with_our_sessions(self: flask.Flask, *arguments: Any, **named: Any) -> None:
    _make(self, *arguments, **named)
    given = self.session_interface
    ElastiCacheSessions(self)
    ours = self.session_interface
    assert isinstance(ours, ElastiCacheSessionInterface)
    if given is _own:
        given = Counting()
    if isinstance(given, Counting):
        ElastiCacheSessionInterface.__init__(given, ours.manager, fixed_idle_timeout=False)
    self.session_interface = given  # an interface that the test wrote itself stays


def pytest_configure() -> None:
    # Flask's conftest asks for a name that pytest 9 writes in capitals.
    if not hasattr(monkeypatch, "notset"):
        monkeypatch.notset = monkeypatch.NOTSET  # type: ignore[attr-defined]
    # Before the tests are imported, so that they find it there.
    flask.sessions.SecureCookieSessionInterface = Counting  # type: ignore[assignment, misc]
    flask.Flask.__init__ = _make_with_our_sessions  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    _report[item.nodeid] = {"opened": 0, "saved": 0, "outcome": "not run", "why": ""}
    _running.append(item.nodeid)
    try:
        return (yield)
    finally:
        _running.pop()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    test = _report[report.nodeid]
    # What fails first is what happened; a teardown that fails after a test that passed is a failure, too.
    said = report.when == "call" or report.outcome != "passed"
    if said and test["outcome"] in ("not run", "passed"):
        test["outcome"], test["why"] = report.outcome, report.longreprtext


def pytest_sessionfinish() -> None:
    Path(os.environ["FLASK_SUITE_REPORT"]).write_text(json.dumps(_report))
