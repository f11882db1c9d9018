"""The example shop of Flask alone; then both shops as `make demo` runs them, in a real browser and with other visitors.

What is the Django project's alone is in test_example_django.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_flask_app import create_app, status as shop_status, views
from example_flask_app.house import PASSWORD
from tests.support import demo as support
from tests.support.chromium import add, browsing, expect, running_chromium
from tests.support.demo import (
    DJANGO,
    ROOT,
    SHOPS,
    Demo,
    Shop,
    cart_on as cart,
    crowd,
    exists,
    on_the_demo,
    running_demo,
    wait_until,
)
from tests.support.servers import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


# --- the shop alone, on memory:// ---


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.delenv("ELASTICACHE_SESSIONS_URL", raising=False)
    return create_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def csrf(client: FlaskClient) -> str:
    token = re.search(r'name="csrf" value="([^"]+)"', client.get("/sign-in").text)
    assert token
    return token[1]


def send(client: FlaskClient, path: str, **form: object) -> Any:
    return client.post(path, data={"csrf": csrf(client), **form}, follow_redirects=True)


def status(client: FlaskClient, method: str = "GET") -> dict[str, Any]:
    told: dict[str, Any] = client.open("/status.json", method=method).get_json()
    return told


def test_a_cart_is_filled_changed_and_ordered(client: FlaskClient) -> None:
    assert "Night Shift is in your cart." in send(client, "/cart/espresso/add").text
    send(client, "/cart/espresso/add")
    send(client, "/cart/kettle/add")
    page = client.get("/cart").text
    assert cart(page) == {"espresso": 2, "kettle": 1}
    assert "£83.00" in page  # two for 9.50 each, and 64.00

    assert cart(send(client, "/cart/espresso", quantity=5).text) == {"espresso": 5, "kettle": 1}
    assert "Night Shift: 99 in your cart." in send(client, "/cart/espresso", quantity=100).text
    assert cart(send(client, "/cart/espresso", quantity=0).text) == {"kettle": 1}
    assert send(client, "/cart/kettle", quantity="many").status_code == 400
    assert cart(send(client, "/cart/kettle", quantity=1, remove=1).text) == {}

    send(client, "/cart/mug/add")
    assert "Thank you!" in send(client, "/order").text
    assert cart(client.get("/cart").text) == {}
    assert send(client, "/cart/yacht/add").status_code == 404


def test_each_product_is_a_field_of_its_own(client: FlaskClient) -> None:
    send(client, "/cart/espresso/add")
    send(client, "/cart/mug", quantity=3)
    with client.session_transaction() as session:
        assert {name: session[name] for name in session if name.startswith("cart:")} == {
            "cart:espresso": 1,
            "cart:mug": 3,
        }


@pytest.mark.parametrize("token", [None, "", "made-up", "é"])
@pytest.mark.parametrize("path", ["/cart/mug/add", "/cart/mug", "/order", "/sign-in", "/sign-out"])
def test_a_form_from_elsewhere_is_refused(client: FlaskClient, path: str, token: str | None) -> None:
    send(client, "/cart/mug/add")
    form = {"quantity": "7", "name": "Ada", "password": PASSWORD} | ({} if token is None else {"csrf": token})
    assert client.post(path, data=form).status_code == 400
    assert cart(client.get("/cart").text) == {"mug": 1}
    assert "data-user" not in client.get("/cart").text


def test_a_form_without_any_session_is_refused(client: FlaskClient) -> None:
    assert client.post("/cart/mug/add", data={"csrf": ""}).status_code == 400


def test_signing_in_changes_the_session_id_and_keeps_the_cart(client: FlaskClient) -> None:
    send(client, "/cart/mug/add")
    before, token = status(client), csrf(client)
    page = send(client, "/sign-in", name="Ada", password=PASSWORD).text
    after = status(client)
    assert before["session"] != after["session"]
    assert 'data-user="Ada"' in page
    assert cart(client.get("/cart").text) == {"mug": 1}
    assert csrf(client) != token

    page = send(client, "/sign-out").text
    assert "You are signed out." in page
    assert "data-user" not in page
    assert cart(client.get("/cart").text) == {}


@pytest.mark.parametrize(
    ("name", "password"), [("Ada", "tea"), ("Ada", ""), ("  ", PASSWORD), ("Ada", "café")]
)
def test_a_wrong_password_or_no_name_signs_nobody_in(client: FlaskClient, name: str, password: str) -> None:
    answer = send(client, "/sign-in", name=name, password=password)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert "data-user" not in client.get("/cart").text


def test_names_are_shown_as_text(client: FlaskClient) -> None:
    assert "<script>alert" not in send(client, "/sign-in", name="<script>alert(1)", password=PASSWORD).text


def test_status_is_told_and_counted(client: FlaskClient) -> None:
    fresh = status(client)
    assert fresh | {"session_ms": 0} == {
        "instance": "local",
        "pid": os.getpid(),
        "visits": 0,
        "session": None,
        "store": "memory of this process",
        "nodes": None,
        "session_ms": 0,
    }
    assert not client.get_cookie("elsewhere")

    first = status(client, "POST")
    assert first["visits"] == 1
    assert isinstance(first["session"], str)
    assert isinstance(first["session_ms"], float)
    second = status(client, "POST")
    told = status(client)
    assert [second["visits"], told["visits"]] == [2, 2]
    assert first["session"] == second["session"] == told["session"]
    client.get("/")
    assert status(client)["visits"] == 3


def test_a_session_that_ends_during_the_request_counts_nothing(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sign_out_elsewhere(_fields: object) -> None:
        other.post("/sign-out", data={"csrf": csrf(other)})

    other = app.test_client()
    for method, path, code in (("POST", "/status.json", 409), ("GET", "/", 303)):
        client.post("/status.json")
        cookie = client.get_cookie("elsewhere")
        assert cookie is not None
        other.set_cookie("elsewhere", cookie.value)
        with monkeypatch.context() as patch:
            patch.setattr(views, "count_visit", sign_out_elsewhere)
            answer = client.open(path, method=method)
        assert answer.status_code == code
        assert "Set-Cookie" not in answer.headers
        assert status(client)["visits"] == 0


def test_the_page_says_who_answered(client: FlaskClient) -> None:
    page = client.get("/").text
    assert f'data-instance="local" data-pid="{os.getpid()}"' in page
    assert re.search(r'data-of="session_ms">[\d.]+<', page)


def test_no_page_of_a_session_is_kept_by_the_browser(client: FlaskClient) -> None:
    send(client, "/sign-in", name="Ada", password=PASSWORD)
    for path in ("/", "/cart", "/sign-in", "/status.json"):
        assert client.get(path).headers["Cache-Control"] == "no-store", path


def test_the_health_check_needs_neither_session_nor_store(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens there: anything that asked the store would fail.
    monkeypatch.setenv("ELASTICACHE_SESSIONS_URL", f"redis://127.0.0.1:{free_port()}")
    app = create_app()
    client = app.test_client()
    client.set_cookie("elsewhere", "A" * 40)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")

    leaving = threading.Event()
    leaving.set()
    monkeypatch.setattr(shop_status, "leaving", leaving)
    assert client.get("/healthz").status_code == 503


def test_without_the_store_pages_say_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTICACHE_SESSIONS_URL", f"redis://127.0.0.1:{free_port()}")
    client = create_app().test_client()
    client.set_cookie("elsewhere", "A" * 40)
    for answer in (
        client.get("/"),
        client.get("/cart"),
        client.get("/status.json"),
        client.post("/status.json"),
    ):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "Set-Cookie" not in answer.headers


def test_flask_runs_it_alone() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ELASTICACHE_")}
    flask = [sys.executable, "-m", "flask", "--app", "example_flask_app"]
    routes = subprocess.run(
        [*flask, "routes"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert "/status.json" in routes.stdout

    port = free_port()
    command = [*flask, "run", "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        visitor = support.Browser(f"http://127.0.0.1:{port}")
        wait_until(lambda: visitor.ask("GET", "/healthz").code == 200, 15, "flask run answers")
        visitor.ask("POST", "/status.json")
        now = visitor.status()
        assert (now["visits"], now["instance"], now["pid"]) == (1, "local", server.pid)
    finally:
        server.kill()
        server.wait()


# --- the demo ---


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo() as demo:
        yield demo


@pytest.fixture(params=SHOPS, ids=lambda shop: shop.instance)
def shop(request: pytest.FixtureRequest) -> Shop:
    """Each of the two shops in turn."""
    shop: Shop = request.param
    return shop


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as chromium:
        yield chromium


@pytest.fixture
def page(chromium: Browser, demo: Demo, shop: Shop) -> Iterator[Page]:
    with browsing(chromium, demo.url(shop)) as page:
        yield page


def sign_in(page: Page, name: str) -> None:
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("[data-user]")).to_have_attribute("data-user", name)


@on_the_demo
def test_whoever_answers_it_is_the_same_session(page: Page, shop: Shop) -> None:
    page.goto("/")
    add(page, "Harbour mug")
    seen = set()
    for _ in range(6):
        page.reload()
        expect(page.locator(".badge")).to_have_attribute("data-items", "1")
        seen.add(page.locator("#status").get_attribute("data-instance"))
    assert seen == set(shop.instances(1, 2, 3))
    expect(page.locator("#status")).to_contain_text("Valkey 9.1")

    # The strip's own button asks again without loading the page.
    visits = int(page.locator("[data-of=visits]").inner_text())
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("[data-of=visits]")).to_have_text(str(visits + 1))


def kill_who_answered(page: Page, demo: Demo) -> tuple[str, int]:
    """Kill the instance that the strip names, as a person would; its name and its process id."""
    strip = page.locator("#status")
    instance, pid = strip.get_attribute("data-instance") or "", int(strip.get_attribute("data-pid") or 0)
    assert demo.instances()[instance] == pid
    os.kill(pid, signal.SIGKILL)
    return instance, pid


@on_the_demo
def test_the_instance_that_answered_is_killed(page: Page, demo: Demo, shop: Shop) -> None:
    page.goto("/")
    add(page, "Night Shift", "Heron kettle", "Night Shift")
    sign_in(page, shop.person(0))

    instance, pid = kill_who_answered(page, demo)
    killed = time.monotonic()
    while time.monotonic() - killed < 1.5:
        answer = page.goto("/cart")
        assert answer is not None
        assert answer.ok
        expect(page.locator("[data-user]")).to_have_attribute("data-user", shop.person(0))
        assert cart(page.content()) == {"espresso": 2, "kettle": 1}
        assert page.locator("#status").get_attribute("data-pid") != str(pid)

    def is_back() -> bool:
        status = page.request.get("/status.json").json()
        return bool(status["instance"] == instance and status["pid"] != pid)

    wait_until(is_back, 10, f"{instance} is back")

    page.get_by_role("button", name="Sign out").click()
    expect(page.locator(".flash")).to_have_text("You are signed out.")
    for _ in range(3):  # whoever answers
        page.goto("/cart")
        expect(page.locator("[data-user]")).to_have_count(0)
        assert cart(page.content()) == {}


@on_the_demo
def test_the_admin_stays_signed_in_when_its_instance_is_killed(chromium: Browser, demo: Demo) -> None:
    with browsing(chromium, demo.url(DJANGO)) as page:
        page.goto("/admin/")
        page.get_by_label("Username").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Products").click()
        expect(page.locator("#result_list tbody tr")).to_have_count(len(support.PRODUCTS))

        page.get_by_role("link", name="Pocket mill").click()
        kill_who_answered(page, demo)
        page.get_by_label("Price in pence").fill("4700")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator(".messagelist .success")).to_contain_text("was changed successfully")
        expect(page.locator("#user-tools")).to_contain_text("ada")
        for _ in range(3):  # whoever answers, it is one shop
            page.goto("/")
            expect(page.locator("#grinder .price")).to_have_text("£47.00")
        expect(page.locator("[data-user]")).to_have_attribute("data-user", "ada")

        page.goto("/admin/")
        page.get_by_role("button", name="Log out").click()
        page.goto("/admin/")
        expect(page.get_by_role("button", name="Log in")).to_be_visible()


@on_the_demo
def test_a_killed_instance_is_back_within_seconds(demo: Demo, shop: Shop) -> None:
    visitor = support.Browser(demo.url(shop))
    visitor.ask("POST", "/status.json")
    now = visitor.status()
    workers = support.children(now["pid"])
    assert workers
    os.kill(now["pid"], signal.SIGKILL)
    killed = time.monotonic()
    # Left alone, a worker would go on for 14 seconds.
    wait_until(lambda: not any(map(exists, workers)), 5, "no worker holds the port of its dead master")
    longest = 0.0
    while True:
        began = time.monotonic()
        answer = visitor.ask("GET", "/status.json")
        longest = max(longest, time.monotonic() - began)
        assert answer.code == 200, answer  # at the first asking: the load balancer asks another instance
        after = json.loads(answer.text)
        assert after["session"] == now["session"]
        if after["instance"] == now["instance"] and after["pid"] != now["pid"]:
            break
        assert time.monotonic() - killed < 10
    print(
        f"\nback after {time.monotonic() - killed:.1f} s; the longest anybody waited: {longest * 1000:.0f} ms"
    )


@on_the_demo
def test_the_back_button_does_not_bring_the_session_back(page: Page, shop: Shop) -> None:
    person = shop.person(1)
    page.goto("/")
    add(page, "Oat biscuits")
    sign_in(page, person)
    page.get_by_role("link", name="Cart").click()
    assert cart(page.content()) == {"biscuits": 1}
    (cookie,) = page.context.cookies()
    assert cookie["name"] == shop.cookie

    page.get_by_role("button", name="Sign out").click()
    expect(page.locator(".flash")).to_have_text("You are signed out.")

    for look in (page.go_back, page.reload):
        look()
        expect(page).to_have_url(re.compile("/cart$"))
        expect(page.locator(".empty")).to_be_visible()
        assert person not in page.content()
        assert cart(page.content()) == {}

    # Nor does the cookie of then, should somebody have kept it.
    page.context.add_cookies([{"name": shop.cookie, "value": cookie["value"], "url": page.url}])
    page.goto("/cart")
    assert person not in page.content()
    assert cart(page.content()) == {}


@on_the_demo
def test_the_next_click_on_a_device_that_was_signed_out_lands_on_the_sign_in_page(
    chromium: Browser, demo: Demo, shop: Shop
) -> None:
    """Whoever answers: the session is ended by one instance, and another one is asked next."""
    person, url = shop.person(1), demo.url(shop)
    with browsing(chromium, url) as here, browsing(chromium, url) as there:
        for page in (there, here):
            page.goto("/")
            sign_in(page, person)
            page.get_by_role("link", name="Devices").click()
            expect(page.get_by_role("heading", name="Your devices")).to_be_visible()
        mine, theirs = here.locator(".devices .here"), device_of(there, on=here)
        expect(mine).to_contain_text("Chromium on Linux this device")
        expect(mine).to_contain_text(re.compile(r"active now.*signed in just now", re.DOTALL))
        expect(mine.get_by_role("button")).to_have_count(0)
        expect(theirs).to_contain_text("Chromium on Linux")

        theirs.get_by_role("button", name="Sign out").click()
        expect(here.locator(".flash")).to_have_text("That device is signed out.")
        expect(theirs).to_have_count(0)
        there.get_by_role("link", name="Devices").click()
        expect(there.get_by_role("heading", name="Sign in")).to_be_visible()

        sign_in(there, person)
        there.goto("/devices")
        here.reload()
        expect(device_of(there, on=here)).to_be_visible()
        here.get_by_role("button", name="Sign out everywhere else").click()
        expect(here.locator(".flash")).to_contain_text("signed out")
        expect(here.locator(".devices li")).to_have_count(1)
        there.get_by_role("button", name="Sign out everywhere else").click()
        expect(there.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(there.locator("[data-user]")).to_have_count(0)
        here.reload()
        expect(here.locator("[data-user]")).to_have_attribute("data-user", person)


def device_of(page: Page, on: Page) -> Locator:
    """The line of one page's device in the list on another."""
    handle = page.locator(".devices .here").get_attribute("data-handle")
    return on.locator(f'.devices li[data-handle="{handle}"]')


@on_the_demo
def test_what_is_added_at_the_same_time_is_all_there(page: Page) -> None:
    page.goto("/")
    outcome = page.evaluate(
        """async () => {
            const forms = [...document.querySelectorAll("form.buy")];
            const options = form => ({method: "POST", body: new FormData(form), redirect: "manual"});
            return (await Promise.all(forms.map(form => fetch(form.action, options(form))))).length;
        }"""
    )
    page.goto("/cart")
    assert cart(page.content()) == dict.fromkeys(support.PRODUCTS, 1)
    assert outcome == len(support.PRODUCTS)


@on_the_demo
def test_a_few_visitors_while_one_comes_one_goes_and_one_is_killed(demo: Demo, shop: Shop) -> None:
    """The short case of test_demo_load.py, and a kill, after which a POST that was under way may be lost."""
    second, fourth = shop.instances(2, 4)
    with crowd(demo, shop, size=8, pause=0.05) as visitors:
        demo.start(fourth)
        visitors.wait_for_answers_of(fourth)
        demo.stop(fourth)
        demo.kill(second)
        visitors.wait_for_answers_of(second)
    print("\n" + visitors.judge())


@on_the_demo
def test_both_shops_keep_their_sessions_in_memcached() -> None:
    with running_demo("memcached") as demo:
        for shop in SHOPS:
            visitor = support.Browser(demo.url(shop))
            visitor.sign_in(shop, shop.person(0))
            visitor.submit("/cart", "/cart/mug", quantity=3)
            before = visitor.status()
            assert before["store"] == "Memcached 1.6"

            demo.kill(before["instance"])
            answers = [visitor.status() for _ in range(6)]
            assert {answer["session"] for answer in answers} == {before["session"]}
            assert len({answer["pid"] for answer in answers}) >= 2
            for _ in range(3):
                page = visitor.ask("GET", "/cart")
                assert (page.user, page.cart) == (shop.person(0), {"mug": 3})
            assert visitor.submit("/", "/sign-out").user is None
            assert visitor.ask("GET", "/cart").cart == {}


@on_the_demo
def test_ctrl_c_ends_everything() -> None:
    with running_demo() as demo:
        processes = demo.processes()
        assert (
            len(processes) >= 1 + 1 + 2 * 3 * 2 + 1
        )  # supervisor, store, masters and workers, load balancer
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(support.DOWN) == 0
        assert [pid for pid in processes if exists(pid)] == []
        assert not demo.directory.exists()


@on_the_demo
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the kernel of Linux does this")
@pytest.mark.parametrize("who", ["demo", "supervisor"])
def test_nothing_is_left_when_one_of_the_two_is_killed(who: str) -> None:
    with running_demo() as demo:
        processes = demo.processes()
        os.kill(demo.process.pid if who == "demo" else demo.supervisor_pid(), signal.SIGKILL)
        wait_until(lambda: not any(map(exists, processes)), support.DOWN, "all processes have ended")
        assert demo.process.wait(support.DOWN) != 0


def ask_for_the_demo(**environment: str) -> tuple[int, str]:
    """Start it where it cannot run: its return code, and what it said."""
    command = [sys.executable, "-m", "example_flask_app.demo"]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=20
    )
    return ran.returncode, ran.stderr


@on_the_demo
def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        assert ask_for_the_demo(PORT=str(port)) == (
            1,
            f"Port {port} is taken. Stop what uses it, or choose another: PORT={port + 1} make demo\n",
        )


@on_the_demo
def test_a_store_that_is_not_known_or_not_there_is_said_so(tmp_path: Path) -> None:
    assert ask_for_the_demo(STORE="mongodb") == (
        1,
        "STORE=mongodb is not known. Write STORE=valkey, STORE=memcached or STORE=memcached-cluster.\n",
    )
    code, said = ask_for_the_demo(STORE="memcached-cluster", PATH=str(tmp_path))
    assert code == 1
    assert said == (
        "STORE=memcached-cluster needs memcached, and there is none on PATH. Install it: "
        "apt-get install --no-install-recommends memcached\n"
    )
