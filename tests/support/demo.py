"""The demo as tests drive it: the very command that `make demo` runs, its supervisor, and busy visitors."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from example_flask_app.house import PASSWORD
from example_flask_app.processes import session_members
from tests.support.servers import LAUNCHER, free_port

ROOT = Path(__file__).parents[2]
UP = 60.0  # seconds for the demo to be up, at most
DOWN = 30.0  # and to be gone


def wait_until(what: Callable[[], object], seconds: float, why: str) -> float:
    """Wait until `what()` is true, and say how long it took. AssertionError with `why` if it takes longer."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {why}"
        time.sleep(0.02)
    return time.monotonic() - began


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# --- the demo ---


def on_the_demo(test: Callable[..., None]) -> Callable[..., None]:
    """Not for nox, which has no load balancer and no Playwright; all in one test process, so that one demo will do."""
    for mark in (pytest.mark.demo, pytest.mark.xdist_group("demo")):
        test = mark(test)
    return test


@dataclass(frozen=True)
class Shop:
    """What tells the two shops of the demo apart."""

    instance: str
    """The name of its instances, as the page shows it, but for the number."""
    cookie: str
    name_field: str
    """Of the form to sign in."""
    people: tuple[str, ...] = ()
    """Who can sign in; anybody, where it is empty."""

    def instances(self, *numbers: int) -> list[str]:
        return [f"{self.instance}-{number}" for number in numbers]

    def person(self, number: int) -> str:
        """Somebody who can sign in."""
        return self.people[number % len(self.people)] if self.people else f"visitor-{number}"


FLASK = Shop("shop", "elsewhere", "name")
DJANGO = Shop("django", "elsewhere_django", "username", ("ada", "grace"))
SHOPS = (FLASK, DJANGO)


@dataclass
class Demo:
    """The running demo. Instances go by the name that the page shows: "shop-1" to "shop-6", "django-1" to "django-6"."""

    ports: dict[Shop, int]
    cache_port: int
    directory: Path
    process: subprocess.Popen[bytes]

    def url(self, shop: Shop) -> str:
        return f"http://127.0.0.1:{self.ports[shop]}"

    def supervisor(self, method: str, *arguments: str) -> Any:
        """Call one of http://supervisord.org/api.html."""
        from example_flask_app import control  # nox, which starts no demo, has no supervisor

        return control.ask(self.directory, method, *arguments)

    def start(self, instance: str) -> None:
        self.supervisor("startProcess", f"shop:{instance}")

    def stop(self, instance: str) -> None:
        """As a deployment does it: what is under way is finished first. Returns when the instance is gone."""
        self.supervisor("stopProcess", f"shop:{instance}")

    def restart(self, instance: str) -> None:
        self.stop(instance)
        self.start(instance)

    def kill(self, instance: str) -> None:
        """As the kernel does it. Returns when supervisor has started it again."""
        killed = self.instances()[instance]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.instances().get(instance, killed) != killed, 10, f"{instance} runs again")

    def instances(self) -> dict[str, int]:
        """The instances of both shops that run now, each with its process id."""
        return {
            process["name"]: process["pid"]
            for process in self.supervisor("getAllProcessInfo")
            if process["group"] == "shop" and process["statename"] == "RUNNING"
        }

    def instances_of(self, shop: Shop) -> set[str]:
        return {instance for instance in self.instances() if instance.startswith(f"{shop.instance}-")}

    @property
    def cache_url(self) -> str:
        """The page of the cache nodes, with STORE=memcached-cluster."""
        return f"http://127.0.0.1:{self.cache_port}"

    def do(self, action: str) -> None:
        """What a button of that page does: "add", or "2/kill"."""
        answer = Browser(self.cache_url).ask("POST", f"/nodes/{action}")
        assert answer.code == 200, answer

    def cache(self) -> dict[str, Any]:
        """What that page shows."""
        answer = Browser(self.cache_url).ask("GET", "/nodes.json")
        assert answer.code == 200, answer
        told: dict[str, Any] = json.loads(answer.text)
        return told

    def nodes(self) -> dict[int, str]:
        """The state of each cache node."""
        return {node["number"]: node["state"] for node in self.cache()["nodes"]}

    def wait_until_whole(self, *crowds: Crowd) -> None:
        """Until every instance has noticed which nodes are back, and every session is on both its nodes: only then another
        fault is one and not two. Those who use the sessions bring it about.
        """
        for node in self.cache()["nodes"]:
            if node["state"] == "up":
                name = f"node 127.0.0.1:{node['port']}"
                wait_until(lambda name=name: self.have_noticed(name), 20, f"{name} is known to be back")  # type: ignore[misc]
        for visitors in crowds:
            visitors.go_on()
        wait_until(lambda: not self.cache()["alone"], 20, "every session is on two nodes")

    def have_noticed(self, node: str) -> bool:
        """Whether no instance takes that node for down."""
        logs = [log.read_text() for log in self.directory.glob("*-[1-6].log")]
        return all(log.count(f"{node} does not answer") == log.count(f"{node} answers again") for log in logs)

    def supervisor_pid(self) -> int:
        return int(self.supervisor("getPID"))

    def processes(self) -> list[int]:
        """Every process that the demo started, workers included."""
        return session_members(self.supervisor_pid())


PATIENTLY = {f"ELASTICACHE_SESSIONS_{name}": "10" for name in ("TIMEOUT", "CONNECT_TIMEOUT")}
"""For `running_demo`, where a busy machine, on which the store answers late, is not what a test is about."""


@contextmanager
def running_demo(store: str = "valkey", **settings: str) -> Iterator[Demo]:
    """The demo on ports of its own, with three instances of each shop. Whatever happens, nothing is left of it.

    `settings`: variables of its environment.
    """
    # Not pytest's tmp_path, which may be too long for the unix sockets in it: they have 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp"))
    port = free_port()
    django_port = next(other for other in iter(free_port, None) if other != port)
    cache_port = next(other for other in iter(free_port, None) if other not in (port, django_port))
    output, run = directory / "output", directory / "run"
    launcher = [sys.executable, "-c", LAUNCHER, str(os.getpid())]  # It ends with us, however we end.
    command = [sys.executable, "-m", "example_flask_app.demo", "--store", store, "--dir", str(run)]
    command += ["--port", str(port), "--django-port", str(django_port), "--cache-port", str(cache_port)]
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*launcher, *command],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    demo = Demo({FLASK: port, DJANGO: django_port}, cache_port, run, process)
    session = 0
    try:
        try:
            wait_until(
                lambda: demo.url(FLASK) in output.read_text() or process.poll() is not None,
                UP,
                "the demo is up",
            )
        finally:
            with suppress(OSError):
                session = demo.supervisor_pid()
        assert process.poll() is None, output.read_text()
        yield demo
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(DOWN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in session_members(session) if session else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


# --- visitors ---


@dataclass(frozen=True)
class Answer:
    """`code` is 0 when no answer came: refused, reset or cut short."""

    code: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def cart(self) -> dict[str, int]:
        """What the page shows in the cart."""
        return cart_on(self.text)

    @property
    def user(self) -> str | None:
        """Who the page says is signed in."""
        found = re.search(r'data-user="([^"]*)"', self.text)
        return found[1] if found else None


def cart_on(page: str) -> dict[str, int]:
    found = re.findall(r'data-product="([^"]*)" data-quantity="([^"]*)"', page)
    return {product: int(quantity) for product, quantity in found}


class Browser:
    """A cookie jar and a way to ask. It never asks twice."""

    def __init__(self, url: str, cookie: str | None = None) -> None:
        self.url = url
        self.cookies = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        self._opener.addheaders = [("Cookie", cookie)] if cookie else []

    def cookie(self, name: str) -> str | None:
        return next((cookie.value for cookie in self.cookies if cookie.name == name), None)

    def ask(self, method: str, path: str, **form: object) -> Answer:
        body = urllib.parse.urlencode(form).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, body, method=method)
        try:
            with self._opener.open(request, timeout=15) as response:
                return Answer(response.status, response.read().decode(), dict(response.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(errors="replace"), dict(error.headers))
        except (OSError, HTTPException) as error:
            return Answer(0, repr(error))

    def status(self) -> dict[str, Any]:
        """Where the session is now, without counting a visit; asks until there is an answer."""
        answer = self.ask("GET", "/status.json")
        deadline = time.monotonic() + 10
        while answer.code != 200:
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)
            answer = self.ask("GET", "/status.json")
        status: dict[str, Any] = json.loads(answer.text)
        return status

    def submit(self, page: str, action: str, **form: object) -> Answer:
        """Open a page and send one of its forms, as a person does."""
        answer = self.ask("GET", page)
        token = re.search(r'name="(csrf\w*)" value="([^"]+)"', answer.text)
        assert token, answer
        return self.ask("POST", action, **{token[1]: token[2]}, **form)

    def sign_in(self, shop: Shop, name: str, password: str = PASSWORD) -> Answer:
        return self.submit("/sign-in", "/sign-in", **{shop.name_field: name}, password=password)


PRODUCTS = ("espresso", "filter", "decaf", "mug", "dripper", "kettle", "grinder", "biscuits")


@dataclass
class Visitor(threading.Thread):
    """Signs in, puts something into the cart, and then counts visits until told to stop.

    Its cart differs from all others', so that sessions that are lost or mixed up show.
    """

    number: int
    shop: Shop
    url: str
    stop: threading.Event
    door: threading.Semaphore
    pause: float  # seconds between two requests, on average
    attempts: int = 0
    successes: int = 0
    counted: int = 0
    failures: list[str] = field(default_factory=list)  # Requests without a good answer: allowed, but counted.
    losses: list[str] = field(
        default_factory=list
    )  # Answers that do not belong to this visitor's session: never.
    waits: list[float] = field(default_factory=list)
    answered_by: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__(name=f"visitor-{self.number}", daemon=True)
        self.browser = Browser(self.url)
        self.settled = threading.Event()

    # A dataclass with fields that compare would not be hashable, and threading keeps its threads in a set.
    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        try:
            with self.door:
                self.settle_in()
            self.settled.set()
            chance = random.Random(self.number)
            while not self.stop.wait(chance.uniform(0, 2 * self.pause)):
                self.count_a_visit()
                if self.attempts % 5 == 0:
                    self.look_into_the_cart()
            self.counted = self.browser.status()["visits"] - self.visits_before
        except Exception as error:  # A thread has nobody to raise it to.
            self.losses.append(f"{type(error).__name__}: {error}")

    def settle_in(self) -> None:
        product, quantity = PRODUCTS[self.number % len(PRODUCTS)], 1 + self.number
        self.user, self.cart = self.shop.person(self.number), {product: quantity}
        signed_in = self.browser.sign_in(self.shop, self.user)
        assert (signed_in.code, signed_in.user) == (200, self.user), signed_in
        filled = self.browser.submit("/cart", f"/cart/{product}", quantity=quantity)
        assert filled.code == 200, filled
        now = self.browser.status()
        self.handle, self.visits_before = now["session"], now["visits"]
        self.cookie = self.browser.cookie(self.shop.cookie)
        assert self.cookie
        self.seen = self.visits_before

    def timed(self, method: str, path: str) -> Answer:
        began = time.monotonic()
        answer = self.browser.ask(method, path)
        self.waits.append(time.monotonic() - began)
        if answer.code != 200:
            self.failures.append(f"{method} {path}: {answer.code or answer.text}")
        if self.browser.cookie(self.shop.cookie) != self.cookie:
            self.losses.append(f"{method} {path} changed the cookie")
        return answer

    def count_a_visit(self) -> None:
        # An attempt from the start: whatever becomes of it, the shop may have counted it. When an instance
        # dies with the request in its hands, the load balancer answers 502 and does not send it to another.
        self.attempts += 1
        answer = self.timed("POST", "/status.json")
        if answer.code != 200:
            return
        self.successes += 1
        status = json.loads(answer.text)
        self.answered_by[status["instance"]] += 1
        if status["session"] != self.handle:
            self.losses.append(f"session {status['session']} instead of {self.handle}")
        if status["visits"] <= self.seen:
            self.losses.append(f"{status['visits']} visits after {self.seen}")
        self.seen = status["visits"]

    def look_into_the_cart(self) -> None:
        answer = self.timed("GET", "/cart")
        if answer.code != 200:
            return
        if (answer.user, answer.cart) != (self.user, self.cart):
            self.losses.append(f"{answer.user} with {answer.cart} instead of {self.user} with {self.cart}")


@dataclass
class Crowd:
    visitors: list[Visitor]

    def wait_for_answers_of(self, instance: str, seconds: float = 30) -> float:
        """Until that instance has answered again; how long it took."""
        before = self.answers_of(instance)
        return wait_until(lambda: self.answers_of(instance) > before, seconds, f"{instance} answers")

    def answers_of(self, instance: str) -> int:
        return sum(visitor.answered_by[instance] for visitor in self.visitors)

    def go_on(self, visits: int = 5) -> None:
        """Until everybody has counted so many more visits."""
        goals = {visitor: visitor.attempts + visits for visitor in self.visitors}
        wait_until(lambda: all(visitor.attempts >= goal for visitor, goal in goals.items()), 20, "all go on")

    def failures(self) -> Counter[str]:
        """The requests that had no good answer."""
        return Counter(failure for visitor in self.visitors for failure in visitor.failures)

    def judge(self) -> str:
        """AssertionError if anybody lost anything; else the figures, for people."""
        for visitor in self.visitors:
            assert not visitor.losses, (visitor.name, visitor.losses[:3])
            assert 0 < visitor.successes <= visitor.counted <= visitor.attempts, visitor
        waits = sorted(wait for visitor in self.visitors for wait in visitor.waits)
        by = sum((visitor.answered_by for visitor in self.visitors), Counter[str]())
        return (
            f"{len(self.visitors)} visitors, {len(waits)} requests, "
            f"of them {sum(visitor.attempts for visitor in self.visitors)} POST: "
            f"{sum(visitor.successes for visitor in self.visitors)} answered, "
            f"{sum(visitor.counted for visitor in self.visitors)} counted; "
            f"without a good answer: {dict(self.failures()) or 'none'}; "
            f"waited {1000 * statistics.median(waits):.0f} ms (median), "
            f"{1000 * waits[len(waits) * 99 // 100]:.0f} ms (99 %), {1000 * waits[-1]:.0f} ms (longest); "
            f"answered by {dict(sorted(by.items()))}"
        )


@contextmanager
def crowd(demo: Demo, shop: Shop, size: int, pause: float = 0.2) -> Iterator[Crowd]:
    """Visitors who are all signed in and busy when the block begins, and who have gone home when it ends."""
    stop = threading.Event()
    # A few at a time: to check a password is work by design, for Django a quarter of a second of it.
    door = threading.Semaphore(4)
    visitors = [Visitor(number, shop, demo.url(shop), stop, door, pause) for number in range(size)]
    try:
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            wait_until(lambda v=visitor: v.settled.is_set() or v.losses, 90, f"{visitor.name} is signed in")  # type: ignore[misc]
            assert not visitor.losses, visitor.losses
        yield Crowd(visitors)
    finally:
        stop.set()
        for visitor in visitors:
            if visitor.ident:
                visitor.join(60)
