"""Django's own tests of sessions, run against our engine, with Django's own middleware and with ours.

They come from Django's source distribution, for the Django that is installed, and are fetched once; no copy is kept in git.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import django
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from pytest_django import Settings

from elasticache_sessions.django import SessionStore
from elasticache_sessions.django.middleware import SessionMiddleware
from tests.support.own_suites import ROOT, own_suite
from tests.support.stores import Store

# The same in Django 5.2, 6.0 and 6.1, but for one that came with the correction of CVE-2026-35192, and one with 6.1.
CORRECTED = (6, 0, 5) if django.VERSION >= (6, 0) else (5, 2, 14)
MIDDLEWARE = 12 if django.VERSION >= CORRECTED else 11
HOW_MANY = {
    "Engine": 65,
    "DjangosMiddleware": MIDDLEWARE,
    "OurMiddleware": MIDDLEWARE,
    "Base": 4 if django.VERSION >= (6, 1) else 3,
}
# Django's middleware answers 400 where a session was ended while a request was using it; ours lets the response go out (see
# below). That this one fails also shows that a failure would be seen.
DOES_NOT_HOLD = "OurMiddleware.test_session_update_error_redirect"


def run(store: Store, folder: Path) -> dict[str, Any]:
    written = folder / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "tests.support.django_suite"),
            *(str(own_suite("django")), store.url, str(written)),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0 and written.exists(), done.stdout + done.stderr
    report: dict[str, Any] = json.loads(written.read_text())
    return report


def test_djangos_own_tests_hold_for_our_engine(store: Store, tmp_path: Path) -> None:
    report = run(store, tmp_path)
    assert report["django"] == django.get_version()
    tests: dict[str, dict[str, Any]] = report["tests"]
    for case, number in HOW_MANY.items():
        assert sum(name.startswith(f"{case}.") for name in tests) == number, case
    assert len(tests) == sum(HOW_MANY.values())

    failed = {name: test["outcome"] for name, test in tests.items() if test["outcome"] != "passed"}
    assert "SessionInterrupted not raised" in failed.pop(DOES_NOT_HOLD, "")
    assert failed == {}

    for name in ("Engine.test_save", "Engine.test_save_async", "OurMiddleware.test_empty_session_saved"):
        assert tests[name]["asked"] > 0, f"{name} asked our engine for nothing"
    assert len(report["left"]) > 10
    if store.ports:  # what is in memory was in the memory of the process that ran them
        assert [key.decode() for key in store.keys()] == report["left"]


def test_with_our_middleware_the_response_goes_out_though_its_session_was_ended(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ELASTICACHE_SESSIONS_URL = store.url

    def view(request: HttpRequest) -> HttpResponse:
        request.session = SessionStore()
        request.session.save(must_create=True)
        request.session["cart"] = ["mug"]
        request.session.delete()
        return HttpResponse("done")

    response = SessionMiddleware(view)(RequestFactory().get("/foo/"))
    assert isinstance(response, HttpResponse)
    assert (response.status_code, response.content, response.cookies) == (200, b"done", {})
    [line] = caplog.messages
    assert line.endswith("its changes are dropped")
