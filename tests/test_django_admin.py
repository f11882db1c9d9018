"""The admin's page of a user's sessions, and its action: who may see them, who may end them, and that nothing of a session's
content is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.auth import login
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Permission, User
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings

from elasticache_sessions.django import SessionStore, user_sessions
from elasticache_sessions.django.admin import UserSessionsMixin
from tests.support.load import PATIENT
from tests.support.proxy import Command, Proxy
from tests.support.stores import Store

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class StaffAdmin(UserSessionsMixin, UserAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    pass


class WithoutActions(StaffAdmin):
    actions = None


class ButForLinus(StaffAdmin):
    """With permissions for each user."""

    def has_change_permission(self, request: HttpRequest, obj: AbstractBaseUser | None = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.get_username() != "linus")


staff = AdminSite()
staff.register(User, StaffAdmin)
strict = AdminSite("strict")
strict.register(User, WithoutActions)
partial = AdminSite("partial")
partial.register(User, ButForLinus)


def sign_in(request: HttpRequest, name: str) -> HttpResponse:
    login(request, User.objects.get(username=name), "django.contrib.auth.backends.ModelBackend")
    return HttpResponse()


urlpatterns = [
    path("admin/", staff.urls),
    path("strict/", strict.urls),
    path("partial/", partial.urls),
    path("sign-in/<str:name>", sign_in),
]

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["memory", "valkey-9.1", "memcached"])
def store(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Store:
    return give_store(request.param)


@pytest.fixture
def ada(store: Store, settings: Settings) -> User:
    """On each kind of store."""
    return member_of(store, settings)


@pytest.fixture
def member(give_store: Callable[[str], Store], settings: Settings) -> User:
    """On memory://, for what does not depend on the store."""
    return member_of(give_store("memory"), settings)


def member_of(store: Any, settings: Settings) -> User:
    settings.ELASTICACHE_SESSIONS_URL = store.url
    settings.ELASTICACHE_SESSIONS_TIMEOUT = settings.ELASTICACHE_SESSIONS_CONNECT_TIMEOUT = PATIENT
    settings.ROOT_URLCONF = __name__
    settings.STATIC_URL = "/static/"
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    return User.objects.create_user("ada")


def browser(user: User, **how: Any) -> Client:
    client = Client(headers={"user-agent": FIREFOX}, **how)
    client.get(f"/sign-in/{user.username}")
    return client


def boss(**how: Any) -> Client:
    return browser(User.objects.create_superuser("grace"), **how)


def clerk(*permissions: str) -> Client:
    """Somebody of the staff who may do that to users."""
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=[f"{permission}_user" for permission in permissions])
    )
    return browser(user)


def page(user: User, site: str = "admin") -> str:
    return f"/{site}/auth/user/{user.pk}/sessions/"


def key(client: Client) -> str:
    return client.cookies["sessionid"].value


def handle(client: Client) -> str:
    return str(SessionStore(key(client)).handle)


def lives(client: Client) -> bool:
    return SessionStore().exists(key(client))


def asks_for_a_list(command: Command) -> bool:
    return any(b"sess:o." in part for part in command)


def said(response: Any) -> list[str]:
    """What messages the page shows. Of the test client's responses only."""
    return [str(message) for message in response.context["messages"]]


# The page.


def test_it_lists_devices_and_nothing_that_a_session_holds(ada: User) -> None:
    client = browser(ada)
    session = client.session
    session["cart"] = "a-very-private-mug"
    session.save()
    response = boss().get(page(ada))
    assert response.status_code == 200
    text = response.content.decode()
    for shown in ("Sessions of ada", "Firefox on Linux", FIREFOX, "just now", f"end:{handle(client)}"):
        assert shown in text
    for secret in ("a-very-private-mug", "cart", key(client), "_auth_user"):
        assert secret not in text
    assert "this browser" not in text
    assert "<style" not in text, "a strict Content-Security-Policy may be on"
    assert not re.search(r"<script(?![^>]*src=)", text)


def test_one_session_is_ended_and_then_all(ada: User) -> None:
    clients, chief = [browser(ada) for _ in range(3)], boss()
    response = chief.post(page(ada), {f"end:{handle(clients[0])}": "End"}, follow=True)
    assert said(response) == ["The session of ada was ended."]
    assert [lives(client) for client in clients] == [False, True, True]
    response = chief.post(page(ada), {f"end:{handle(clients[0])}": "End"}, follow=True)
    assert said(response) == ["ada has no such session any more."]
    response = chief.post(page(ada), {"end_all": "1"}, follow=True)
    assert said(response) == ["2 sessions of ada ended."]
    assert "ada is not signed in anywhere." in response.content.decode()
    assert [lives(client) for client in (*clients, chief)] == [False, False, False, True]
    written = LogEntry.objects.order_by("pk").values_list("user__username", "object_id", "change_message")
    assert list(written) == [
        ("grace", str(ada.pk), "Ended a session."),
        ("grace", str(ada.pk), "Ended all sessions."),
    ]


def test_another_users_session_is_not_ended_by_its_handle(member: User) -> None:
    other = browser(User.objects.create_user("linus"))
    response = boss().post(page(member), {f"end:{handle(other)}": "End"}, follow=True)
    assert said(response) == ["ada has no such session any more."]
    assert lives(other)
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("what", ["one", "all"])
def test_who_ends_his_own_session_is_signed_out(member: User, what: str) -> None:
    chief = boss()
    grace = User.objects.get(username="grace")
    assert "(this browser)" in chief.get(page(grace)).content.decode()
    response = chief.post(page(grace), {f"end:{handle(chief)}": "End"} if what == "one" else {"end_all": "1"})
    assert response.status_code == 302
    assert chief.get(page(grace)).url.startswith("/admin/login/")  # type: ignore[attr-defined]  # a redirect
    assert user_sessions.for_user(grace) == []
    [entry] = LogEntry.objects.all()
    assert entry.user == grace


# Who may.


def test_whoever_is_not_staff_is_sent_to_sign_in(member: User) -> None:
    for client in (Client(), browser(member)):
        for method in (client.get, client.post):
            response = method(page(member))
            assert response.status_code == 302
            assert response.url.startswith("/admin/login/")  # type: ignore[attr-defined]  # a redirect
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("permissions", [(), ("add", "delete")])
def test_who_may_not_view_users_sees_no_sessions(member: User, permissions: tuple[str, ...]) -> None:
    client, other = clerk(*permissions), browser(member)
    assert client.get(page(member)).status_code == 403
    assert client.post(page(member), {"end_all": "1"}).status_code == 403
    assert client.get("/admin/auth/user/999/sessions/").status_code == 403, "nor who there is"
    assert lives(other)


def test_who_may_view_users_sees_the_list_and_ends_nothing(member: User) -> None:
    client, other = clerk("view"), browser(member)
    text = client.get(page(member)).content.decode()
    assert "Firefox on Linux" in text
    assert "end:" not in text
    assert "end_all" not in text
    for form in ({"end_all": "1"}, {f"end:{handle(other)}": "End"}):
        assert client.post(page(member), form).status_code == 403
    choose = {"action": "end_all_sessions", ACTION_CHECKBOX_NAME: [str(member.pk)], "post": "yes"}
    assert "end_all_sessions" not in client.get("/admin/auth/user/").content.decode()
    client.post("/admin/auth/user/", choose)
    assert lives(other)
    assert not LogEntry.objects.exists()


def test_who_may_change_users_ends_sessions(member: User) -> None:
    other = browser(member)
    assert clerk("change").post(page(member), {"end_all": "1"}).status_code == 302
    assert not lives(other)


def test_no_form_of_another_site_ends_a_session(member: User) -> None:
    other, chief = browser(member), boss(enforce_csrf_checks=True)
    assert chief.post(page(member), {"end_all": "1"}).status_code == 403
    assert chief.get(page(member), {"end_all": "1"}).status_code == 200, "nor does a link"
    assert chief.put(page(member)).status_code in (403, 405)
    assert lives(other)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', chief.get(page(member)).content.decode())
    assert token
    form = {"end_all": "1", "csrfmiddlewaretoken": token[1]}
    assert chief.post(page(member), form).status_code == 302
    assert not lives(other)


def test_who_is_not_there_has_no_sessions(member: User) -> None:
    response = boss().get("/admin/auth/user/999/sessions/", follow=True)
    assert "exist. Perhaps it was deleted?" in said(response)[0]


# The way there.


def test_the_page_of_a_user_links_to_it(member: User, settings: Settings, tmp_path: Path) -> None:
    chief, change = boss(), f"/admin/auth/user/{member.pk}/change/"
    text = chief.get(change).content.decode()
    assert f'href="{page(member)}"' in text
    assert "historylink" in text
    assert page(member) not in chief.get("/admin/auth/user/add/").content.decode()
    assert page(member, "strict") in chief.get(change.replace("admin", "strict")).content.decode()
    own = tmp_path / "admin" / "auth" / "user"
    own.mkdir(parents=True)
    (own / "change_form.html").write_text(
        '{% extends "admin/change_form.html" %}{% block form_top %}a page of the project{% endblock %}'
    )
    settings.TEMPLATES = [settings.TEMPLATES[0] | {"DIRS": [tmp_path]}]
    text = chief.get(change).content.decode()
    assert "a page of the project" in text
    assert f'href="{page(member)}"' in text


def test_changing_a_user_works_as_ever(member: User) -> None:
    response = boss().post(
        f"/admin/auth/user/{member.pk}/change/",
        {"username": "countess", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"},
    )
    assert response.status_code == 302, response.content
    assert User.objects.get(pk=member.pk).username == "countess"


# The action.


def test_the_action_asks_and_then_ends_all_of_those_selected(ada: User) -> None:
    linus = User.objects.create_user("linus")
    clients, other = [browser(ada), browser(ada), browser(linus)], browser(User.objects.create_user("ken"))
    chief, users = boss(), "/admin/auth/user/"
    assert "End all sessions of the selected users" in chief.get(users).content.decode()
    form: dict[str, Any] = {"action": "end_all_sessions", ACTION_CHECKBOX_NAME: [ada.pk, linus.pk]}
    asked = chief.post(users, form).content.decode()
    assert all(f"<li>{name}</li>" in asked for name in ("ada", "linus"))
    assert all(lives(client) for client in clients), "not before it is confirmed"
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked)
    confirmed = {name: [value for key, value in fields if key == name] for name, _ in fields}
    response = chief.post(users, confirmed, follow=True)
    assert said(response) == ["3 sessions of 2 users ended."]
    assert [lives(client) for client in (*clients, other, chief)] == [False, False, False, True, True]
    assert LogEntry.objects.filter(change_message="Ended all sessions.").count() == 2


@pytest.mark.parametrize("confirmed", [{}, {"post": "yes"}], ids=["asks", "confirmed"])
def test_the_action_ends_nothing_where_one_of_those_selected_may_not_be_changed(
    member: User, confirmed: dict[str, str]
) -> None:
    linus = User.objects.create_user("linus")
    clients, chief, users = [browser(member), browser(linus)], boss(), "/partial/auth/user/"
    form: dict[str, Any] = {"action": "end_all_sessions", **confirmed}
    assert chief.post(users, form | {ACTION_CHECKBOX_NAME: [member.pk, linus.pk]}).status_code == 403
    assert chief.post(page(linus, "partial"), {"end_all": "1"}).status_code == 403
    assert [lives(client) for client in clients] == [True, True]
    assert not LogEntry.objects.exists()
    assert chief.post(users, form | {ACTION_CHECKBOX_NAME: [member.pk]}).status_code != 403
    assert [lives(client) for client in clients] == [not confirmed, True]


def test_whoever_selects_himself_too_comes_last(member: User) -> None:
    other, chief = browser(member), boss()
    everybody = [user.pk for user in User.objects.order_by("-pk")]
    form = {"action": "end_all_sessions", ACTION_CHECKBOX_NAME: everybody, "post": "yes"}
    chiefs = key(chief)
    assert chief.post("/admin/auth/user/", form).status_code == 302
    assert [lives(other), SessionStore().exists(chiefs)] == [False, False]
    assert LogEntry.objects.count() == 2


def test_where_there_are_no_actions_there_is_not_this_one(member: User) -> None:
    assert "end_all_sessions" not in boss().get("/strict/auth/user/").content.decode()


# What may fail.


@pytest.mark.usefixtures("never_left_alone")
def test_a_store_that_is_down_ends_nothing_and_nothing_is_written_down(
    single_proxy: Proxy, settings: Settings
) -> None:
    ada = member_of(SimpleNamespace(url=single_proxy.url), settings)
    other, chief = browser(ada), boss(raise_request_exception=False)
    single_proxy.lose_request(when=asks_for_a_list, times=99)
    response = chief.post(page(ada), {"end_all": "1"})
    assert response.status_code == 503
    assert int(response["Retry-After"]) >= 1
    single_proxy.heal()
    assert [lives(other), lives(chief)] == [True, True]
    assert not LogEntry.objects.exists()


def test_a_list_that_the_store_has_lost_is_said_so(
    give_store: Callable[[str], Store], settings: Settings
) -> None:
    ada = member_of(
        give_store("memcached"), settings
    )  # of which it never had one, which it cannot tell apart
    chief = boss()
    text = chief.get(page(ada)).content.decode()
    assert "the store has lost the list of a user&#x27;s sessions" in text
    assert "is not signed in anywhere" not in text
    response = chief.post(page(ada), {"end_all": "1"}, follow=True)
    assert said(response)[0] == "0 sessions of ada ended."
    assert "There may be more sessions of ada." in said(response)[1]
