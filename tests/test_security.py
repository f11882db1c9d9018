"""What the tables in docs/security.md promise of cookies and ids, in both frameworks."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpRequest
from flask import Flask, session
from pytest_django import Settings

from elasticache_sessions.flask import ElastiCacheSessions
from elasticache_sessions.session import new_id
from tests.support.django_browser import Browser
from tests.support.load import PATIENTLY
from tests.support.stores import Store

Change = Callable[[Any], object]
"""What a view does with the session."""
Visit = Callable[..., list[str]]
"""`visit(change, cookie, path)`: one request. The Set-Cookie headers of the response."""

HARDENED: dict[str, Any] = {
    "SESSION_COOKIE_NAME": "__Host-id",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_HTTPONLY": True,
    "SESSION_COOKIE_SAMESITE": "Strict",
    "SESSION_COOKIE_PATH": "/",
    "SESSION_COOKIE_DOMAIN": None,
}
SHARED = HARDENED | {
    "SESSION_COOKIE_NAME": "__Secure-id",
    "SESSION_COOKIE_SAMESITE": "Lax",
    "SESSION_COOKIE_PATH": "/shop",
    "SESSION_COOKIE_DOMAIN": "shop.example.com",
}


@pytest.fixture(params=["flask", "django", "django-async"])
def visiting(
    request: pytest.FixtureRequest, single_store: Store, settings: Settings
) -> Callable[[dict[str, Any]], Visit]:
    """Makes sites with that configuration, of each framework in turn."""

    def of_flask(config: dict[str, Any]) -> Visit:
        app = Flask("shop")
        app.config |= {"ELASTICACHE_SESSIONS_URL": single_store.url} | PATIENTLY | config
        ElastiCacheSessions(app)
        changes: list[Change] = []

        @app.route("/")
        def view() -> str:
            changes.pop()(session)
            return "done"

        def visit(change: Change, cookie: str = "", path: str = "/", **headers: str) -> list[str]:
            changes.append(change)
            client = app.test_client(use_cookies=False)
            return client.get(path, headers={"Cookie": cookie} | headers).headers.getlist("Set-Cookie")

        return visit

    def of_django(config: dict[str, Any]) -> Visit:
        browser = Browser(single_store, settings)
        for name, value in config.items():
            setattr(settings, name, value)

        def visit(change: Change, cookie: str = "", path: str = "/", **headers: str) -> list[str]:
            browser.client.cookies.clear()
            browser.client.cookies.load(cookie)
            if request.param == "django":
                response = browser.visit(lambda request: change(request.session), path, headers)
            else:

                async def view(request: HttpRequest) -> object:
                    await request.session.aget("")  # so that a change finds it read
                    return change(request.session)

                response = browser.avisit(view, path.replace("/", "/async", 1), headers)
            return [morsel.OutputString() for morsel in response.cookies.values()]

        return visit

    return of_flask if request.param == "flask" else of_django


def attributes(set_cookie: str) -> set[str]:
    """Those that say where a cookie goes, in one way of writing."""
    found = {part.strip().lower() for part in set_cookie.split(";")[1:]}
    return {part for part in found if not part.startswith(("expires", "max-age"))}


def end(session: Any) -> None:
    if hasattr(session, "flush"):
        session.flush()
    else:
        session.clear()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (HARDENED, {"secure", "httponly", "path=/", "samesite=strict"}),
        (SHARED, {"secure", "httponly", "path=/shop", "samesite=lax", "domain=shop.example.com"}),
    ],
    ids=["__Host-", "__Secure-"],
)
def test_the_cookie_has_every_attribute_that_is_set_also_when_it_is_deleted(
    visiting: Callable[[dict[str, Any]], Visit], config: dict[str, Any], expected: set[str]
) -> None:
    visit = visiting(config)
    (begun,) = visit(lambda session: session.update({"a": 1}))
    name, _, value = begun.partition(";")[0].partition("=")
    assert name == config["SESSION_COOKIE_NAME"]
    assert attributes(begun) == expected
    (ended,) = visit(end, f"{name}={value}")
    assert re.match(rf'{name}=("")?;', ended)
    # The browser finds the cookie by its name, path and domain; the prefix of the name needs Secure.
    assert attributes(ended) >= expected - {"httponly"}


def test_the_cookie_is_an_opaque_id_however_much_the_session_holds(
    visiting: Callable[[dict[str, Any]], Visit],
) -> None:
    visit = visiting({})
    values = set()
    for content in ("", "ada@example.com" * 1_000):
        (begun,) = visit(lambda session, content=content: session.update({"a": content}))
        value = begun.partition(";")[0].partition("=")[2]
        assert len(base64.urlsafe_b64decode(value)) == 30
        values.add(value)
    assert len(values) == 2


def test_an_id_that_comes_otherwise_than_in_the_cookie_is_none(
    visiting: Callable[[dict[str, Any]], Visit],
) -> None:
    visit = visiting({"SESSION_COOKIE_NAME": "id"})
    (begun,) = visit(lambda session: session.update({"a": 1}))
    value = begun.partition(";")[0].partition("=")[2]
    found: list[Any] = []
    visit(lambda session: found.append(session.get("a")), begun.partition(";")[0])
    assert found == [1]
    visit(
        lambda session: found.append(session.get("a")),
        f"sessionid={value}; ID={value}",
        f"/?id={value}&session={value}&sessionid={value}",
        Authorization=f"Bearer {value}",
        id=value,
    )
    assert found == [1, None]


def test_ids_are_random_and_never_the_same() -> None:
    """240 bits of the operating system's generator: each bit of many is set about half the time."""
    numbers = [int.from_bytes(base64.urlsafe_b64decode(new_id())) for _ in range(2_000)]
    assert len(set(numbers)) == 2_000
    for bit in range(240):
        assert 700 < sum(number >> bit & 1 for number in numbers) < 1_300
