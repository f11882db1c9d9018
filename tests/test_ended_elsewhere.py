"""A request that read its session before it was ended, or got a new id, elsewhere: it brings nothing back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import session

from elasticache_sessions import SessionEnded
from elasticache_sessions.record import Kind, unpack
from tests.support.load import Answer, Instance, contents, dropped, instances
from tests.support.stores import Store

View = Callable[[], object]


@pytest.fixture
def both(store: Store) -> Iterator[list[Instance]]:
    """Two instances with one store."""
    with instances(store.url, store.url) as both:
        yield both


def ended(there: Instance, cookie: str) -> None:
    """Another request signs the user out."""
    assert there.ask(there.sessions.logout, cookie).cookie == ""


def cycled(there: Instance, cookie: str) -> str:
    """Another request gives the session a new id: the new cookie."""
    return there.ask(lambda: there.sessions.login("ada"), cookie).cookie or ""


def living(store: Store) -> list[bytes]:
    return [key for key in store.keys() if unpack(store.get(key) or b"").header.kind is Kind.LIVE]


def late(here: Instance, cookie: str, meanwhile: View, change: View) -> Answer:
    """A request that reads, then something happens elsewhere, then it changes."""

    def view() -> None:
        assert session["user"] == "Ada"
        meanwhile()
        change()

    return here.ask(view, cookie)


CHANGES: dict[str, View] = {
    "assigns": lambda: session.update(user="late"),
    "adds": lambda: session.update(late=True),
    "deletes": lambda: session.pop("user"),
    "changes in place": lambda: session["cart"].append("late"),
    "clears": lambda: session.clear(),
    "clears and adds": lambda: [session.clear(), session.update(late=True)],
    "says modified": lambda: setattr(session, "modified", True),
    "becomes permanent": lambda: setattr(session, "permanent", True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_after_the_end_is_dropped(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, change: View
) -> None:
    here, there = both
    cookie = here.ask(lambda: session.update(user="Ada", cart=["kettle"])).session_id
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
    cookie = here.ask(lambda: session.update(user="Ada", cart=["kettle"])).session_id
    new: list[str] = []
    answer = late(here, cookie, lambda: new.append(cycled(there, cookie)), change)
    assert (answer.code, answer.cookie) == (200, None)
    assert contents(here.manager, cookie) is None
    assert contents(here.manager, new[0]) == {"user": "Ada", "cart": ["kettle"]}
    assert len(living(store)) == 1
    assert len(dropped(caplog)) == 1 == len(caplog.messages)
    assert new[0] not in caplog.text


@pytest.mark.parametrize("verb", ["logout", "login", "cycle_id"])
def test_ending_and_a_new_id_after_the_id_changed_leave_the_new_one_alone(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, verb: str
) -> None:
    here, there = both
    cookie = here.ask(lambda: session.update(user="Ada", cart=[])).session_id
    new: list[str] = []
    verbs: dict[str, View] = {
        "logout": here.sessions.logout,
        "login": lambda: here.sessions.login("eve"),
        "cycle_id": here.sessions.cycle_id,
    }
    answer = late(here, cookie, lambda: new.append(cycled(there, cookie)), verbs[verb])
    assert (answer.code, answer.cookie) == (200, None)
    assert contents(here.manager, new[0]) == {"user": "Ada", "cart": []}
    assert len(living(store)) == 1
    assert len(dropped(caplog)) == 1


@pytest.mark.parametrize("happens", ["the end", "a new id"])
def test_a_request_that_only_read_sets_no_cookie(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture, happens: str
) -> None:
    here, there = both
    cookie = here.ask(lambda: session.update(user="Ada")).session_id
    meanwhile = (lambda: ended(there, cookie)) if happens == "the end" else (lambda: cycled(there, cookie))
    answer = late(here, cookie, meanwhile, lambda: None)
    assert (answer.code, answer.cookie) == (200, None)
    assert contents(here.manager, cookie) is None
    assert len(living(store)) == (happens == "a new id")
    assert caplog.messages == []


@pytest.mark.parametrize("happens", ["the end", "a new id"])
@pytest.mark.parametrize("permanent", [False, True])
def test_a_request_that_touched_nothing_sets_no_cookie(
    both: list[Instance], store: Store, happens: str, permanent: bool
) -> None:
    here, there = both
    cookie = (
        here.ask(lambda: [session.update(user="Ada"), setattr(session, "permanent", permanent)]).cookie or ""
    )
    meanwhile = (lambda: ended(there, cookie)) if happens == "the end" else (lambda: cycled(there, cookie))
    answer = here.ask(meanwhile, cookie)
    assert (answer.code, answer.cookie) == (200, None)
    assert contents(here.manager, cookie.removesuffix(".p")) is None
    assert len(living(store)) == (happens == "a new id")


# A permanent session's cookie is set anew with each response: the browser would fall back to the dead id, and
# the user who has just signed in elsewhere be signed out.
@pytest.mark.parametrize("happens", ["the end", "a new id"])
def test_a_request_that_only_read_a_permanent_session_sets_no_cookie(
    both: list[Instance], store: Store, happens: str
) -> None:
    here, there = both
    cookie = here.ask(lambda: [session.update(user="Ada"), setattr(session, "permanent", True)]).cookie or ""
    meanwhile = (lambda: ended(there, cookie)) if happens == "the end" else (lambda: cycled(there, cookie))
    answer = late(here, cookie, meanwhile, lambda: None)
    assert (answer.code, answer.cookie) == (200, None)


def test_apply_after_the_end_raises_in_the_view_and_revives_nothing(
    both: list[Instance], store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = both
    cookie = here.ask(lambda: session.update(user="Ada")).session_id

    def change() -> None:
        with pytest.raises(SessionEnded):
            here.sessions.apply(lambda fields: fields.update(late=True))
        session["later"] = True

    answer = late(here, cookie, lambda: ended(there, cookie), change)
    assert (answer.code, answer.cookie) == (200, None)
    assert living(store) == []


def test_both_signing_out_is_no_error(both: list[Instance], store: Store) -> None:
    here, there = both
    cookie = here.ask(lambda: session.update(user="Ada")).session_id
    assert late(here, cookie, lambda: ended(there, cookie), here.sessions.logout).code == 200
    assert living(store) == []


def test_the_next_request_with_the_old_cookie_begins_a_session_of_its_own(both: list[Instance]) -> None:
    here, there = both
    cookie = here.ask(lambda: session.update(user="Ada")).session_id
    ended(there, cookie)
    answer = here.ask(lambda: session.update(user="Grace"), cookie)
    assert answer.session_id != cookie
    assert there.ask(lambda: dict(session), answer.session_id).result == {"user": "Grace"}
