"""The example Django project alone: what a person who starts it finds. The demo has it behind a load balancer (test_demo.py).

It runs in processes of its own, with its own settings; this one has those of tests/django_site.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from elasticache_sessions import SessionManager, Settings
from example_flask_app.house import PASSWORD
from example_flask_app.processes import session_members
from tests.support.demo import DJANGO, PRODUCTS, ROOT, Browser, wait_until
from tests.support.scripts import run
from tests.support.servers import LAUNCHER, free_port
from tests.support.stores import Store

pytestmark = pytest.mark.xdist_group("example_django")  # one server will do

MANAGE = "example_django_project/manage.py"


def environment(**more: str) -> dict[str, str]:
    """This process's, without what concerns the example or any Django project."""
    ours = ("ELASTICACHE_", "DJANGO_", "PYTHONPATH", "INSTANCE", "SHOP_STORE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


def manage(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, MANAGE, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**more), capture_output=True, text=True, timeout=60
    )


@contextmanager
def runserver(checkout: Path, *options: str, **more: str) -> Iterator[str]:
    """`manage.py runserver` until the block ends; where it answers."""
    port = free_port()
    command = [sys.executable, "-c", LAUNCHER, str(os.getpid()), sys.executable, MANAGE, "runserver"]
    process = subprocess.Popen(
        [*command, *options, str(port)],
        cwd=checkout,
        env=environment(**more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        browser = Browser(f"http://127.0.0.1:{port}")
        wait_until(lambda: browser.ask("GET", "/healthz").code == 200, 30, "runserver answers")
        yield browser.url
    finally:
        for pid in session_members(process.pid):  # the one that watches the files, and the one that serves
            os.kill(pid, 9)
        process.wait()


@pytest.fixture(scope="module")
def store(give_store: Callable[[str], Store]) -> Store:
    return give_store("valkey-9.1")


@pytest.fixture(scope="module")
def url(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("django") / "db.sqlite3"
    with runserver(
        ROOT, "--noreload", ELASTICACHE_SESSIONS_URL=store.url, DJANGO_DATABASE=str(database)
    ) as url:
        yield url


@pytest.fixture
def visitor(url: str) -> Browser:
    return Browser(url)


def copy_of(visitor: Browser) -> Browser:
    """Somebody who has the same cookies."""
    other = Browser(visitor.url)
    for cookie in visitor.cookies:
        other.cookies.set_cookie(cookie)
    return other


def script(setting_up: str, body: str, **more: str) -> None:
    """Run `body` in a project of its own, with DEBUG off and its test client as `client`."""
    given = {"DJANGO_DEBUG": "0", "DJANGO_SECRET_KEY": "s" * 50} | more
    run(
        f"""
import os
for name in [name for name in os.environ if name.startswith(("DJANGO_", "ELASTICACHE_"))]:
    del os.environ[name]
os.environ |= {given!r} | {{"DJANGO_SETTINGS_MODULE": "example_django_project.settings"}}
import django
django.setup()
from django.core.management import call_command
from django.test import Client
client = Client(headers={{"host": "localhost"}})
{setting_up}
{body}
"""
    )


# --- a fresh checkout ---


def test_runserver_needs_nothing_but_a_checkout(tmp_path: Path) -> None:
    leave = shutil.ignore_patterns("__pycache__", "db.sqlite3*")
    for package in ("elasticache_sessions", "example_flask_app", "example_django_project"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=leave)
    with runserver(tmp_path) as url:  # which watches the files, too
        visitor = Browser(url)
        for product in PRODUCTS:
            assert f'id="{product}"' in visitor.ask("GET", "/").text
        assert visitor.sign_in(DJANGO, "grace").user == "grace"
        assert visitor.status()["store"] == "memory of this process"
        assert visitor.status()["visits"] == len(PRODUCTS) + 1
        for file in ("shop.css", "strip.css", "shop/admin.css", "admin/css/base.css"):
            assert visitor.ask("GET", f"/static/{file}").code == 200
    assert (tmp_path / "example_django_project" / "db.sqlite3").exists()


def test_the_database_of_a_checkout_is_no_part_of_it() -> None:
    ignored = subprocess.run(["git", "check-ignore", "example_django_project/db.sqlite3"], cwd=ROOT)
    assert ignored.returncode == 0


def test_the_projects_own_checks_find_no_error(tmp_path: Path) -> None:
    for arguments in (("check", "--fail-level", "WARNING"), ("makemigrations", "--check")):
        done = manage(*arguments, DJANGO_DATABASE=str(tmp_path / "db.sqlite3"))
        assert done.returncode == 0, done.stdout + done.stderr
    deployed = manage("check", "--deploy", DJANGO_DEBUG="0", DJANGO_SECRET_KEY="0123456789" * 5)
    assert deployed.returncode == 0, deployed.stderr
    # It is shown on this machine alone: over plain HTTP, with a store that is emptied when it ends.
    said = set(re.findall(r"\(elasticache_sessions\.(\w+)\)", deployed.stderr))
    assert said == {"W010", "W014", "W020", "W030", "W040", "W043"}


def test_a_missing_secret_is_said_so() -> None:
    done = manage("check", DJANGO_DEBUG="0")
    assert done.returncode == 1
    assert "DJANGO_SECRET_KEY is not set. Set it to a secret that all instances share" in done.stderr


def test_the_project_needs_no_flask() -> None:
    script(
        "import sys",
        """
import example_django_project.urls, example_django_project.asgi, example_django_project.wsgi
assert not {"flask", "werkzeug"} & set(sys.modules)
""",
    )


# --- the shop ---


def test_a_cart_is_filled_changed_and_ordered(visitor: Browser) -> None:
    assert "Night Shift is in your cart." in visitor.submit("/", "/cart/espresso/add").text
    visitor.submit("/", "/cart/espresso/add")
    visitor.submit("/", "/cart/kettle/add")
    page = visitor.ask("GET", "/cart")
    assert page.cart == {"espresso": 2, "kettle": 1}
    assert "£83.00" in page.text  # two for 9.50 each, and 64.00

    assert visitor.submit("/cart", "/cart/espresso", quantity=5).cart == {"espresso": 5, "kettle": 1}
    assert "Night Shift: 99 in your cart." in visitor.submit("/cart", "/cart/espresso", quantity=100).text
    assert visitor.submit("/cart", "/cart/espresso", quantity=0).cart == {"kettle": 1}
    assert visitor.submit("/cart", "/cart/kettle", quantity="many").code == 400
    assert visitor.submit("/cart", "/cart/kettle", quantity=1, remove=1).cart == {}

    visitor.submit("/", "/cart/mug/add")
    assert "Thank you!" in visitor.submit("/cart", "/order").text
    assert visitor.ask("GET", "/cart").cart == {}
    assert visitor.submit("/", "/cart/yacht/add").code == 404


def test_each_product_is_a_field_of_its_own(visitor: Browser, store: Store) -> None:
    visitor.submit("/", "/cart/espresso/add")
    visitor.submit("/", "/cart/mug", quantity=3)
    manager = SessionManager.connect(Settings(url=store.url))
    session = manager.load(visitor.cookie(DJANGO.cookie))
    manager.close()
    assert session is not None
    assert {name: value for name, value in session.fields.items() if name.startswith("cart:")} == {
        "cart:espresso": 1,
        "cart:mug": 3,
    }


@pytest.mark.parametrize("token", [{}, {"csrfmiddlewaretoken": "made-up"}])
@pytest.mark.parametrize("path", ["/cart/mug/add", "/cart/mug", "/order", "/sign-in", "/sign-out"])
def test_a_form_from_elsewhere_is_refused(visitor: Browser, path: str, token: dict[str, str]) -> None:
    visitor.submit("/", "/cart/mug/add")
    answer = visitor.ask("POST", path, quantity="7", username="ada", password=PASSWORD, **token)
    assert answer.code == 403
    assert "This form is out of date" in answer.text
    page = visitor.ask("GET", "/cart")
    assert (page.user, page.cart) == (None, {"mug": 1})


def test_signing_in_changes_the_session_id_and_keeps_the_cart(visitor: Browser) -> None:
    visitor.submit("/", "/cart/mug/add")
    before, first = visitor.status(), visitor.cookie(DJANGO.cookie)
    signed_in = visitor.sign_in(DJANGO, "grace")
    assert signed_in.user == "grace"
    assert "Welcome, grace." in signed_in.text
    assert visitor.status()["session"] != before["session"]
    assert visitor.cookie(DJANGO.cookie) != first
    assert visitor.ask("GET", "/cart").cart == {"mug": 1}

    other = copy_of(visitor)
    assert other.ask("GET", "/cart").user == "grace"
    signed_out = visitor.submit("/cart", "/sign-out")
    assert "You are signed out." in signed_out.text
    for browser in (visitor, other):
        page = browser.ask("GET", "/cart")
        assert (page.user, page.cart) == (None, {})


def test_with_the_cookie_of_an_ended_session_a_new_one_begins(visitor: Browser) -> None:
    visitor.submit("/", "/cart/mug/add")
    counting, filling = copy_of(visitor), copy_of(visitor)
    visitor.submit("/", "/sign-out")
    assert [counting.ask("POST", "/status.json").code for _ in range(2)] == [200, 200]
    assert counting.status()["visits"] == 2
    filling.submit("/sign-in", "/cart/kettle", quantity=2)
    assert filling.ask("GET", "/cart").cart == {"kettle": 2}


@pytest.mark.parametrize(
    ("name", "password"), [("ada", "tea"), ("ada", ""), ("", PASSWORD), ("charles", PASSWORD)]
)
def test_a_wrong_password_or_an_unknown_name_signs_nobody_in(
    visitor: Browser, name: str, password: str
) -> None:
    answer = visitor.sign_in(DJANGO, name, password)
    assert 'role="alert"' in answer.text
    assert visitor.ask("GET", "/cart").user is None


def test_status_is_told_and_counted(visitor: Browser) -> None:
    fresh = visitor.ask("GET", "/status.json")
    assert "Set-Cookie" not in fresh.headers
    now = visitor.status()
    assert now | {"pid": 0, "session_ms": 0} == {
        "instance": "local",
        "pid": 0,
        "visits": 0,
        "session": None,
        "nodes": None,
        "store": "Redis",
        "session_ms": 0,
    }
    for visits in (1, 2):
        assert visitor.ask("POST", "/status.json").code == 200
        assert [visitor.status()["visits"] for _ in range(2)] == [visits, visits]
    visitor.ask("GET", "/")
    now = visitor.status()
    assert now["visits"] == 3
    assert isinstance(now["session"], str)
    assert now["session_ms"] > 0
    assert Path(f"/proc/{now['pid']}/cmdline").read_bytes().split(b"\0")[1] == MANAGE.encode()


def test_the_admin_is_for_staff_only(url: str) -> None:
    nobody, grace, ada = Browser(url), Browser(url), Browser(url)
    grace.sign_in(DJANGO, "grace")
    home = ada.sign_in(DJANGO, "ada")
    assert 'href="/admin/"' in home.text
    assert 'href="/admin/"' not in grace.ask("GET", "/").text
    for browser in (nobody, grace):
        page = browser.ask("GET", "/admin/shop/product/").text
        assert "Log in" in page
        assert "Heron kettle" not in page
    page = ada.ask("GET", "/admin/shop/product/").text
    assert "Heron kettle" in page
    assert "£64.00" in page
    assert 'data-instance="local"' in page


# --- your devices ---


def devices_of(browser: Browser) -> list[tuple[str, bool]]:
    """What "Your devices" lists: handles, and whether each is this one."""
    page = browser.ask("GET", "/devices").text
    return [
        (handle, here != "") for handle, here in re.findall(r'data-handle="([^"]+)"( class="here")?', page)
    ]


def test_one_browser_signs_out_another(url: str) -> None:
    phone, desk, ada = Browser(url), Browser(url), Browser(url)
    ada.sign_in(DJANGO, "ada")
    for browser in (desk, phone):
        browser.sign_in(DJANGO, "grace")
    phone.submit("/devices", "/devices/end-others")  # of other tests, too
    assert desk.ask("GET", "/cart").user is None
    desk.sign_in(DJANGO, "grace")
    (mine, here), (desks, there) = devices_of(phone)
    assert (here, there, mine) == (True, False, phone.status()["session"])
    for said in ("That device is signed out.", "That device was signed out already."):
        assert said in phone.submit("/devices", f"/devices/{desks}/end").text
    page = desk.ask("GET", "/devices").text
    assert "You are not signed in here any more." in page
    assert "<h1>Sign in</h1>" in page
    assert "nowhere else" in phone.ask("GET", "/devices").text
    [(adas, _), *_] = devices_of(ada)
    assert "was signed out already" in phone.submit("/devices", f"/devices/{adas}/end").text
    assert (ada.ask("GET", "/cart").user, phone.ask("GET", "/cart").user) == ("ada", "grace")


def test_a_form_of_who_was_signed_out_elsewhere_leads_to_the_sign_in(url: str) -> None:
    here, there = Browser(url), Browser(url)
    for browser in (here, there):
        browser.sign_in(DJANGO, "grace")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', there.ask("GET", "/devices").text)
    assert token
    assert there.ask("POST", "/devices/end-others").code == 403, "without a token, while signed in"
    here.submit("/devices", "/devices/end-others")
    answer = there.ask("POST", "/devices/end-others", csrfmiddlewaretoken=token[1])
    assert "<h1>Sign in</h1>" in answer.text
    assert here.ask("GET", "/cart").user == "grace"


def test_staff_signs_somebody_out_in_the_admin(url: str) -> None:
    grace, ada = Browser(url), Browser(url)
    grace.sign_in(DJANGO, "grace")
    ada.sign_in(DJANGO, "ada")
    [found] = re.findall(r'/admin/auth/user/(\d+)/change/">grace<', ada.ask("GET", "/admin/auth/user/").text)
    page = f"/admin/auth/user/{found}/sessions/"
    assert f'href="{page}"' in ada.ask("GET", f"/admin/auth/user/{found}/change/").text
    assert re.search(r"\d+ sessions? of grace ended", ada.submit(page, page, end_all="1").text)
    assert grace.ask("GET", "/cart").user is None
    assert "Log in" in grace.ask("GET", page).text


def test_no_page_of_a_session_is_kept_by_the_browser(visitor: Browser) -> None:
    visitor.sign_in(DJANGO, "ada")
    for path in ("/", "/cart", "/devices", "/sign-in", "/status.json", "/admin/"):
        headers = visitor.ask("GET", path).headers
        assert headers["Cache-Control"] == "no-store", path
        assert "default-src 'self'" in headers["Content-Security-Policy"], path


# --- in production ---


def test_the_health_check_needs_neither_session_nor_store_nor_database() -> None:
    script(
        "from example_flask_app.status import leaving",
        f"""
client.cookies["{DJANGO.cookie}"] = "A" * 40
answer = client.get("/healthz")
assert (answer.status_code, answer.content) == (200, b"ok")
assert not answer.cookies and not answer.has_header("Vary")
leaving.set()
assert client.get("/healthz").status_code == 503
""",
        ELASTICACHE_SESSIONS_URL=f"redis://127.0.0.1:{free_port()}",
        DJANGO_DATABASE="/nowhere/db.sqlite3",
    )


@pytest.fixture(scope="module")
def stranded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a project with DEBUG off answers whose store is not there."""
    with runserver(
        ROOT,
        "--noreload",
        ELASTICACHE_SESSIONS_URL=f"redis://127.0.0.1:{free_port()}",
        DJANGO_DATABASE=str(tmp_path_factory.mktemp("stranded") / "db.sqlite3"),
        DJANGO_DEBUG="0",
        DJANGO_SECRET_KEY="s" * 50,
    ) as url:
        yield url


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/cart"), ("GET", "/status.json"), ("POST", "/status.json"), ("GET", "/admin/")],
)
def test_without_the_store_pages_say_to_come_back(stranded: str, method: str, path: str) -> None:
    visitor = Browser(stranded, f"{DJANGO.cookie}={'A' * 40}")
    answer = visitor.ask(method, path)
    assert answer.code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "We will be back in a moment." in answer.text
    assert "Set-Cookie" not in answer.headers


def test_errors_and_files_need_no_store(stranded: str) -> None:
    visitor = Browser(stranded)
    answer = visitor.ask("GET", "/nowhere")
    assert answer.code == 404
    assert "Back to the shop" in answer.text
    for file in ("shop.css", "shop.js", "shop/admin.css", "admin/css/base.css"):
        assert visitor.ask("GET", f"/static/{file}").code == 200, file


def test_a_session_that_ends_during_the_request_counts_nothing(tmp_path: Path) -> None:
    script(
        """
from example_django_project.shop import views
call_command("migrate", verbosity=0)
count_visit = views.count_visit

def end_elsewhere(fields):
    other = Client(headers={"host": "localhost"})
    other.cookies = client.cookies
    other.session.flush()
""",
        """
for method, path, code in (("post", "/status.json", 409), ("get", "/", 302)):
    views.count_visit = count_visit
    client.post("/status.json")
    assert client.get("/status.json").json()["visits"] == 1
    views.count_visit = end_elsewhere
    answer = getattr(client, method)(path)
    assert answer.status_code == code, answer
    assert not answer.cookies
    assert client.get("/status.json").json()["visits"] == 0
""",
        DJANGO_DATABASE=str(tmp_path / "db.sqlite3"),
    )
