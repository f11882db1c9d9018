"""Flask's own tests of sessions, run against ours: those that hold for any interface.

They come from Flask's source distribution, for the Flask that is installed, and are fetched once; no copy is kept in git.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.own_suites import ROOT, own_suite

FLASK = importlib.metadata.version("flask")

BASIC = (
    "test_session_accessed",
    "test_session_path",
    "test_session_using_application_root",
    "test_session_using_session_settings",
    "test_session_using_samesite_attribute",
    "test_session_expiration",
    "test_session_stored_last",
    "test_session_special_types",
    "test_session_cookie_setting",
    "test_session_vary_cookie",
    "test_session_refresh_vary",
    "test_flashes",
    "test_extended_flashing",
)
TESTS = (
    *(f"test_basic.py::{name}" for name in BASIC),
    "test_reqctx.py::test_session_dynamic_cookie_name",
    "test_testing.py::test_session_transactions",
    "test_testing.py::test_session_transactions_keep_context",
    "test_testing.py::test_redirect_session",
    "test_helpers.py::TestStreaming::test_stream_keeps_session",
)
# These write an interface of their own: they only show that ours does not get in its way.
WITH_THEIR_OWN = (
    "test_session_interface.py::test_open_session_with_endpoint",
    "test_reqctx.py::test_session_error_pops_context",
)
# Of the family test_session_transactions*, this one says that an app without SECRET_KEY has no sessions; with ours it has
# (test_flask.py: test_an_app_needs_no_secret_key).
DOES_NOT_HOLD = "test_testing.py::test_session_transactions_no_null_sessions"
# Not in every Flask from 3.1.0 on.
NEWER = {
    "test_basic.py::test_session_accessed": (3, 1, 3),
    "test_testing.py::test_redirect_session": (3, 1, 2),
}


@pytest.fixture(scope="module")
def flasks_tests() -> Path:
    """The folder with Flask's own tests."""
    return own_suite("flask")


@pytest.fixture(scope="module")
def report(flasks_tests: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By the name of each test: its outcome, and how many of our sessions were opened and saved."""
    written = tmp_path_factory.mktemp("flask") / "report.json"
    tests = [
        str(flasks_tests / test) for test in (*TESTS, *WITH_THEIR_OWN, DOES_NOT_HOLD) if is_expected(test)
    ]
    run = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-c",
                "/dev/null",
                f"--rootdir={flasks_tests}",
                "-W",
                "error",
            ),
            *("-p", "no:cacheprovider", "-p", "tests.support.flask_suite"),
            *tests,
        ],
        cwd=flasks_tests,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "ELASTICACHE_SESSIONS_URL": "memory://",
            "FLASK_SUITE_REPORT": str(written),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert written.exists(), run.stdout + run.stderr
    report: dict[str, dict[str, Any]] = json.loads(written.read_text())
    return {name.removeprefix("tests/"): result for name, result in report.items()}


def is_expected(test: str) -> bool:
    return tuple(int(part) for part in FLASK.split(".")[:3]) >= NEWER.get(test, (0,))


@pytest.mark.parametrize("test", TESTS)
def test_flasks_own_test_passes_with_our_sessions(report: dict[str, dict[str, Any]], test: str) -> None:
    if not is_expected(test):
        assert test not in report
        return
    result = report[test]
    assert result["outcome"] == "passed", result["why"]
    assert result["opened"] > 0  # with ours, and not with Flask's


@pytest.mark.parametrize("test", WITH_THEIR_OWN)
def test_flasks_own_test_passes_beside_our_sessions(report: dict[str, dict[str, Any]], test: str) -> None:
    assert report[test]["outcome"] == "passed", report[test]["why"]


def test_an_app_without_a_secret_key_has_sessions_where_flask_has_none(
    report: dict[str, dict[str, Any]],
) -> None:
    """That every test above runs with ours, and that a failure in them would show."""
    result = report[DOES_NOT_HOLD]
    assert (result["outcome"], result["opened"] > 0) == ("failed", True)
    assert "DID NOT RAISE" in result["why"]


def test_nothing_else_ran(report: dict[str, dict[str, Any]]) -> None:
    assert report.keys() == {test for test in (*TESTS, *WITH_THEIR_OWN, DOES_NOT_HOLD) if is_expected(test)}
