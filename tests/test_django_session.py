"""`request.session` beside Django's own: every method that Django documents, for threads and for event loops, mixed.

The model is Django's cache engine. Where ours is to differ, the rule says so.
"""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.core.cache import caches
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pytest_django import Settings

from elasticache_sessions import EncodeError
from elasticache_sessions.django import SessionStore

EXPIRY: Final = "_session_expiry"
MISSING: Final = "not given"

names = st.sampled_from(["a", "b", "cart", "ü", SESSION_KEY])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.text(max_size=3)
    | st.sampled_from(
        [b"\xff", 1.5, (1, 2), Decimal("1.10"), UUID(int=5), timedelta(days=-1, microseconds=3)]
    )
    | st.datetimes(timezones=st.just(UTC))
)
values = (
    scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.sampled_from(["x", 7]), scalars, max_size=2)
)
contents = st.dictionaries(names, values, max_size=3)
asynchronous = st.booleans()


class BesideDjangos(RuleBasedStateMachine):
    """Whatever is done to both, both answer the same, and hold the same when they are opened again."""

    loop: asyncio.AbstractEventLoop

    @initialize()
    def begin(self) -> None:
        # By their keys, ours and the model's: those that live, and those that were ended.
        self.alive: list[tuple[str, str]] = []
        self.ended: list[tuple[str, str]] = []
        self.open(None, None)

    def open(self, ours: str | None, models: str | None) -> None:
        if hasattr(self, "ours") and self.put_off:
            self.save(awaited=False)
        self.ours = SessionStore(ours)
        self.model = CacheStore(models)
        self.deleted = False
        """Whether the session that is open was ended by `delete`: both keep its content and its key."""

    @property
    def put_off(self) -> bool:
        """Whether ours has a new key that the store will know with the next save only."""
        core = self.ours._state.core
        return core is not None and core.cycling

    def teardown(self) -> None:
        self.open(None, None)
        for ours, models in self.ended:
            assert not SessionStore().exists(ours)
            assert not CacheStore().exists(models)
        for ours, models in self.alive:
            assert exact(dict(SessionStore(ours).items())) == exact(dict(CacheStore(models).items()))

    # How both are asked.

    def call(self, session: SessionBase, verb: str, *arguments: Any, awaited: bool) -> tuple[str, Any]:
        """What a method returned, or the kind of what it raised."""
        try:
            if awaited:
                return "returned", self.loop.run_until_complete(getattr(session, f"a{verb}")(*arguments))
            return "returned", getattr(session, verb)(*arguments)
        except (KeyError, CreateError, UpdateError) as error:
            kinds = [kind for kind in (KeyError, CreateError, UpdateError) if isinstance(error, kind)]
            return "raised", kinds

    def both(self, verb: str, *arguments: Any, awaited: bool = False) -> Any:
        """Ask both for the same, which must be the same; returns it."""
        ours = self.call(self.ours, verb, *copy.deepcopy(arguments), awaited=awaited)
        models = self.call(self.model, verb, *copy.deepcopy(arguments), awaited=awaited)
        assert exact(ours) == exact(models), verb
        return ours

    # A dict's methods.

    @rule(name=names, value=values, awaited=asynchronous)
    def set(self, name: str, value: Any, awaited: bool) -> None:
        self.both("set" if awaited else "__setitem__", name, value, awaited=awaited)

    @rule(name=names, default=values | st.just(MISSING), awaited=asynchronous)
    def get(self, name: str, default: Any, awaited: bool) -> None:
        self.both("get", name, *(() if default == MISSING else (default,)), awaited=awaited)

    @rule(name=names)
    def subscript(self, name: str) -> None:
        self.both("__getitem__", name)

    @rule(name=names)
    def delete_item(self, name: str) -> None:
        self.both("__delitem__", name)

    @rule(name=names, default=values | st.just(MISSING), awaited=asynchronous)
    def pop(self, name: str, default: Any, awaited: bool) -> None:
        self.both("pop", name, *(() if default == MISSING else (default,)), awaited=awaited)

    @rule(name=names, value=values, awaited=asynchronous)
    def setdefault(self, name: str, value: Any, awaited: bool) -> None:
        self.both("setdefault", name, value, awaited=awaited)

    @rule(content=contents, awaited=asynchronous)
    def update(self, content: dict[str, Any], awaited: bool) -> None:
        self.both("update", content, awaited=awaited)

    @rule(name=names, awaited=asynchronous)
    def has_key(self, name: str, awaited: bool) -> None:
        self.both("has_key", name, awaited=awaited)
        self.both("__contains__", name)

    @rule(verb=st.sampled_from(["keys", "values", "items"]), awaited=asynchronous)
    def look_at_all(self, verb: str, awaited: bool) -> None:
        """A save may bring the fields in another order: it merges them into what is stored."""
        ours = self.call(self.ours, verb, awaited=awaited)[1]
        models = self.call(self.model, verb, awaited=awaited)[1]
        assert type(ours) is type(models)
        if verb == "items":
            assert exact(dict(ours)) == exact(dict(models))
        elif verb == "keys":
            assert sorted(ours) == sorted(models)
        else:
            assert len(ours) == len(models)

    @rule()
    def clear(self) -> None:
        self.both("clear")

    @rule()
    def is_empty(self) -> None:
        """Ours is not empty after it was ended elsewhere: that would delete a cookie that may be a newer one."""
        if not self.ours._state.ended:
            self.both("is_empty")

    @rule(name=names, value=scalars)
    def change_in_place_and_say_so(self, name: str, value: Any) -> None:
        """As Django wants it; that ours notices by itself has a test of its own."""
        for session in (self.ours, self.model):
            held = session.get(name)
            if isinstance(held, list):
                held.append(value)
            elif isinstance(held, dict):
                held["x"] = value
            session.modified = True

    @rule(value=st.booleans())
    def say_whether_it_was_modified(self, value: bool) -> None:
        self.ours.modified = self.model.modified = value

    @rule(value=st.booleans())
    def say_whether_it_was_accessed(self, value: bool) -> None:
        self.ours.accessed = self.model.accessed = value

    # Lifetimes.

    @rule(
        expiry=st.none()
        | st.sampled_from([0, 60, 7200, timedelta(hours=1), datetime(2100, 1, 1, tzinfo=UTC)]),
        awaited=asynchronous,
    )
    def set_expiry(self, expiry: Any, awaited: bool) -> None:
        self.both("set_expiry", expiry, awaited=awaited)

    @rule(awaited=asynchronous)
    def expiry(self, awaited: bool) -> None:
        self.both("get_expire_at_browser_close", awaited=awaited)
        for verb in ("get_expiry_age", "get_expiry_date"):
            ours = self.call(self.ours, verb, awaited=awaited)[1]
            models = self.call(self.model, verb, awaited=awaited)[1]
            assert type(ours) is type(models)
            difference = ours - models
            assert abs(difference if isinstance(difference, int) else difference.total_seconds()) <= 1

    @rule(
        expiry=st.sampled_from([0, 60, None, datetime(2100, 1, 1, tzinfo=UTC)]),
        awaited=asynchronous,
    )
    def expiry_of_something_else(self, expiry: Any, awaited: bool) -> None:
        known = {"modification": datetime(2099, 12, 31, tzinfo=UTC), "expiry": expiry}
        for verb in ("get_expiry_age", "get_expiry_date"):
            answers = []
            for session in (self.ours, self.model):
                answer = getattr(session, f"a{verb}" if awaited else verb)(**known)
                answers.append(self.loop.run_until_complete(answer) if awaited else answer)
            assert exact(answers[0]) == exact(answers[1])

    @rule(
        verb=st.sampled_from(["set_test_cookie", "test_cookie_worked", "delete_test_cookie"]),
        awaited=asynchronous,
    )
    def try_the_cookie(self, verb: str, awaited: bool) -> None:
        self.both(verb, awaited=awaited)
        if (verb, awaited) == ("delete_test_cookie", True):
            self.say_whether_it_was_modified(True)  # Django forgets it there

    @precondition(lambda self: not self.deleted)
    @rule(
        past=st.sampled_from([-1, -(10**9), timedelta(seconds=-1), datetime(1999, 1, 1, tzinfo=UTC)]),
        awaited=asynchronous,
    )
    def expire(self, past: Any, awaited: bool) -> None:
        """Ours knows then that it has no key any more."""
        self.leave()
        models = self.model.session_key
        self.both("set_expiry", past, awaited=awaited)
        self.both("save", awaited=awaited)
        assert self.ours.session_key is None
        assert models is None or not self.model.exists(models)
        self.open(None, None)

    # The store.

    @precondition(lambda self: not self.deleted)
    @rule(awaited=asynchronous)
    def load(self, awaited: bool) -> None:
        self.save(awaited=awaited)  # what ours puts off until then is in Django's store before
        self.both("load", awaited=awaited)

    @rule(awaited=asynchronous)
    def save(self, awaited: bool) -> None:
        self.both("save", awaited=awaited)
        if self.deleted:  # Django's cache engine is the only one of its own that has not looked at it by then
            self.model.accessed = True
        self.stored()

    @precondition(lambda self: not self.deleted)  # Django would bring the ended one back
    @rule(awaited=asynchronous)
    def save_what_must_be_new(self, awaited: bool) -> None:
        if self.put_off:
            self.save(awaited)
        self.both("save", True, awaited=awaited)
        self.stored()

    def stored(self) -> None:
        if not self.deleted:
            self.remember()

    def remember(self) -> None:
        ours, models = self.ours.session_key, self.model.session_key
        assert ours is not None and models is not None
        if (ours, models) not in self.alive:
            self.alive.append((ours, models))

    @rule(awaited=asynchronous)
    def create(self, awaited: bool) -> None:
        self.both("create", awaited=awaited)
        self.deleted = False
        self.stored()

    @precondition(lambda self: not self.deleted)  # ours says that it was ended
    @rule(awaited=asynchronous)
    def cycle_key(self, awaited: bool) -> None:
        self.leave()
        self.both("cycle_key", awaited=awaited)
        if not self.put_off:
            self.stored()

    @rule(awaited=asynchronous)
    def flush(self, awaited: bool) -> None:
        self.leave()
        self.both("flush", awaited=awaited)
        self.deleted = False

    @rule(awaited=asynchronous)
    def delete(self, awaited: bool) -> None:
        self.leave()
        self.both("delete", awaited=awaited)
        self.deleted = self.ours.session_key is not None

    def leave(self) -> None:
        """The key that is open ends."""
        pair = (self.ours.session_key, self.model.session_key)
        if pair in self.alive:
            self.alive.remove(pair)
            self.ended.append(pair)

    @rule(awaited=asynchronous)
    def exists(self, awaited: bool) -> None:
        if self.put_off and not self.deleted:
            self.save(awaited)
        ours = self.call(self.ours, "exists", self.ours.session_key, awaited=awaited)
        models = self.call(self.model, "exists", self.model.session_key, awaited=awaited)
        assert ours == models

    @rule(data=st.data(), awaited=asynchronous)
    def open_again(self, data: st.DataObject, awaited: bool) -> None:
        if self.alive:
            self.open(*data.draw(st.sampled_from(self.alive)))
            self.look_at_all("items", awaited)

    @rule()
    def begin_another(self) -> None:
        self.open(None, None)

    # What always holds.

    @invariant()
    def both_know_the_same(self) -> None:
        assert (self.ours.session_key is None) == (self.model.session_key is None)
        assert (self.ours.modified, self.ours.accessed) == (self.model.modified, self.model.accessed)


def exact(value: Any) -> Any:
    """With the types at every depth, and what `set_expiry` made of now to the second."""
    if isinstance(value, dict):
        return {
            name: (
                value[name][:19] if name == EXPIRY and isinstance(value[name], str) else exact(value[name])
            )
            for name in sorted(value, key=repr)
        }
    if isinstance(value, list | tuple):
        return type(value), [exact(one) for one in value]
    return type(value), value


@pytest.mark.hypothesis
@pytest.mark.timeout(600)  # to find the shortest example of a failure takes a while
def test_every_method_does_what_djangos_does(settings: Settings) -> None:
    settings.ELASTICACHE_SESSIONS_URL = "memory://beside-djangos"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with asyncio.Runner() as runner:
        BesideDjangos.loop = runner.get_loop()
        run_state_machine_as_test(BesideDjangos)
    caches["default"].clear()


# What is ours


@pytest.fixture
def session(settings: Settings) -> SessionStore:
    """One that is stored, as the next request finds it."""
    settings.ELASTICACHE_SESSIONS_URL = "memory://what-is-ours"
    session = SessionStore()
    session.update({"cart": ["mug"], "pair": ([1], 2), "name": "Ada"})
    session.save()
    return SessionStore(session.session_key)


def again(session: SessionStore) -> SessionStore:
    return SessionStore(session.session_key)


def test_a_change_in_place_is_noticed_and_stored(session: SessionStore) -> None:
    for path, value in (("cart",), "pen"), (("pair", 0), 2):
        held: Any = session
        for step in path:
            held = held[step]
        held.append(value)
        assert session.modified
        session.save()
        assert not session.modified, "what was noticed is stored now"
    assert dict(again(session).items()) == {"cart": ["mug", "pen"], "pair": ([1, 2], 2), "name": "Ada"}


def test_reading_is_no_change(session: SessionStore) -> None:
    for name in ("cart", "pair", "name", "missing"):
        session.get(name)
    assert dict(session.items()) and list(session.values())
    assert not session.modified


def test_saying_unmodified_takes_a_new_base(session: SessionStore) -> None:
    session["name"] = "Bob"
    session["cart"].append("pen")
    session.modified = False
    seen = [session.modified]
    session["cart"].append("cup")
    seen.append(session.modified)
    session["cart"].remove("cup")  # it is what it was then
    seen.append(session.modified)
    session.modified = True
    seen.append(session.modified)
    assert seen == [False, True, False, True]


def test_a_value_that_cannot_be_stored_counts_as_a_change(session: SessionStore) -> None:
    session["cart"].append(object())
    assert session.modified
    with pytest.raises(EncodeError, match="field 'cart'"):
        session.save()
    assert again(session)["cart"] == ["mug"]


def test_a_new_key_that_was_put_off_is_forgotten_when_the_session_ends(session: SessionStore) -> None:
    old = session.session_key
    session.cycle_key()
    session.delete()
    assert not session.exists(session.session_key)
    with pytest.raises(UpdateError):
        session.save()
    assert not session.exists(old)


def test_what_was_deleted_and_flushed_did_not_end_elsewhere(session: SessionStore) -> None:
    session["name"] = "Bob"
    session.delete()
    session.flush()
    assert session.is_empty(), "so that the cookie is deleted"
    session.save()
    assert session.session_key is not None


def test_creating_ends_what_was_to_get_a_new_key(session: SessionStore) -> None:
    old = session.session_key
    session.cycle_key()
    session.create()
    assert (again(session).get("name"), SessionStore(old).get("name")) == ("Ada", None)


def test_a_new_key_is_stored_with_the_next_save_or_as_soon_as_somebody_looks(session: SessionStore) -> None:
    """So that a sign-in costs one round trip less, and leaves nothing half done in an outage."""
    old = session.session_key
    session.cycle_key()
    assert session.session_key != old
    assert (again(session).get("name"), SessionStore(old).get("name")) == (None, "Ada")
    assert session.exists(session.session_key)
    assert (again(session).get("name"), SessionStore(old).get("name")) == ("Ada", None)


def test_a_signed_in_session_gets_its_new_key_at_once(session: SessionStore) -> None:
    session[SESSION_KEY] = "7"
    session.save()
    old = session.session_key
    session.cycle_key()
    assert (again(session).get("name"), SessionStore(old).get("name")) == ("Ada", None)


def test_a_save_under_a_key_that_nobody_knows_begins_a_session_under_another(settings: Settings) -> None:
    """Django's cache engine raises UpdateError there."""
    settings.ELASTICACHE_SESSIONS_URL = "memory://what-is-ours"
    session = SessionStore("a" * 40)
    session["name"] = "Ada"
    session.save()
    assert session.session_key != "a" * 40
    assert again(session)["name"] == "Ada"


# What other people's code does to it


def test_what_is_put_in_the_place_of_the_content_replaces_it_under_the_same_key() -> None:
    session = SessionStore()
    session.update({"a": 1, "b": 2})
    session.save()
    key = session.session_key
    assert key is not None
    again = SessionStore(key)
    again._session_cache = {"c": 3}
    again.save()
    assert again.session_key == key
    assert dict(SessionStore(key).items()) == {"c": 3}


def test_content_that_is_thrown_away_is_read_anew() -> None:
    session = SessionStore()
    session["a"] = 1
    session.save()
    other = SessionStore(session.session_key)
    other["a"] = 2
    other.save()
    del session._session_cache
    assert not hasattr(session, "_session_cache")
    assert session["a"] == 2


def test_a_lifetime_of_a_float_is_one(settings: Settings) -> None:
    settings.SESSION_COOKIE_AGE = timedelta(days=7).total_seconds()
    assert SessionStore.managers().rules.idle_timeout == 604_800
    assert isinstance(SessionStore.managers().rules.idle_timeout, int)
