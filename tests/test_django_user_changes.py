"""What becomes of a user's sessions in Django when the password changes, or the user is deactivated or deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.core import serializers
from django.db import connections, transaction
from django.http import HttpRequest
from django.test import Client
from django.utils.timezone import now
from pytest_django import Settings

from elasticache_sessions import StoreUnavailable
from elasticache_sessions.django import SessionStore, receivers, user_sessions
from elasticache_sessions.django.signals import index_lost, session_ended
from tests.support.django_browser import Browser
from tests.support.django_pages import Member
from tests.support.proxy import Proxy
from tests.support.scripts import run
from tests.support.stores import Store

TEMPLATES = Path(__file__).parent / "django_site" / "templates"
BACKEND = "django.contrib.auth.backends.ModelBackend"

pytestmark = pytest.mark.django_db(transaction=True)  # what happens after a commit needs commits


@pytest.fixture(params=["memory", "valkey-9.1", "memcached"])
def store(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Store:
    return give_store(request.param)


@pytest.fixture
def browser(store: Store, settings: Settings) -> Browser:
    """On each kind of store."""
    return begin(store, settings)


@pytest.fixture
def site(give_store: Callable[[str], Store], settings: Settings) -> Browser:
    """On memory://, for what does not depend on the store."""
    return begin(give_store("memory"), settings)


def begin(store: Any, settings: Settings) -> Browser:
    browser = Browser(store, settings)
    settings.ROOT_URLCONF = "tests.django_site.contrib_urls"
    settings.TEMPLATES = [settings.TEMPLATES[0] | {"DIRS": [TEMPLATES]}]
    return browser


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", password="secret")


@pytest.fixture
def reasons() -> Iterator[list[str]]:
    """Why sessions ended."""
    heard: list[str] = []

    def hear(reason: str, **_: Any) -> None:
        heard.append(reason)

    session_ended.connect(hear)
    yield heard
    session_ended.disconnect(hear)


class Better(PBKDF2PasswordHasher):
    iterations = 1


def sign_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def lives(client: Client) -> bool:
    return SessionStore().exists(client.cookies["sessionid"].value)


# The password.


def test_who_changes_his_password_stays_and_is_signed_out_elsewhere(
    browser: Browser, ada: User, reasons: list[str]
) -> None:
    others, mine = [sign_in(ada), sign_in(ada)], sign_in(ada)
    graces = sign_in(User.objects.create_user("grace"))
    new = {"old_password": "secret", "new_password1": "Correct horse 9", "new_password2": "Correct horse 9"}
    assert mine.post("/password", new).status_code == 302
    assert [lives(client) for client in (*others, mine, graces)] == [False, False, True, True]
    assert reasons == ["password_changed"] * 2
    browser.client = mine
    assert browser.visit(lambda request: request.user.get_username()).content == b"'ada'"
    [info] = user_sessions.for_user(ada)
    assert info.handle == SessionStore(browser.session_key).handle


def test_so_it_is_where_the_view_is_one_transaction(
    site: Browser, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    other, mine = sign_in(ada), sign_in(ada)
    new = {"old_password": "secret", "new_password1": "Correct horse 9", "new_password2": "Correct horse 9"}
    assert mine.post("/password", new).status_code == 302
    assert [lives(other), lives(mine)] == [False, True]


def test_a_password_that_the_admin_sets_ends_all_of_that_user(
    site: Browser, ada: User, admin_client: Client
) -> None:
    client = sign_in(ada)
    page = f"/admin/auth/user/{ada.pk}/password/"
    new = {"usable_password": "true", "password1": "Correct horse 9", "password2": "Correct horse 9"}
    assert admin_client.post(page, new).status_code == 302
    assert [lives(client), lives(admin_client)] == [False, True]


def test_a_password_that_the_admin_disables_ends_all_of_that_user(
    site: Browser, ada: User, admin_client: Client
) -> None:
    client = sign_in(ada)
    page = f"/admin/auth/user/{ada.pk}/password/"
    response = admin_client.post(page, {"usable_password": "false", "unset-password": "1"})
    assert response.status_code == 302
    ada.refresh_from_db()
    assert not ada.has_usable_password()
    assert [lives(client), lives(admin_client)] == [False, True]
    client = sign_in(ada)
    ada.first_name = "Ada"
    ada.save()
    assert lives(client), "nothing changed about the password"


def test_the_password_of_an_async_view(site: Browser, ada: User) -> None:
    other, site.client = sign_in(ada), sign_in(ada)

    async def view(request: HttpRequest) -> None:
        user = await request.auser()
        assert isinstance(user, User)
        user.set_password("another")
        await user.asave()

    assert site.avisit(view).status_code == 200
    assert [lives(other), lives(site.client)] == [False, True]


def test_a_better_hash_of_the_same_password_ends_nothing(
    site: Browser, settings: Settings, ada: User
) -> None:
    client = sign_in(ada)
    settings.PASSWORD_HASHERS = [f"{__name__}.Better", *settings.PASSWORD_HASHERS]
    assert authenticate(username="ada", password="secret") == ada
    ada.refresh_from_db()
    assert ada.password.startswith("pbkdf2")
    assert lives(client)
    settings.PASSWORD_HASHERS = settings.PASSWORD_HASHERS[::-1]
    assert asyncio.run(aauthenticate(username="ada", password="secret")) == ada
    assert lives(client)


# Deactivated, deleted.


def test_who_is_deactivated_or_deleted_is_signed_out_everywhere(
    browser: Browser, ada: User, reasons: list[str]
) -> None:
    clients = [sign_in(ada), sign_in(ada)]
    ada.is_active = False
    ada.save(update_fields=["is_active"])
    assert [lives(client) for client in clients] == [False, False]
    ada.is_active = True
    ada.save()
    browser.client = clients[0]
    assert browser.visit(lambda request: request.user.get_username()).content == b"''", "and not back"
    clients = [sign_in(ada), sign_in(ada)]
    User.objects.filter(pk=ada.pk).delete()
    assert [lives(client) for client in clients] == [False, False]
    assert reasons == ["deactivated"] * 2 + ["deleted"] * 2


@pytest.mark.parametrize("how", ["deactivate", "delete"])
def test_who_does_that_to_himself_loses_the_cookie_and_sees_what_the_view_says(
    site: Browser, ada: User, how: str
) -> None:
    def view(request: HttpRequest) -> str:
        user = User.objects.get(pk=ada.pk)
        if how == "delete":
            user.delete()
        else:
            user.is_active = False
            user.save()
        return "Goodbye."

    site.client = sign_in(ada)
    response = site.visit(view)
    assert (response.status_code, response.content) == (200, b"'Goodbye.'")
    assert site.session_key == ""
    assert user_sessions.for_user(ada.pk or 1) == []


def test_other_changes_end_nothing(site: Browser, ada: User) -> None:
    client = sign_in(ada)
    ada.first_name = "Ada"
    ada.save()
    ada.set_password("another")
    ada.save(update_fields=["last_name"])  # so it is not stored
    ada.is_active = False
    ada.save(update_fields=["last_name"])
    [fixture] = serializers.deserialize("json", serializers.serialize("json", [ada]))
    fixture.save()  # as loaddata does, which is no change by anybody
    User.objects.create_user("grace", password="secret")
    assert lives(client)


def test_a_change_that_is_rolled_back_ends_nothing(site: Browser, ada: User) -> None:
    client = sign_in(ada)
    with transaction.atomic():
        ada.set_password("another")
        ada.save()
        assert lives(client), "not before it is there"
        transaction.set_rollback(True)
    assert lives(client)
    with transaction.atomic():
        ada.set_password("another")
        ada.save()
    assert not lives(client)


def test_a_proxy_of_the_user_is_the_user(site: Browser, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "save", User.save)
    receivers.connect()  # this one came when the apps were ready already; projects have theirs before
    client = sign_in(ada)
    member = Member.objects.get(pk=ada.pk)
    member.set_password("another")
    member.save()
    assert not lives(client)


def test_a_model_that_is_no_user_is_not_watched() -> None:
    from django.contrib.auth.models import Group
    from django.db.models.signals import post_delete

    assert not post_delete.has_listeners(Group), "so that many can be deleted in one statement"


# What may fail.


def test_a_user_of_whom_the_store_knows_no_list_changes_as_ever(browser: Browser, ada: User) -> None:
    """As one who has never signed in: Memcached cannot tell that from a list that it has lost."""
    ada.set_password("another")
    ada.save()
    ada.delete()


def deactivate(user: User) -> None:
    user.is_active = False
    user.save(update_fields=["is_active"])


def change_password(user: User) -> None:
    user.set_password("another")
    user.save(update_fields=["password"])


CHANGES: dict[str, Callable[[User], object]] = {
    "password": change_password,
    "deactivated": deactivate,
    "deleted": lambda user: user.delete(),
}


@pytest.fixture
def searches(single_proxy: Proxy, settings: Settings) -> list[object]:
    """Each time that Valkey is searched."""
    begin(SimpleNamespace(url=single_proxy.url), settings)
    heard: list[object] = []
    single_proxy.on_request(heard.append, when=lambda command: command[0].upper() == b"SCAN", times=None)
    return heard


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("ago", [None, timedelta(days=30, minutes=11)], ids=["never", "long ago"])
def test_nobody_searches_for_who_has_not_signed_in_for_so_long(
    searches: list[object], ada: User, ago: timedelta | None, change: Callable[[User], object]
) -> None:
    ada.last_login = None if ago is None else now() - ago
    change(ada)
    assert searches == []


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_who_signed_in_since_is_searched_for_where_the_list_is_lost(
    searches: list[object], single_store: Store, ada: User, change: Callable[[User], object]
) -> None:
    client = sign_in(ada)
    [name] = [key for key in single_store.keys() if key.startswith(b"sess:o.")]
    single_store.raw("DEL", name)
    ada.last_login = now() - timedelta(days=30)
    change(ada)
    assert searches
    assert not lives(client)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_sign_in_that_the_user_object_does_not_know_of_counts_where_it_is_listed(
    site: Browser, ada: User, change: Callable[[User], object]
) -> None:
    client = sign_in(User.objects.get(pk=ada.pk))
    assert ada.last_login is None
    change(ada)
    assert not lives(client)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_nobody_is_told_that_the_list_of_who_never_signed_in_was_lost(
    give_store: Callable[[str], Store], settings: Settings, ada: User, change: Callable[[User], object]
) -> None:
    begin(give_store("memcached"), settings)
    heard: list[object] = []

    def hear(handle: str, **_: Any) -> None:
        heard.append(handle)

    index_lost.connect(hear)
    try:
        change(ada)
    finally:
        index_lost.disconnect(hear)
    assert heard == []


def test_a_user_who_was_read_in_part_changes_as_ever(site: Browser, ada: User) -> None:
    client = sign_in(ada)
    User.objects.defer("last_login").get(pk=ada.pk).delete()
    assert not lives(client)


def test_without_our_engine_users_change_as_ever(settings: Settings, ada: User) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    ada.set_password("another")
    ada.save()
    ada.delete()


@pytest.mark.usefixtures("never_left_alone")
def test_a_store_that_is_down_is_no_success(
    single_proxy: Proxy, settings: Settings, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    begin(SimpleNamespace(url=single_proxy.url), settings)
    client = sign_in(ada)
    single_proxy.go_down()
    ada.set_password("another")
    with pytest.raises(StoreUnavailable) as raised:  # as `manage.py changepassword` sees it
        ada.save()
    [note] = raised.value.__notes__
    assert note == (
        f"The change to auth.User {ada.pk} is in the database. End their sessions: do it again, or call "
        f"user_sessions.end_all('{ada.pk}')."
    )
    assert f"auth.User {ada.pk}: password_changed, but sessions of theirs are left" in caplog.text
    assert User.objects.get(pk=ada.pk).check_password("another")
    single_proxy.heal()
    assert lives(client)
    ada.set_password("another")
    ada.save()
    assert not lives(client)


@pytest.mark.usefixtures("never_left_alone")
def test_so_it_is_in_a_request(single_proxy: Proxy, settings: Settings, ada: User) -> None:
    site = begin(SimpleNamespace(url=single_proxy.url), settings)
    grace = User.objects.create_user("grace")
    site.client.force_login(grace)
    client = sign_in(ada)

    def view(request: HttpRequest) -> None:
        assert request.user.is_authenticated
        single_proxy.go_down()
        ada.is_active = False
        ada.save()

    response = site.visit(view)
    assert response.status_code == 503
    single_proxy.heal()
    assert lives(client)


# Other projects.

PEOPLE = """
import uuid
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models

class Person(AbstractBaseUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=9, unique=True)
    USERNAME_FIELD = "name"

class Member(Person):  # a child, with a table of its own
    since = models.IntegerField(default=2026)

class Friend(Person):
    class Meta:
        proxy = True
"""


def test_a_user_model_of_the_projects_own_is_watched_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "models.py").write_text(PEOPLE)
    run(
        f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["elasticache_sessions.django", "django.contrib.auth", "django.contrib.contenttypes", "people"],
    AUTH_USER_MODEL="people.Person", SECRET_KEY="x", SESSION_ENGINE="elasticache_sessions.django",
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
    ELASTICACHE_SESSIONS_URL="memory://", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
django.setup()
from django.core.management import call_command
from django.test import Client
from django.utils.timezone import now
call_command("migrate", run_syncdb=True, verbosity=0)
from elasticache_sessions.django import SessionStore, user_sessions
from people.models import Friend, Member, Person

def signed_in(user):
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value

def change(user):
    user.set_password("another")
    user.save()

for kind, end in ((Person, change), (Member, change), (Friend, change), (Member, Member.delete), (Friend, Friend.delete)):
    user = kind.objects.create(name="ada")
    key = signed_in(user)
    [info] = user_sessions.for_user(str(user.pk).replace("-", ""))  # as UUIDs may be written, too
    user.save()
    assert SessionStore().exists(key)
    pk = user.pk
    end(user)
    assert not SessionStore().exists(key), (kind, end)
    assert user_sessions.for_user(pk) == []
    Person.objects.all().delete()
"""
    )


def test_a_project_without_users_has_nothing_to_watch() -> None:
    run(
        """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["elasticache_sessions.django"], SECRET_KEY="x", SESSION_ENGINE="elasticache_sessions.django",
    ELASTICACHE_SESSIONS_URL="memory://",
)
django.setup()
from elasticache_sessions.django import SessionStore
session = SessionStore()
session["cart"] = 1
session.save()
"""
    )
