"""What a client may put into the session cookie: nothing of it is an error, and no id that it chose is adopted."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from tests.support.instances import Answer, Instance, View, instances
from tests.support.stores import Store

UNKNOWN = "A" * 40
"""What could be an id and is not."""


def is_id(text: str | None) -> bool:
    """By what the documents say, and not by what the package thinks."""
    return text is not None and re.fullmatch(r"[A-Za-z0-9_-]{40}", text, re.ASCII) is not None


@pytest.fixture
def shop(framework: str, store: Store) -> Iterator[Instance]:
    with instances(framework, store.url) as (instance,):
        yield instance


@pytest.fixture
def refreshing(framework: str, store: Store) -> Iterator[Instance]:
    with instances(framework, store.url, refreshing=True) as (instance,):
        yield instance


def sign_in(shop: Instance) -> str:
    return shop.ask(lambda visit: visit.update(a=1)).session_id


def is_no_session(shop: Instance, answer: Answer) -> bool:
    """Nothing there, nothing wrong; the cookie is left alone, or deleted where that is the framework's habit."""
    left_alone = answer.cookie is None or (shop.habits.refuses_unknown and answer.cookie == "")
    return (answer.code, answer.result, answer.errors) == (200, {}, []) and left_alone


LATIN_1 = st.characters(max_codepoint=255)  # what a server makes of any bytes
NEARLY_IDS = st.one_of(
    st.text(string.ascii_letters + string.digits + "-_", min_size=39, max_size=39),
    st.text(string.ascii_letters + string.digits + "-_", min_size=41, max_size=41),
    st.builds(lambda head, bad: head + bad, st.just(UNKNOWN[:39]), LATIN_1),
    st.builds(
        lambda at, bad: UNKNOWN[:at] + bad + UNKNOWN[at:],
        st.integers(1, 39),
        st.sampled_from(" \n\r\t\0=é\"'\\"),
    ),
    st.sampled_from([f"{UNKNOWN}.", f"{UNKNOWN}.p.p", f"{UNKNOWN}.q", f"{UNKNOWN} .p", f'"{UNKNOWN}', ".p"]),
)
ANY_LENGTH = st.builds(
    lambda part, size: (part * size)[:size], st.text(LATIN_1, min_size=1), st.integers(1, 10_000)
)
VALUES = st.one_of(st.text(LATIN_1, min_size=1), NEARLY_IDS, ANY_LENGTH).filter(
    lambda value: ";" not in value
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=1, max_size=4))
def test_whatever_cannot_be_an_id_is_no_session_and_no_trip(shop: Instance, values: list[str]) -> None:
    # White space around a cookie's value, and quotes, are no part of it.
    assume(
        not any(
            is_id(value.strip(' \t\n\r\x0b\x0c\x85\xa0\x1c\x1d\x1e\x1f"').removesuffix(".p"))
            for value in values
        )
    )
    header = "; ".join(f"{shop.habits.cookie}={value}" for value in values)
    with shop.recording() as commands:
        assert is_no_session(shop, shop.send(dict, header))
    assert commands == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.one_of(st.text(LATIN_1), ANY_LENGTH, st.text(LATIN_1).map(lambda text: f"session{text}")))
def test_any_cookie_header_is_no_session_and_no_error(shop: Instance, header: str) -> None:
    assert is_no_session(shop, shop.send(dict, header))


def test_the_cookie_is_found_among_others(shop: Instance) -> None:
    cookie, name = sign_in(shop), shop.habits.cookie
    found = {"a": 1}
    for header, expected in {
        f"{name}=x; {name}={cookie}": found,
        f'{name}="{cookie}"; other={UNKNOWN}': found,
        f"other={UNKNOWN};{name}={cookie}.p": found,
        f"{name}=; {name}={cookie}; {name}=\xff": found if shop.habits.takes_any_of_its_name else {},
    }.items():
        with shop.recording() as commands:
            assert shop.send(dict, header).result == expected
        assert commands == ["read"] * bool(expected)


def test_an_id_that_a_client_chose_is_never_adopted(shop: Instance, store: Store) -> None:
    assert is_no_session(shop, shop.ask(dict, UNKNOWN))
    assert store.keys() == []
    new = shop.ask(lambda visit: visit.update(a=1), UNKNOWN).session_id
    assert is_id(new) and new != UNKNOWN
    assert len(store.keys()) == 1
    assert shop.ask(dict, UNKNOWN).result == {}


VERBS: dict[str, View] = {
    "save": lambda visit: visit.modify(),
    "cycle": lambda visit: visit.cycle(),
    "login": lambda visit: visit.login("ada"),
    "apply": lambda visit: visit.apply(lambda fields: fields.update(b=2)),
    "logout": lambda visit: visit.logout(),
    "lifetime": lambda visit: visit.expire_after(1_000),
}


@pytest.mark.parametrize("first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
def test_no_verb_adopts_an_id_that_a_client_chose(shop: Instance, verb: View, first: bool) -> None:
    put: View = lambda visit: visit.update(a=1)  # noqa: E731 - as the views around it
    answer = shop.ask(
        lambda visit: [each(visit) for each in ((verb, put) if first else (put, verb))], UNKNOWN
    )
    assert answer.code == 200
    if answer.cookie:
        assert answer.cookie != UNKNOWN
        assert shop.ask(lambda visit: visit["a"], answer.session_id).result == 1
    else:
        assert verb is VERBS["logout"], "what was put in is lost"
    assert shop.ask(dict, UNKNOWN).result == {}


ENDINGS: dict[str, View] = {"logout": VERBS["logout"], "clear": lambda visit: visit.clear()}


@pytest.mark.parametrize("cookie", [None, UNKNOWN, "no id"])
@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS.keys())
def test_ending_what_the_store_does_not_know_writes_nothing(
    shop: Instance, store: Store, cookie: str | None, end: View
) -> None:
    for view in (end, lambda visit: [visit.get("a"), end(visit)]):
        with shop.recording() as commands:
            assert shop.ask(view, cookie).code == 200
        assert "write" not in commands
    assert store.keys() == []


@pytest.mark.parametrize("cookie", [None, UNKNOWN, "no id", "x" * 10_000])
@pytest.mark.parametrize("view", [lambda visit: None, dict], ids=["touches nothing", "reads"])
def test_refreshing_begins_no_session_for_a_cookie_that_is_none(
    refreshing: Instance, store: Store, view: View, cookie: str | None
) -> None:
    answer = refreshing.ask(view, cookie)
    assert (answer.code, answer.cookie or "") == (200, "")
    assert store.keys() == []
