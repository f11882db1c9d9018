"""How values are stored under Django: exactly, or by another SESSION_SERIALIZER, field by field; and what cannot be."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

import pytest
from django.contrib.sessions.serializers import JSONSerializer
from django.db.models import IntegerChoices, TextChoices
from django.http import HttpRequest
from pytest_django import Settings

from elasticache_sessions import EncodeError, codec
from elasticache_sessions.django import SessionStore
from elasticache_sessions.django.content import JSON
from elasticache_sessions.session import handle_of
from tests.support.django_browser import DJANGOS, OURS, Browser
from tests.support.flask_apps import log_lines
from tests.support.stores import Store

RICH = "tests.django_site.serializers.Rich"
ONLY_DICTS = "tests.django_site.serializers.OnlyDicts"
STUMBLING = "tests.django_site.serializers.Stumbling"


@pytest.fixture
def browser(store: Store, settings: Settings) -> Browser:
    return Browser(store, settings)


def put(**fields: Any) -> Any:
    """A view that puts them into the session."""
    return lambda request: request.session.update(fields)


def test_another_serializer_stores_what_it_can_field_by_field(browser: Browser, settings: Settings) -> None:
    settings.SESSION_SERIALIZER = RICH
    browser.visit(put(price=Decimal("1.10"), pair=(1, 2), name="Ada"))
    assert browser.content() == {"price": Decimal("1.10"), "pair": [1, 2], "name": "Ada"}
    assert {name: codec.decode_foreign(data) for name, data in browser.fields().items()} == {
        "price": b'{"value": {"decimal": "1.10"}}',
        "pair": b'{"value": [1, 2]}',
        "name": b'{"value": "Ada"}',
    }


def test_changes_to_different_fields_both_hold_with_another_serializer(
    browser: Browser, settings: Settings
) -> None:
    settings.SESSION_SERIALIZER = RICH
    browser.visit(put(a=1, cart=["mug"]))

    def while_another_writes(request: HttpRequest) -> None:
        request.session["a"] += 1
        other = SessionStore(request.session.session_key)
        other["cart"].append("pen")
        other.save()

    browser.visit(while_another_writes)
    assert browser.content() == {"a": 2, "cart": ["mug", "pen"]}


def test_a_change_in_place_is_noticed_with_another_serializer(browser: Browser, settings: Settings) -> None:
    settings.SESSION_SERIALIZER = RICH
    browser.visit(put(cart=["mug"]))
    browser.visit(lambda request: request.session["cart"].append("pen"))
    assert browser.content() == {"cart": ["mug", "pen"]}
    before = browser.stored()
    browser.visit(lambda request: request.session["cart"])
    assert browser.stored() == before


def test_a_serializer_that_takes_only_dicts_stores_any_value(browser: Browser, settings: Settings) -> None:
    settings.SESSION_SERIALIZER = ONLY_DICTS
    fields = {"none": None, "number": 1, "list": [1], "dict": {"a": 1}, "decimal": Decimal("1.10")}
    browser.visit(put(**fields))
    assert browser.content() == fields


def test_lifetimes_and_owners_are_known_with_another_serializer(browser: Browser, settings: Settings) -> None:
    settings.SESSION_SERIALIZER = RICH
    browser.visit(lambda request: request.session.set_expiry(600))
    browser.visit(put(_auth_user_id="7"))
    header = browser.header()
    assert (header.idle_ttl, header.owner) == (600, SessionStore()._rules.owner_hash("7"))


def test_the_serializer_may_be_changed_while_sessions_live(browser: Browser, settings: Settings) -> None:
    browser.visit(put(old=(1, 2)))
    stored = browser.stored()
    settings.SESSION_SERIALIZER = RICH
    assert browser.content() == {"old": (1, 2)}
    assert browser.stored() == stored, "reading writes nothing"
    browser.visit(put(new=(3, 4)))
    assert browser.content() == {"old": (1, 2), "new": [3, 4]}
    assert codec.decode(browser.fields()["old"]) == (1, 2), "nobody changed it, so it stays as it is"
    browser.visit(put(old=[5], more=[]))
    browser.visit(lambda request: request.session["more"].append(6))
    assert browser.content() == {"old": [5], "new": [3, 4], "more": [6]}


def test_a_value_stored_before_the_serializer_changed_keeps_its_identity_through_a_save(
    browser: Browser, settings: Settings
) -> None:
    browser.visit(put(cart=["mug"]))
    settings.SESSION_SERIALIZER = RICH

    def view(request: HttpRequest) -> None:
        cart = request.session["cart"]
        request.session["a"] = 1
        request.session.save()
        cart.append("pen")

    browser.visit(view)
    assert browser.content() == {"cart": ["mug", "pen"], "a": 1}


def show(request: HttpRequest) -> dict[str, Any]:
    return dict(request.session.items())


async def ashow(request: HttpRequest) -> dict[str, Any]:
    return dict(await request.session.aitems())


def test_what_the_serializer_cannot_read_counts_as_no_session_and_stays(
    browser: Browser, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SESSION_SERIALIZER = RICH
    browser.visit(put(name="Ada", seen=1))
    settings.SESSION_SERIALIZER = JSON  # back to what it was: that cannot read the other's
    stored, key, cookie = browser.stored(), browser.key, browser.session_key or ""
    for under in ("wsgi", "asgi"):
        caplog.clear()
        response = browser.avisit(ashow) if under == "asgi" else browser.visit(show)
        assert (response.status_code, response.content, response.cookies) == (200, b"{}", {})
        [line] = log_lines(caplog)
        assert "cannot be read and counts as none" in line
        assert handle_of(cookie) in line and cookie not in caplog.text
        assert browser.store.get(key) == stored
    settings.SESSION_SERIALIZER = RICH
    assert browser.content() == {"name": "Ada", "seen": 1}, "whoever can read it still has it"

    settings.SESSION_SERIALIZER = JSON
    browser.visit(lambda request: request.session.get("name") or request.session.update({"name": "Bob"}))
    assert browser.content() == {"name": "Bob"}
    assert browser.key != key, "what begins then is another session"
    assert browser.store.get(key) == stored


# What cannot be stored


async def aput_unstorable(request: HttpRequest) -> None:
    await request.session.aset("a", 2)
    await request.session.aset("thing", object())


@pytest.mark.parametrize("serializer", [JSON, RICH])
@pytest.mark.parametrize("middleware", [OURS, DJANGOS])
@pytest.mark.parametrize("under", ["wsgi", "asgi"])
def test_what_cannot_be_stored_is_an_error_that_names_the_field_and_nothing_changes(
    browser: Browser, settings: Settings, serializer: str, middleware: str, under: str
) -> None:
    settings.SESSION_SERIALIZER = serializer
    settings.MIDDLEWARE = [middleware]
    browser.visit(put(a=1, list=[]))
    stored = browser.stored()

    def visit() -> Any:
        return browser.avisit(aput_unstorable) if under == "asgi" else browser.visit(put(a=2, thing=object()))

    response = visit()
    assert (response.status_code, response.cookies) == (500, {})
    browser.client.raise_request_exception = True
    with pytest.raises(EncodeError, match="field 'thing'"):
        visit()
    browser.client.raise_request_exception = False
    assert browser.stored() == stored
    in_place = browser.visit(lambda request: request.session["list"].append(object()))
    assert in_place.status_code == 500
    assert browser.stored() == stored
    assert browser.content() == {"a": 1, "list": []}


@pytest.mark.parametrize("middleware", [OURS, DJANGOS])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_mistake_in_the_serializer_is_an_error_and_not_taken_for_a_request_without_a_session(
    browser: Browser, settings: Settings, middleware: str, in_place: bool
) -> None:
    """Django's middleware lets a request go on where asking its session raises AttributeError."""
    settings.SESSION_SERIALIZER = STUMBLING
    settings.MIDDLEWARE = [middleware]
    browser.visit(put(steps=[]))
    stored = browser.stored()
    view = (
        (lambda request: request.session["steps"].append("stumble")) if in_place else put(steps=["stumble"])
    )
    response = browser.visit(view)
    assert (response.status_code, response.cookies) == (500, {})
    browser.client.raise_request_exception = True
    with pytest.raises(EncodeError, match=r"field 'steps'.*cannot store it: AttributeError: 'NoneType'"):
        browser.visit(view)
    assert browser.stored() == stored


def test_a_new_session_that_cannot_be_stored_leaves_nothing_behind(browser: Browser) -> None:
    response = browser.visit(put(thing=object()))
    assert (response.status_code, response.cookies, browser.store.keys()) == (500, {}, [])


# What Django's own serializer takes, and we have no type for


class Size(TextChoices):
    SMALL = "s"


class Floor(IntegerChoices):
    FIRST = 1


class Point(NamedTuple):
    x: int
    y: int


TAKEN_BY_JSON: dict[str, Any] = {
    "text choice": Size.SMALL,
    "integer choice": Floor.FIRST,
    "ordered": OrderedDict(b=1, a=[Size.SMALL]),
    "default": defaultdict(list, a=[1]),
    "named": Point(1, 2),
    "keys": {Size.SMALL: {Floor.FIRST: True}},
}


@pytest.mark.parametrize("value", TAKEN_BY_JSON.values(), ids=TAKEN_BY_JSON.keys())
def test_what_is_of_no_type_of_ours_comes_back_as_from_djangos_own_serializer(
    browser: Browser, value: Any
) -> None:
    browser.visit(put(value=value))
    expected = JSONSerializer().loads(JSONSerializer().dumps({"value": value}))
    assert browser.content() == expected
    stored = browser.stored()
    browser.visit(lambda request: request.session["value"])
    assert browser.stored() == stored


def test_what_json_cannot_take_either_is_refused(browser: Browser) -> None:
    class Colour(Enum):
        RED = 1

    browser.visit(put(a=1))
    for value in (Colour.RED, [Decimal(1), Size.SMALL], {Size.SMALL: {1, 2}}):
        assert browser.visit(put(value=value)).status_code == 500
    assert browser.content() == {"a": 1}


# A serializer that gives other bytes each time, as one that encrypts does


def test_reading_is_no_change_where_a_serializer_gives_other_bytes_each_time(
    browser: Browser, settings: Settings
) -> None:
    settings.SESSION_SERIALIZER = "tests.django_site.serializers.Salted"
    browser.visit(put(cart=["book"], other=1))

    def while_another_writes(request: HttpRequest) -> None:
        assert request.session["cart"] == ["book"]
        assert not request.session.modified
        other = SessionStore(request.session.session_key)
        other["cart"].append("pen")
        other.save()
        request.session["other"] = 2

    browser.visit(while_another_writes)
    assert browser.content() == {"cart": ["book", "pen"], "other": 2}


def test_a_user_whose_session_another_serializer_stored_can_sign_in_again(
    browser: Browser, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SESSION_SERIALIZER = RICH
    browser.visit(put(_auth_user_id="7"))
    settings.SESSION_SERIALIZER = JSON
    assert (
        browser.visit(
            lambda request: "_auth_user_id" in request.session and request.session["_auth_user_id"]
        ).status_code
        == 200
    )
    assert browser.content() == {}
    assert len(log_lines(caplog)) == 2
