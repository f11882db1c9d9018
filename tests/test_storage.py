"""What a view leaves in the store, what it refuses to leave there, and what it makes of bytes that nobody can read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from markupsafe import Markup

from elasticache_sessions.exceptions import EncodeError, ValueTooLarge
from elasticache_sessions.record import Record, pack, unpack
from elasticache_sessions.session import handle_of
from tests.support.instances import Instance, View, Visit, instances
from tests.support.proxy import Proxy
from tests.support.stores import Store

UNKNOWN = "B" * 40
"""What could be an id and is not."""


@pytest.fixture
def shop(framework: str, store: Store) -> Iterator[Instance]:
    with instances(framework, store.url) as (instance,):
        yield instance


def put(**values: object) -> View:
    return lambda visit: visit.update(values)


def key_of(session_id: str) -> bytes:
    return f"sess:{handle_of(session_id)}".encode()


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package logged as worth a line."""
    return [each.getMessage() for each in caplog.records if each.name.startswith("elasticache_sessions")]


# Types

VALUES: dict[str, Any] = {
    "str": "kettle \U0001fad6 é \0",
    "bytes": b"\xff\0",
    "bytearray": bytearray(b"\xff"),
    "int": -(2**200),
    "float": 1e-300,
    "bool": True,
    "none": None,
    "list": [1, [2.0]],
    "tuple": (1, (2,)),
    "dict": {1: "one", (2, 3): "pair", None: {True: b"yes"}},
    "set": {1, "a"},
    "frozenset": frozenset({(1, 2)}),
    "aware": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "naive": datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - it comes back as naive as it was
    "date": date(2026, 1, 2),
    "time": time(1, 2, 3, 4, tzinfo=UTC),
    "timedelta": timedelta(days=-1, microseconds=1),
    "uuid": uuid.UUID(int=7),
    "decimal": Decimal("1.10"),
    "markup": Markup("<b>&amp;</b>"),
    "looks like a type tag": {" t": "not a tuple"},
}


def types_of(value: object) -> object:
    """Its type, and that of everything in it."""
    parts: Any = value
    if isinstance(value, dict):
        parts = value.items()
    elif not isinstance(value, list | tuple | set | frozenset):
        return type(value)
    return type(value), sorted((repr(part), repr(types_of(part))) for part in parts)


@pytest.mark.parametrize(
    "shape", [lambda value: value, lambda value: [{"deep": (value,)}]], ids=["top", "deep"]
)
def test_what_one_request_stores_the_next_one_reads_exactly(
    shop: Instance, shape: Callable[[object], object]
) -> None:
    values = {name: shape(value) for name, value in VALUES.items()}
    cookie = shop.ask(put(**values)).session_id
    found = shop.ask(dict, cookie).result
    assert found == values
    assert types_of(found) == types_of(values)


# Changes in place


def test_a_nested_change_is_saved_without_saying_so(shop: Instance) -> None:
    cookie = shop.ask(
        put(cart=["tea"], user={"address": {"lines": ["1 Row"]}}, tags={1}, data=bytearray(b"a"))
    ).session_id

    def change(visit: Visit) -> None:
        visit["cart"].append("milk")
        visit["user"]["address"]["lines"].insert(0, "Flat 2")
        visit.get("tags").add(2)
        data = visit["data"]
        data += b"b"

    assert shop.ask(change, cookie).cookie == cookie
    assert shop.ask(dict, cookie).result == {
        "cart": ["tea", "milk"],
        "user": {"address": {"lines": ["Flat 2", "1 Row"]}},
        "tags": {1, 2},
        "data": bytearray(b"ab"),
    }


@pytest.mark.parametrize(
    ("change", "costs"),
    [(lambda visit: None, 1), (lambda visit: visit["cart"].append("milk"), 2)],
    ids=["read", "changed"],
)
def test_only_a_list_that_changed_is_written(
    framework: str, networked_store: Store, proxy: Proxy, change: View, costs: int
) -> None:
    with instances(framework, proxy.url) as (shop,):
        cookie = shop.ask(put(cart=["tea"])).session_id
        shop.ask(dict, cookie)
        shop.ask(put(warm="up"), cookie)  # the server knows the scripts now
        before = networked_store.get(key_of(cookie))
        with proxy.counting() as count:
            answer = shop.ask(
                lambda visit: [list(visit["cart"]), dict(visit), len(visit["cart"]), change(visit)], cookie
            )
        assert (count.flights, count.connections) == (costs, 0)
        changed = costs == 2
        assert answer.cookie == (cookie if changed else None)
        assert (networked_store.get(key_of(cookie)) != before) == changed


# What cannot be stored


class Basket:
    """Nothing that would come back as it was."""


UNSTORABLE: dict[str, tuple[View, type[Exception], str]] = {
    "type": (lambda visit: visit.update(a=2, basket=Basket()), EncodeError, "session field 'basket'.*Basket"),
    "nested": (lambda visit: visit["cart"].append({"deep": Basket()}), EncodeError, "field 'cart'.*Basket"),
    "size": (lambda visit: visit.update(a="x" * 2_000), ValueTooLarge, "MAX_BYTES"),
}


@pytest.mark.parametrize(("change", "kind", "says"), UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_what_cannot_be_stored_is_one_error_and_sends_nothing(
    framework: str, store: Store, change: View, kind: type[Exception], says: str
) -> None:
    with instances(framework, store.url, max_bytes=1_000) as (shop,):
        cookie = shop.ask(put(a=1, cart=["tea"])).session_id
        with shop.recording() as commands:
            answer = shop.ask(change, cookie)
        assert (answer.code, answer.cookie, commands) == (500, None, ["read"])
        [error] = answer.errors
        with pytest.raises(kind, match=says):
            raise error
        assert shop.ask(dict, cookie).result == {"a": 1, "cart": ["tea"]}


VERBS: dict[str, View] = {
    "save": lambda visit: None,
    "cycle": lambda visit: visit.cycle(),
    "login": lambda visit: visit.login("ada"),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_no_verb_sends_what_cannot_be_stored(shop: Instance, verb: View) -> None:
    cookie = shop.ask(put(a=1)).session_id
    with shop.recording() as commands:
        answer = shop.ask(lambda visit: [verb(visit), visit.update(basket=Basket())], cookie)
    assert (answer.code, answer.cookie, commands) == (500, None, ["read"])
    assert shop.ask(dict, cookie).result == {"a": 1}


def test_signing_out_happens_although_what_comes_after_cannot_be_stored_where_it_is_done_at_once(
    shop: Instance,
) -> None:
    cookie = shop.ask(put(a=1)).session_id
    answer = shop.ask(lambda visit: [visit.logout(), visit.update(basket=Basket())], cookie)
    assert (answer.code, answer.cookie) == (500, None)
    assert shop.ask(dict, cookie).result == ({} if shop.habits.ends_at_once else {"a": 1})


def test_a_new_session_that_cannot_be_stored_leaves_nothing(shop: Instance, store: Store) -> None:
    answer = shop.ask(put(basket=Basket()))
    assert (answer.code, answer.cookie, store.keys(), len(answer.errors)) == (500, None, [], 1)


def test_apply_refuses_what_cannot_be_stored_once(shop: Instance) -> None:
    cookie = shop.ask(put(a=1)).session_id
    with shop.recording() as commands:
        answer = shop.ask(
            lambda visit: visit.apply(lambda fields: fields.update(a=2, basket=Basket())), cookie
        )
    assert (answer.code, commands, len(answer.errors)) == (500, ["read"], 1)
    assert shop.ask(dict, cookie).result == {"a": 1}


def test_a_view_may_catch_what_apply_refuses(shop: Instance) -> None:
    def change(visit: Visit) -> None:
        with pytest.raises(EncodeError, match="session field 'basket'"):
            visit.apply(lambda fields: fields.update(a=2, basket=Basket()))
        visit["b"] = 2

    cookie = shop.ask(put(a=1)).session_id
    assert shop.ask(change, cookie).code == 200
    assert shop.ask(dict, cookie).result == {"a": 1, "b": 2}


# What cannot be read


def check_it_counts_as_none(
    shop: Instance, store: Store, session_id: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """No session, one log line with the handle, and the bytes stay for whoever wants to know what happened."""
    key = key_of(session_id)
    store.set(key, data, 1_000)
    caplog.clear()
    answer = shop.ask(dict, session_id)
    assert (answer.code, answer.result, answer.cookie) == (200, {}, None)
    [line] = log_lines(caplog)
    assert handle_of(session_id) in line
    assert session_id not in caplog.text
    assert store.get(key) == data
    # A store that slides without looking has given it the lifetime of a session.
    assert (store.ttl(key) or 0) >= 990


ANY_BYTES = st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda rest: b"\1\1\0\0" + rest))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=ANY_BYTES)
def test_any_bytes_count_as_no_session(
    shop: Instance, store: Store, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    check_it_counts_as_none(shop, store, UNKNOWN, data, caplog)


def test_a_record_that_was_cut_short_or_damaged_counts_as_no_session(
    shop: Instance, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    cookie = shop.ask(put(name="Ada", cart=["tea"])).session_id
    record = store.get(key_of(cookie))
    assert record is not None
    for size in range(len(record)):
        check_it_counts_as_none(shop, store, cookie, record[:size], caplog)
    for place in range(len(record)):
        damaged = bytearray(record)
        damaged[place] ^= 1 << place % 8
        check_it_counts_as_none(shop, store, cookie, bytes(damaged), caplog)
    check_it_counts_as_none(shop, store, cookie, record + b"\0", caplog)
    store.set(key_of(cookie), record, 1_000)
    assert shop.ask(dict, cookie).result == {"name": "Ada", "cart": ["tea"]}


def test_a_field_that_cannot_be_read_makes_the_whole_session_count_as_none(
    shop: Instance, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer version may know types that this one does not."""
    cookie = shop.ask(put(name="Ada")).session_id
    record = unpack(store.get(key_of(cookie)) or b"")
    data = pack(Record(record.header, {**record.fields, "newer": b"\xc7\x01\x63\x00"}))
    check_it_counts_as_none(shop, store, cookie, data, caplog)


WRONG_TYPES = {
    "list": ("RPUSH", "{key}", "a"),
    "hash": ("HSET", "{key}", "a", "1"),
    "set": ("SADD", "{key}", "a"),
    "sorted set": ("ZADD", "{key}", "1", "a"),
    "stream": ("XADD", "{key}", "*", "a", "1"),
}


@pytest.mark.parametrize("command", WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_a_key_that_holds_no_string_counts_as_no_session(
    framework: str, redis_store: Store, caplog: pytest.LogCaptureFixture, command: tuple[str, ...]
) -> None:
    with instances(framework, redis_store.url) as (shop,):
        key = key_of(UNKNOWN)
        redis_store.raw(*(key if part == "{key}" else part for part in command))
        before = redis_store.raw("DUMP", key)
        answer = shop.ask(dict, UNKNOWN)
        assert (answer.code, answer.result) == (200, {})
        [line] = log_lines(caplog)
        assert handle_of(UNKNOWN) in line
        assert redis_store.raw("DUMP", key) == before


WRITES: dict[str, View] = {
    "write": lambda visit: visit.update(a=1),
    "clear and write": lambda visit: [visit.clear(), visit.update(a=1)],
    "apply": lambda visit: visit.apply(lambda fields: fields.update(a=1)),
    "login": lambda visit: [visit.update(a=1), visit.login("ada")],
    "logout and write": lambda visit: [visit.logout(), visit.update(a=1)],
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_write_begins_a_new_session_beside_what_cannot_be_read(
    shop: Instance, store: Store, write: View
) -> None:
    store.set(key_of(UNKNOWN), b"\1\1" + bytes(100), 1_000)
    answer = shop.ask(write, UNKNOWN)
    assert answer.code == 200
    assert answer.session_id != UNKNOWN
    assert shop.ask(lambda visit: visit["a"], answer.session_id).result == 1
    assert store.get(key_of(UNKNOWN)) == b"\1\1" + bytes(100)


def test_signing_out_of_what_cannot_be_read_deletes_the_cookie_and_leaves_the_bytes(
    shop: Instance, store: Store
) -> None:
    store.set(key_of(UNKNOWN), b"\1\1" + bytes(100), 1_000)
    answer = shop.ask(lambda visit: visit.logout(), UNKNOWN)
    assert (answer.code, answer.cookie) == (200, "")
    answer = shop.ask(lambda visit: [visit.get("a"), visit.logout()], UNKNOWN)
    assert (answer.code, answer.cookie) == (200, "")
    assert store.get(key_of(UNKNOWN)) == b"\1\1" + bytes(100)
