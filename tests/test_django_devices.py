"""The sessions of a user in Django: listed, ended one by one or all, limited, and fresh or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import SESSION_KEY, alogin, alogout, login, logout, user_logged_in, user_logged_out
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.test import AsyncClient, Client, override_settings

from elasticache_sessions import ConfigurationError, IndexLost, SessionInfo, StoreUnavailable, TooManySessions
from elasticache_sessions.django import SessionStore, managers, user_sessions
from elasticache_sessions.django.current import request_now
from tests.support.django_pages import ADA, CHAIN, DJANGOS, GRACE, Do, Site, session_of, set_cookies
from tests.support.load import PATIENT
from tests.support.proxy import Proxy
from tests.support.stores import Store

BACKEND = "tests.support.django_pages.Members"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile Safari/604.1"


@dataclass
class Devices:
    """A site of members, and their browsers. Each verb is Django's sync or async one, as the site's views are."""

    site: Site

    @property
    def is_async(self) -> bool:
        return self.site.kind == "asgi"

    def sign_in(
        self, user: AbstractBaseUser = ADA, agent: str = "", client: Client | AsyncClient | None = None
    ) -> Client | AsyncClient:
        client = client or self.site.client()
        self.site.ask(self.login(user), client, headers={"user-agent": agent})
        return client

    def login(self, user: AbstractBaseUser = ADA) -> Do:
        verb = alogin if self.is_async else login
        return lambda request: verb(request, user, BACKEND)

    @property
    def logout(self) -> Do:
        return alogout if self.is_async else logout

    def for_user(self, user: object = ADA) -> Do:
        verb = user_sessions.afor_user if self.is_async else user_sessions.for_user
        return lambda request: verb(user)

    def end(self, handle: str, user: object = ADA) -> Do:
        verb = user_sessions.aend if self.is_async else user_sessions.end
        return lambda request: verb(user, handle)

    def end_all(self, user: object = ADA, **how: Any) -> Do:
        verb: Any = user_sessions.aend_all if self.is_async else user_sessions.end_all
        return lambda request: verb(user, **how)

    def name(self, client: Client | AsyncClient) -> str:
        """Who the next request of that browser is."""

        async def aname(request: HttpRequest) -> str:
            return (await request.auser()).get_username()

        return str(
            self.site.ask(aname if self.is_async else lambda request: request.user.get_username(), client)
        )

    def listed(self, client: Client | AsyncClient) -> list[SessionInfo]:
        found: list[SessionInfo] = self.site.ask(self.for_user(), client)
        return found

    def handle(self, client: Client | AsyncClient) -> str:
        return str(SessionStore(self.site.cookie(client)).handle)


KINDS = ("wsgi", "asgi")


@pytest.fixture(params=["memory", "valkey-9.1", "memcached"])
def store(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Store:
    return give_store(request.param)


@pytest.fixture(params=KINDS)
def devices(request: pytest.FixtureRequest, store: Store) -> Iterator[Devices]:
    """On each kind of store."""
    with Site(request.param, store.url, ELASTICACHE_SESSIONS_TIMEOUT=PATIENT) as site:
        yield Devices(site)


@pytest.fixture(params=KINDS)
def here(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Iterator[Devices]:
    """On memory://, for what does not depend on the store."""
    with Site(request.param, give_store("memory").url) as site:
        yield Devices(site)


# The list.


def test_a_user_sees_where_he_is_signed_in_this_device_first(devices: Devices) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    phone, desk = devices.sign_in(agent=IPHONE), devices.sign_in(agent=FIREFOX)
    devices.sign_in(GRACE, agent="curl/8.14")
    mine, other = devices.listed(phone)
    assert [mine.current, other.current] == [True, False]
    assert [mine.device, other.device] == ["Safari on iPhone", "Firefox on Linux"]
    assert [mine.ip, other.ip] == ["127.0.0.1", "127.0.0.1"]
    assert [mine.handle, other.handle] == [devices.handle(phone), devices.handle(desk)]
    assert before <= other.created_at <= datetime.now(UTC)
    assert other.last_changed is not None, "reading is no activity in Django"
    assert other.last_seen is None
    assert [info.current for info in user_sessions.for_user(str(ADA.pk))] == [False, False], (
        "outside of a request"
    )


def test_another_browser_is_not_the_current_one(devices: Devices) -> None:
    devices.sign_in()
    graces = devices.sign_in(GRACE)
    [info] = devices.listed(graces)
    assert not info.current


def test_a_session_is_listed_once_whatever_key_it_gets(devices: Devices) -> None:
    desk = devices.sign_in()
    devices.site.ask(
        (lambda request: request.session.acycle_key())
        if devices.is_async
        else lambda request: request.session.cycle_key(),
        desk,
    )
    [info] = devices.listed(desk)
    assert (info.handle, info.current) == (devices.handle(desk), True)
    devices.site.ask(devices.logout, desk)
    assert user_sessions.for_user(ADA) == []


def test_where_it_comes_from_survives_whatever_the_session_goes_through(here: Devices) -> None:
    for verb in ("cycle_key", "create", "flush"):

        def do(request: HttpRequest, verb: str = verb) -> None:
            login(request, ADA, BACKEND)
            getattr(request.session, verb)()
            login(request, ADA, BACKEND)

        client = here.site.client()
        view = sync_to_async(do) if here.is_async else do
        here.site.ask(view, client, headers={"user-agent": FIREFOX})
        handle = here.handle(client)
        assert [info.device for info in here.listed(client) if info.handle == handle] == ["Firefox on Linux"]


def test_the_address_is_the_one_that_the_projects_middleware_has_put_right(
    give_store: Callable[[str], Store],
) -> None:
    with Site("wsgi", give_store("memory").url) as site:

        def view(request: HttpRequest) -> None:
            login(request, ADA, BACKEND)
            request.META["REMOTE_ADDR"] = "203.0.113.7"

        site.ask(view)
        assert [info.ip for info in user_sessions.for_user(ADA)] == ["203.0.113.7"]


# Ending one, ending all.


def test_one_device_signs_out_another(devices: Devices) -> None:
    phone, desk, graces = devices.sign_in(), devices.sign_in(), devices.sign_in(GRACE)
    ask = devices.site.ask
    assert ask(devices.end(devices.handle(desk)), phone) is True
    assert [devices.name(client) for client in (phone, desk)] == ["ada", ""]
    assert ask(devices.end(devices.handle(desk)), phone) is False, "it has ended"
    assert ask(devices.end(devices.handle(graces)), phone) is False, "it is not Ada's"
    assert ask(devices.end("nonsense"), phone) is False
    assert devices.name(graces) == "grace"
    assert [info.current for info in devices.listed(phone)] == [True]


def test_who_ends_the_session_that_asks_is_signed_out(devices: Devices) -> None:
    phone = devices.sign_in()
    told: list[object] = []

    def hear(user: object = None, **_: Any) -> None:
        told.append(user)

    user_logged_out.connect(hear)
    try:
        response = devices.site.visit(devices.end(devices.handle(phone)), phone)
    finally:
        user_logged_out.disconnect(hear)
    assert response.status_code == 200
    assert told == [ADA]
    assert "Max-Age=0" in set_cookies(response)["sessionid"]
    assert user_sessions.for_user(ADA) == []


@pytest.mark.parametrize(("keep", "left"), [(True, ["ada", "", ""]), (False, ["", "", ""])])
def test_all_end_but_the_current_one_if_it_is_to_be_kept(
    devices: Devices, keep: bool, left: list[str]
) -> None:
    clients = [devices.sign_in() for _ in range(3)]
    graces = devices.sign_in(GRACE)
    ended = devices.site.ask(devices.end_all(keep_current=keep), clients[0])
    assert ended == left.count("")
    assert [devices.name(client) for client in clients] == left
    assert devices.name(graces) == "grace"
    assert devices.site.ask(devices.end_all(keep_current=True), graces) == left.count("ada"), (
        "keeps only the user's own"
    )
    assert user_sessions.for_user(ADA.pk) == []


def test_a_sign_in_may_end_all_others_in_one_request(devices: Devices) -> None:
    async def aview(request: HttpRequest) -> int:
        await alogin(request, ADA, BACKEND)
        return await user_sessions.aend_all(ADA)

    def view(request: HttpRequest) -> int:
        login(request, ADA, BACKEND)
        return user_sessions.end_all(ADA)

    phone, desk = devices.sign_in(), devices.site.client()
    assert devices.site.ask(aview if devices.is_async else view, desk) == 1
    assert [devices.name(phone), devices.name(desk)] == ["", "ada"]
    assert [info.current for info in devices.listed(desk)] == [True]


def test_a_script_ends_all_without_a_request(devices: Devices) -> None:
    client = devices.sign_in()
    assert user_sessions.end_all(ADA.pk) == 1
    assert devices.name(client) == ""


def test_djangos_own_middleware_says_who_asks_by_the_request(give_store: Callable[[str], Store]) -> None:
    with Site("wsgi", give_store("memory").url, (DJANGOS, *CHAIN)) as site:
        devices = Devices(site)
        devices.sign_in(agent=FIREFOX, client=site.browser)
        [info] = site.ask(lambda request: user_sessions.for_user(ADA, request))
        assert (info.device, info.current) == ("Firefox on Linux", True)
        assert [info.current for info in site.ask(devices.for_user())] == [False], "nobody told"
        assert site.ask(lambda request: user_sessions.end(ADA, info.handle, request))
        assert site.cookie() == ""


def test_the_request_is_known_while_it_is_served_in_its_threads_too(here: Devices) -> None:
    async def aview(request: HttpRequest) -> list[bool]:
        return [request_now() is request, await sync_to_async(request_now)() is request]

    def view(request: HttpRequest) -> list[bool]:
        return [request_now() is request]

    assert all(here.site.ask(aview if here.is_async else view))
    here.site.visit(lambda request: 1 / 0)
    assert request_now() is None


# Who it is.


def test_an_owner_is_whoever_auth_puts_into_the_session() -> None:
    assert user_sessions.owner_of(ADA) == user_sessions.owner_of(1) == user_sessions.owner_of("1") == "1"
    for nobody in (None, AnonymousUser(), type(ADA)()):
        with pytest.raises(ValueError, match="nobody"):
            user_sessions.owner_of(nobody)


def test_an_engine_that_is_not_ours_is_said_so() -> None:
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"),
        pytest.raises(ConfigurationError, match=r"SESSION_ENGINE = 'elasticache_sessions.django'"),
    ):
        user_sessions.for_user(1)


# Step-up.


def test_a_session_is_fresh_until_so_long_after_signing_in(
    here: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(request: HttpRequest) -> Any:
        session = session_of(request)
        return session.afresh(300) if here.is_async else session.fresh(300)

    client = here.site.client()
    assert here.site.ask(fresh, client) is False, "nobody is signed in"
    here.sign_in(client=client)
    assert here.site.ask(fresh, client) is True
    later(monkeypatch, 301)
    assert here.site.ask(fresh, client) is False
    here.sign_in(client=client)  # the password once more
    assert here.site.ask(fresh, client) is True
    here.site.ask(here.logout, client)
    assert here.site.ask(fresh, client) is False


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the clock of the project's sessions."""
    import time
    from dataclasses import replace

    known = managers.managers()
    rules = replace(known.rules, clock=lambda: time.time() + seconds)
    known.sync.rules = known.asynchronous.rules = rules
    moved = replace(known, rules=rules)
    monkeypatch.setattr(SessionStore, "managers", staticmethod(lambda: moved))


def test_who_signs_in_to_something_else_is_no_business_of_the_session(limited: Devices) -> None:
    """As packages do that send auth's signal for the token of an API."""

    def view(request: HttpRequest) -> bool:
        request.session.get("cart")
        user_logged_in.send(sender=type(ADA), request=request, user=ADA)
        return session_of(request).fresh(300)

    client = limited.site.client()
    assert limited.site.ask(sync_to_async(view) if limited.is_async else view, client) is False
    assert limited.site.cookie(client) is None


def test_who_signs_in_again_gets_a_new_key_and_the_old_one_dies(devices: Devices) -> None:
    client = devices.sign_in()
    site = devices.site
    site.ask(aput_mug if devices.is_async else put_mug, client)
    before = site.cookie(client)
    devices.sign_in(client=client)
    assert site.cookie(client) != before
    assert not SessionStore().exists(before)
    assert site.contents(site.cookie(client))["cart"] == ["mug"]
    [info] = devices.listed(client)
    assert (info.current, info.handle) == (True, devices.handle(client))


# A limit.


@pytest.fixture(params=KINDS)
def limited(request: pytest.FixtureRequest, store: Store) -> Iterator[Devices]:
    """Each member has one session, and no second."""
    limits: dict[str, Any] = {
        "ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER": 1,
        "ELASTICACHE_SESSIONS_ON_LIMIT": "refuse",
    }
    with Site(request.param, store.url, ELASTICACHE_SESSIONS_TIMEOUT=PATIENT, **limits) as site:
        yield Devices(site)


def put_mug(request: HttpRequest) -> Any:
    request.session["cart"] = ["mug"]


async def aput_mug(request: HttpRequest) -> None:
    await request.session.aset("cart", ["mug"])


def test_one_sign_in_too_many_is_refused_and_changes_nothing(limited: Devices) -> None:
    site = limited.site
    first, visitor = limited.sign_in(), site.client()
    site.ask(aput_mug if limited.is_async else put_mug, visitor)
    known, stored = site.cookie(visitor), site.contents(site.cookie(visitor))
    response = site.visit(limited.login(), visitor)
    assert response.status_code == 403
    assert set_cookies(response).get("sessionid") is None
    assert (site.cookie(visitor), site.contents(known)) == (known, stored)
    assert [limited.name(visitor), limited.name(first)] == ["", "ada"]
    assert len(limited.listed(first)) == 1
    limited.sign_in(client=first)  # again: the same session
    limited.sign_in(GRACE, client=visitor)
    site.ask(limited.logout, first)
    limited.sign_in(client=first)


def test_a_request_that_fails_after_a_sign_in_leaves_the_browser_the_session_that_counts(
    limited: Devices,
) -> None:
    async def aview(request: HttpRequest) -> None:
        await alogin(request, ADA, BACKEND)
        raise RuntimeError("after that")

    def view(request: HttpRequest) -> None:
        login(request, ADA, BACKEND)
        raise RuntimeError("after that")

    site, visitor = limited.site, limited.site.client()
    site.ask(aput_mug if limited.is_async else put_mug, visitor)
    assert site.visit(aview if limited.is_async else view, visitor).status_code == 500
    assert limited.name(visitor) == "ada"
    limited.sign_in(client=visitor)


def test_a_view_may_answer_a_refused_sign_in_itself(limited: Devices) -> None:
    limited.sign_in()
    heard: list[object] = []

    def hear(user: object = None, **_: Any) -> None:
        heard.append(user)

    async def aview(request: HttpRequest) -> list[object]:
        with pytest.raises(TooManySessions):
            await alogin(request, ADA, BACKEND)
        user = await request.auser()
        return [request.user.is_authenticated, user.is_authenticated, dict(await request.session.aitems())]

    def view(request: HttpRequest) -> list[object]:
        with pytest.raises(TooManySessions):
            login(request, ADA, BACKEND)
        return [request.user.is_authenticated, False, dict(request.session.items())]

    visitor = limited.site.client()
    user_logged_in.connect(hear)
    try:
        assert limited.site.ask(aview if limited.is_async else view, visitor) == [False, False, {}]
    finally:
        user_logged_in.disconnect(hear)
    assert heard == [], "nobody signed in"
    assert limited.site.cookie(visitor) is None


def test_who_is_signed_in_by_hand_is_refused_with_the_save(limited: Devices) -> None:
    async def aview(request: HttpRequest) -> None:
        await request.session.aset(SESSION_KEY, str(ADA.pk))

    def view(request: HttpRequest) -> None:
        request.session[SESSION_KEY] = str(ADA.pk)

    limited.sign_in()
    visitor = limited.site.client()
    response = limited.site.visit(aview if limited.is_async else view, visitor)
    assert (response.status_code, set_cookies(response)) == (403, {})


def test_the_oldest_session_makes_room(here: Devices) -> None:
    with override_settings(ELASTICACHE_SESSIONS_MAX_SESSIONS_PER_USER=2):
        clients = [here.sign_in() for _ in range(3)]
        names = [here.name(client) for client in clients]
    assert names.count("ada") == 2
    assert names[2] == "ada"


# What may fail.


@pytest.mark.usefixtures("never_left_alone")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [False, True])
def test_while_the_store_is_down_nobody_is_told_that_a_session_ended(
    kind: str, read: bool, single_proxy: Proxy
) -> None:
    patient: dict[str, Any] = {
        "ELASTICACHE_SESSIONS_TIMEOUT": PATIENT,
        "ELASTICACHE_SESSIONS_CONNECT_TIMEOUT": PATIENT,
    }
    with Site(kind, single_proxy.url, **patient) as site:
        devices = Devices(site)
        phone, desk = devices.sign_in(), devices.sign_in()
        handle = devices.handle(desk)

        def going_down(do: Do) -> Do:
            """Does it in an outage that begins before the session is read, or after."""

            async def aview(request: HttpRequest) -> None:
                if read:
                    await request.session.aget("cart")
                single_proxy.go_down()
                await do(request)

            def view(request: HttpRequest) -> None:
                if read:
                    request.session.get("cart")
                single_proxy.go_down()
                do(request)

            return aview if devices.is_async else view

        def caught(do: Do) -> Do:
            async def aview(request: HttpRequest) -> None:
                with suppress(StoreUnavailable):
                    await do(request)

            def view(request: HttpRequest) -> None:
                with suppress(StoreUnavailable):
                    do(request)

            return aview if devices.is_async else view

        ends = (devices.end(handle), devices.end_all())
        for do in (devices.for_user(), *ends, *map(caught, ends)):
            response = site.visit(going_down(do), phone)
            assert response.status_code == 503
            assert int(response["Retry-After"]) >= 1
            assert set_cookies(response) == {}
            single_proxy.heal()
            assert [devices.name(phone), devices.name(desk)] == ["ada", "ada"]


def test_a_list_that_was_lost_is_no_empty_one(here: Devices) -> None:
    def view(request: HttpRequest) -> None:
        raise IndexLost("the store has lost the list")

    response = here.site.visit(view)
    assert response.status_code == 503
    assert "Retry-After" not in response, "it does not come back by itself"
