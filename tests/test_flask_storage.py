"""What a view leaves in the store, what it refuses to leave there, and what it makes of bytes that nobody can read."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import session
from hypothesis import HealthCheck, given, settings, strategies as st

from elasticache_sessions.exceptions import EncodeError
from elasticache_sessions.record import Record, pack, unpack
from tests.support.flask_apps import Site, errors_of_the_app, log_lines
from tests.support.proxy import Proxy
from tests.support.stores import Store


@pytest.fixture
def site(store: Store) -> Iterator[Site]:
    with Site(store.url) as site:
        yield site


# Nested changes


def test_a_nested_change_is_saved_without_saying_so(site: Site) -> None:
    site.visit(
        lambda: session.update(
            cart=["tea"], user={"address": {"lines": ["1 Row"]}}, tags={1}, data=bytearray(b"a")
        )
    )

    def change() -> None:
        session["cart"].append("milk")
        session["user"]["address"]["lines"].insert(0, "Flat 2")
        session["tags"].add(2)
        session["data"] += b"b"

    site.visit(change)
    assert site.contents() == {
        "cart": ["tea", "milk"],
        "user": {"address": {"lines": ["Flat 2", "1 Row"]}},
        "tags": {1, 2},
        "data": bytearray(b"ab"),
    }


@pytest.mark.parametrize(
    "change", [lambda: None, lambda: session["cart"].append("milk")], ids=["read", "changed"]
)
def test_only_a_list_that_changed_is_written(
    networked_store: Store, proxy: Proxy, change: Callable[[], object], request: pytest.FixtureRequest
) -> None:
    with Site(proxy.url) as site:
        site.visit(lambda: session.update(cart=["tea"]))
        site.contents()  # the server knows the scripts now
        before = networked_store.get(site.key())
        with proxy.counting() as count:
            site.visit(lambda: (list(session["cart"]), len(session["cart"]), change()))
        changed = request.node.callspec.id.endswith("changed")
        assert (count.round_trips, count.connections) == (2 if changed else 1, 0)
        assert (networked_store.get(site.key()) != before) == changed


# What cannot be stored


class Basket:
    """Nothing that would come back as it was."""


UNSTORABLE: dict[str, tuple[Callable[[], object], str]] = {
    "type": (lambda: session.update(a=2, basket=Basket()), "session field 'basket'"),
    "nested": (lambda: session["cart"].append({"deep": Basket()}), "session field 'cart'"),
    "size": (lambda: session.update(a="x" * 2_000), "MAX_BYTES"),
}


@pytest.mark.parametrize(("change", "says"), UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_what_cannot_be_stored_is_one_error_and_sends_nothing(
    store: Store, caplog: pytest.LogCaptureFixture, change: Callable[[], object], says: str
) -> None:
    with Site(store.url, ELASTICACHE_SESSIONS_MAX_BYTES=1_000) as site:
        site.visit(lambda: session.update(a=1, cart=["tea"]))
        with site.recording() as commands:
            response = site.visit(change)
        assert response.status_code == 500
        assert "Set-Cookie" not in response.headers
        assert commands == ["touch"]
        [error] = [record for record in caplog.records if record.name == "site"]
        assert error.exc_info is not None and says in str(error.exc_info[1])
        assert site.contents() == {"a": 1, "cart": ["tea"]}


@pytest.mark.parametrize("verb", ["save", "cycle_id", "login", "logout"])
def test_no_verb_sends_what_cannot_be_stored(site: Site, store: Store, verb: str) -> None:
    site.visit(lambda: session.update(a=1))
    verbs = {
        "save": lambda: None,
        "cycle_id": site.sessions.cycle_id,
        "login": lambda: site.sessions.login("ada"),
        "logout": site.sessions.logout,
    }
    with site.recording() as commands:
        response = site.visit(lambda: (verbs[verb](), session.update(basket=Basket())))
    assert (response.status_code, commands) == (500, ["touch"])
    assert "Set-Cookie" not in response.headers
    assert site.contents() == {"a": 1}


def test_a_new_session_that_cannot_be_stored_leaves_nothing(
    site: Site, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    response = site.visit(lambda: session.update(basket=Basket()))
    assert response.status_code == 500
    assert (site.cookie(), store.keys(), len(errors_of_the_app(caplog))) == (None, [], 1)


def test_apply_refuses_what_cannot_be_stored_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.visit(lambda: session.update(a=1))
    with site.recording() as commands:
        response = site.visit(lambda: site.sessions.apply(lambda fields: fields.update(a=2, basket=Basket())))
    assert (response.status_code, commands, len(errors_of_the_app(caplog))) == (500, ["touch"], 1)
    assert site.contents() == {"a": 1}


def test_a_view_may_catch_what_apply_refuses(site: Site) -> None:
    def change() -> None:
        with pytest.raises(EncodeError, match="session field 'basket'"):
            site.sessions.apply(lambda fields: fields.update(a=2, basket=Basket()))
        session["b"] = 2

    site.visit(lambda: session.update(a=1))
    assert site.visit(change).status_code == 200
    assert site.contents() == {"a": 1, "b": 2}


# What cannot be read


def check_it_counts_as_none(
    site: Site, store: Store, key: bytes, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """No session, one log line with the handle, and the bytes stay for whoever wants to know what happened."""
    store.set(key, data, 1_000)
    caplog.clear()
    response = site.visit(lambda: repr(dict(session)))
    assert (response.status_code, response.text) == (200, "{}")
    assert "Set-Cookie" not in response.headers
    [line] = log_lines(caplog)
    assert key.decode().removeprefix("sess:") in line
    assert site.session_id() not in caplog.text
    assert store.get(key) == data
    assert (store.ttl(key) or 0) >= 990


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda rest: b"\1\1\0\0" + rest)))
def test_any_bytes_count_as_no_session(
    site: Site, store: Store, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    site.browser = site.client_with("B" * 40)
    check_it_counts_as_none(site, store, site.key(), data, caplog)


def test_a_record_that_was_cut_short_or_damaged_counts_as_no_session(
    site: Site, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    site.visit(lambda: session.update(name="Ada", cart=["tea"]))
    key = site.key()
    record = store.get(key)
    assert record is not None
    for size in range(len(record)):
        check_it_counts_as_none(site, store, key, record[:size], caplog)
    for place in range(len(record)):
        damaged = bytearray(record)
        damaged[place] ^= 1 << place % 8
        check_it_counts_as_none(site, store, key, bytes(damaged), caplog)
    check_it_counts_as_none(site, store, key, record + b"\0", caplog)
    store.set(key, record, 1_000)
    assert site.contents() == {"name": "Ada", "cart": ["tea"]}


def test_a_field_that_cannot_be_read_makes_the_whole_session_count_as_none(
    site: Site, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer version may know types that this one does not."""
    site.visit(lambda: session.update(name="Ada"))
    key = site.key()
    record = unpack(store.get(key) or b"")
    data = pack(Record(record.header, {**record.fields, "newer": b"\xc7\x01\x63\x00"}))
    check_it_counts_as_none(site, store, key, data, caplog)


WRONG_TYPES = {
    "list": ("RPUSH", "{key}", "a"),
    "hash": ("HSET", "{key}", "a", "1"),
    "set": ("SADD", "{key}", "a"),
    "sorted set": ("ZADD", "{key}", "1", "a"),
    "stream": ("XADD", "{key}", "*", "a", "1"),
}


@pytest.mark.parametrize("command", WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_a_key_that_holds_no_string_counts_as_no_session(
    redis_store: Store, caplog: pytest.LogCaptureFixture, command: tuple[str, ...]
) -> None:
    with Site(redis_store.url) as site:
        site.browser = site.client_with("B" * 40)
        key = site.key()
        redis_store.raw(*(key if part == "{key}" else part for part in command))
        before = redis_store.raw("DUMP", key)
        assert site.contents() == {}
        [line] = log_lines(caplog)
        assert site.handle() in line
        assert redis_store.raw("DUMP", key) == before


WRITES: dict[str, Callable[[Site], Any]] = {
    "write": lambda site: session.update(a=1),
    "apply": lambda site: site.sessions.apply(lambda fields: fields.update(a=1)),
    "login": lambda site: (session.update(a=1), site.sessions.login("ada")),
    "logout and write": lambda site: (site.sessions.logout(), session.update(a=1)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_begins_a_new_session_beside_what_cannot_be_read(
    site: Site, store: Store, write: Callable[[Site], Any]
) -> None:
    site.browser = site.client_with("B" * 40)
    unreadable = site.key()
    store.set(unreadable, b"\1\1" + bytes(100), 1_000)
    assert site.visit(lambda: write(site) and None).status_code == 200
    assert site.key() != unreadable
    assert site.contents() == {"a": 1}
    assert store.get(unreadable) == b"\1\1" + bytes(100)
