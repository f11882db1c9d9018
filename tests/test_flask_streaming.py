"""Streamed responses: their generators run after the session was saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Response, session, stream_with_context
from werkzeug.test import TestResponse

from tests.support.flask_apps import Site, log_lines
from tests.support.stores import Store


@pytest.fixture
def site(store: Store) -> Iterator[Site]:
    with Site(store.url) as site:
        site.visit(lambda: session.update(name="Ada", cart=["tea"]))
        yield site


def stream(
    site: Site, generate: Callable[[], Iterator[str]], first: Callable[[], Any] = lambda: None
) -> TestResponse:
    """A response whose parts `generate` makes after the view has run `first`."""
    return site.visit(lambda: first() or Response(stream_with_context(generate())))


def test_a_stream_reads_a_session_that_the_view_did_not_touch(site: Site) -> None:
    def generate() -> Iterator[str]:
        yield "Hello "
        yield session["name"]

    with site.recording() as commands:
        response = stream(site, generate)
        assert "Set-Cookie" not in response.headers
        assert response.text == "Hello Ada"
    assert commands == ["touch"]


def test_a_stream_reads_what_the_view_changed(site: Site) -> None:
    def generate() -> Iterator[str]:
        yield ", ".join(session["cart"])

    with site.recording() as commands:
        assert stream(site, generate, lambda: session["cart"].append("milk")).text == "tea, milk"
    assert commands == ["touch", "write"]
    assert site.contents()["cart"] == ["tea", "milk"]


def test_a_stream_without_a_cookie_reads_an_empty_session(site: Site) -> None:
    def generate() -> Iterator[str]:
        yield session.get("name", "nobody")

    site.browser = site.client_with(None)
    with site.recording() as commands:
        assert stream(site, generate).text == "nobody"
    assert commands == []


CHANGES: dict[str, Callable[[Site], object]] = {
    "assign": lambda site: session.update(name="Eve"),
    "delete": lambda site: session.pop("name"),
    "clear": lambda site: session.clear(),
}
VERBS: dict[str, Callable[[Site], object]] = {
    "cycle": lambda site: site.sessions.cycle_id(),
    "login": lambda site: site.sessions.login("eve"),
    "logout": lambda site: site.sessions.logout(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("touched", [True, False], ids=["touched by the view", "untouched"])
def test_a_change_after_the_save_is_lost_with_a_warning_and_no_error(
    site: Site, caplog: pytest.LogCaptureFixture, touched: bool, change: Callable[[Site], object]
) -> None:
    def generate() -> Iterator[str]:
        yield "one "
        change(site)
        yield "two"

    with site.recording() as commands:
        response = stream(site, generate, (lambda: session.get("none")) if touched else (lambda: None))
        assert (response.status_code, response.text) == (200, "one two")
    assert commands == ["touch"]
    [line] = log_lines(caplog)
    assert site.handle() in line and "changed after it was saved" in line
    assert site.contents() == {"name": "Ada", "cart": ["tea"]}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_signing_in_or_out_in_a_stream_is_an_error_and_not_a_silent_nothing(
    site: Site, verb: Callable[[Site], object]
) -> None:
    said: list[RuntimeError] = []

    def generate() -> Iterator[str]:
        try:
            verb(site)
        except RuntimeError as error:
            said.append(error)
        yield "one"

    assert stream(site, generate).text == "one"
    assert "before the response is returned" in str(said[0])
    assert site.contents() == {"name": "Ada", "cart": ["tea"]}


def test_apply_in_a_stream_is_not_called_lost_when_it_was_stored(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def generate() -> Iterator[str]:
        yield str(site.sessions.apply(lambda fields: fields.setdefault("count", 1)))

    assert stream(site, generate).text == "1"
    stored = site.contents().get("count") == 1
    assert stored == (log_lines(caplog) == [])


def test_a_stream_that_nobody_reads_ends_its_context(site: Site) -> None:
    ended: list[bool] = []

    def generate() -> Iterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            ended.append(True)

    response = site.visit(lambda: Response(stream_with_context(generate())), buffered=False)
    next(iter(response.response))
    response.close()
    assert ended == [True]
    assert site.contents()["name"] == "Ada"
