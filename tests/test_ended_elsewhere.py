"""A request that read its session before it was ended, or got a new id, elsewhere: it brings nothing back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from elasticache_sessions import SessionEnded
from elasticache_sessions.record import Kind, unpack
from tests.support.instances import Answer, Instance, View, Visit, instances
from tests.support.load import contents, dropped
from tests.support.stores import Store


@pytest.fixture
def both(framework: str, store: Store) -> Iterator[list[Instance]]:
    """Two instances with one store."""
    with instances(framework, store.url, store.url) as both:
        yield both


@pytest.fixture
def refreshing(framework: str, store: Store) -> Iterator[list[Instance]]:
    """Two that set the cookie anew with each response."""
    with instances(framework, store.url, store.url, refreshing=True) as both:
        yield both


def sign_in(here: Instance) -> str:
    """A stored session's cookie."""

    def view(visit: Visit) -> None:
        visit.update(user="Ada", cart=["kettle"])
        visit.keep()

    return here.ask(view).cookie or ""


def ended(there: Instance, cookie: str) -> None:
    """Another request signs the user out."""
    assert there.ask(lambda visit: visit.logout(), cookie).cookie == ""


def cycled(there: Instance, cookie: str) -> str:
    """Another request gives the session a new id: the new cookie."""
    return there.ask(lambda visit: visit.login("ada"), cookie).session_id


def living(store: Store) -> list[bytes]:
    return [key for key in store.keys() if unpack(store.get(key) or b"").header.kind is Kind.LIVE]


def late(here: Instance, cookie: str, meanwhile: Callable[[], object], change: View) -> Answer:
    """A request that reads, then something happens elsewhere, then it changes."""

    def view(visit: Visit) -> None:
        assert visit["user"] == "Ada"
        meanwhile()
        change(visit)

    return here.ask(view, cookie)


CHANGES: dict[str, View] = {
    "assigns": lambda visit: visit.update(user="late"),
    "adds": lambda visit: visit.update(late=True),
    "deletes": lambda visit: visit.pop("user"),
    "changes in place": lambda visit: visit["cart"].append("late"),
    "clears": lambda visit: visit.clear(),
    "clears and adds": lambda visit: [visit.clear(), visit.update(late=True)],
    "says modified": lambda visit: visit.modify(),
    "changes its lifetime": lambda visit: [visit.keep(), visit.expire_after(3_600)],
}
ENDINGS: dict[str, View] = {
    "signs out": lambda visit: visit.logout(),
    "signs in": lambda visit: visit.login("eve"),
    "cycles": lambda visit: visit.cycle(),
}

HAPPENS: dict[str, Callable[[Instance, str], Callable[[], object]]] = {
    "the end": lambda there, cookie: lambda: ended(there, cookie),
    "a new id": lambda there, cookie: lambda: cycled(there, cookie),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_after_the_end_is_dropped(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, change: View
) -> None:
    here, there = both
    cookie = sign_in(here)
    answer = late(here, cookie, lambda: ended(there, cookie), change)
    assert (answer.code, answer.cookie) == (200, None)
    assert contents(here.manager, cookie) is None
    assert living(store) == []
    assert len(dropped(caplog)) == 1 == len(caplog.messages)
    assert cookie not in caplog.text


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_after_the_id_changed_is_dropped_and_leaves_the_new_one_alone(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, change: View
) -> None:
    here, there = both
    cookie = sign_in(here)
    new: list[str] = []
    answer = late(here, cookie, lambda: new.append(cycled(there, cookie)), change)
    assert (answer.code, answer.cookie) == (200, None)
    assert contents(here.manager, cookie) is None
    assert contents(here.manager, new[0]) == contents(there.manager, new[0])
    assert (contents(here.manager, new[0]) or {})["cart"] == ["kettle"]
    assert len(living(store)) == 1
    assert len(dropped(caplog)) == 1 == len(caplog.messages)
    assert new[0] not in caplog.text


@pytest.mark.parametrize("change", ENDINGS.values(), ids=ENDINGS.keys())
def test_ending_and_a_new_id_after_the_id_changed_leave_the_new_one_alone(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, change: View
) -> None:
    here, there = both
    cookie = sign_in(here)
    new: list[str] = []
    answer = late(here, cookie, lambda: new.append(cycled(there, cookie)), change)
    assert (answer.code, answer.cookie) == (200, None)
    held = contents(here.manager, new[0]) or {}
    assert held.items() >= ({"user": "Ada", "cart": ["kettle"]} | here.habits.signed_in("ada")).items()
    assert len(living(store)) == 1
    nothing_to_drop = here.habits.ends_at_once and change is ENDINGS["signs out"]
    assert len(dropped(caplog)) == (0 if nothing_to_drop else 1)


@pytest.mark.parametrize("happens", HAPPENS)
def test_what_is_put_in_after_signing_out_begins_a_session_only_where_signing_out_is_done_at_once(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, happens: str
) -> None:
    here, there = both
    cookie = sign_in(here)
    sign_out_and_add: View = lambda visit: [visit.logout(), visit.update(late=True)]  # noqa: E731 - shorter than a def
    answer = late(here, cookie, HAPPENS[happens](there, cookie), sign_out_and_add)
    assert answer.code == 200
    if here.habits.ends_at_once:
        assert contents(here.manager, answer.session_id) == {"late": True}
    else:
        assert answer.cookie is None
        assert len(dropped(caplog)) == 1
    assert len(living(store)) == here.habits.ends_at_once + (happens == "a new id")


@pytest.mark.parametrize("happens", HAPPENS)
def test_a_request_that_only_read_sets_no_cookie(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, happens: str
) -> None:
    here, there = both
    cookie = sign_in(here)
    answer = late(here, cookie, HAPPENS[happens](there, cookie), lambda visit: None)
    assert (answer.code, answer.cookie) == (200, None)
    assert contents(here.manager, cookie) is None
    assert len(living(store)) == (happens == "a new id")
    assert caplog.messages == []


def touch_nothing(both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, happens: str) -> None:
    here, there = both
    cookie = sign_in(here)
    meanwhile = HAPPENS[happens](there, cookie)
    answer = here.ask(lambda visit: meanwhile(), cookie)
    assert (answer.code, answer.cookie) == (200, None)
    assert contents(here.manager, cookie.removesuffix(".p")) is None
    assert len(living(store)) == (happens == "a new id")
    assert caplog.messages == []


@pytest.mark.parametrize("happens", HAPPENS)
def test_a_request_that_touched_nothing_sets_no_cookie(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, happens: str
) -> None:
    touch_nothing(both, store, caplog, happens)


# Where the cookie is set anew with each response, the browser would fall back to the dead id, and the user who has just
# signed in elsewhere be signed out.


@pytest.mark.parametrize("happens", HAPPENS)
def test_a_request_that_touched_nothing_refreshes_no_cookie(
    refreshing: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, happens: str
) -> None:
    touch_nothing(refreshing, store, caplog, happens)


@pytest.mark.parametrize("happens", HAPPENS)
def test_a_request_that_only_read_refreshes_no_cookie(
    refreshing: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, happens: str
) -> None:
    here, there = refreshing
    cookie = sign_in(here)
    answer = late(here, cookie, HAPPENS[happens](there, cookie), lambda visit: None)
    assert (answer.code, answer.cookie) == (200, None)
    assert caplog.messages == []


def test_apply_after_the_end_raises_in_the_view_and_revives_nothing(
    both: list[Instance], store: Store
) -> None:
    here, there = both
    cookie = sign_in(here)

    def change(visit: Visit) -> None:
        with pytest.raises(SessionEnded):
            visit.apply(lambda fields: fields.update(late=True))
        visit["later"] = True

    answer = late(here, cookie, lambda: ended(there, cookie), change)
    assert (answer.code, answer.cookie) == (200, None)
    assert living(store) == []


def test_both_signing_out_is_no_error(both: list[Instance], store: Store) -> None:
    here, there = both
    cookie = sign_in(here)
    assert late(here, cookie, lambda: ended(there, cookie), lambda visit: visit.logout()).code == 200
    assert living(store) == []


BEGINS: dict[str, View] = {
    "assigns": lambda visit: visit.update(user="Grace"),
    "reads and assigns": lambda visit: [visit.get("user"), visit.update(user="Grace")],
    "clears and assigns": lambda visit: [visit.clear(), visit.update(user="Grace")],
    "signs in": lambda visit: [visit.login("grace"), visit.update(user="Grace")],
    "cycles": lambda visit: [visit.cycle(), visit.update(user="Grace")],
    "applies": lambda visit: visit.apply(lambda fields: fields.update(user="Grace")),
    "signs out and assigns": lambda visit: [visit.logout(), visit.update(user="Grace")],
}


@pytest.mark.parametrize("happens", HAPPENS)
@pytest.mark.parametrize("begin", BEGINS.values(), ids=BEGINS.keys())
def test_the_next_request_with_the_old_cookie_begins_a_session_of_its_own(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, happens: str, begin: View
) -> None:
    here, there = both
    cookie = sign_in(here)
    HAPPENS[happens](there, cookie)()
    answer = here.ask(begin, cookie)
    assert answer.code == 200
    assert answer.session_id != cookie
    found = there.ask(dict, answer.session_id).result
    assert (found["user"], "cart" in found) == ("Grace", False)
    assert len(living(store)) == 1 + (happens == "a new id")
    assert caplog.messages == []


@pytest.mark.parametrize("happens", HAPPENS)
def test_a_request_that_comes_later_with_the_old_cookie_reads_nothing_and_deletes_no_cookie(
    both: list[Instance], happens: str
) -> None:
    """The browser may hold a newer one by the time the answer arrives."""
    here, there = both
    cookie = sign_in(here)
    HAPPENS[happens](there, cookie)()
    answer = here.ask(dict, cookie)
    assert (answer.code, answer.result, answer.cookie) == (200, {}, None)
