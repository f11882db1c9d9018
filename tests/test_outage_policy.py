"""A store that is down, under every framework, in both modes of ON_OUTAGE: who sees what, and the cookie is never touched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from elasticache_sessions import StoreUnavailable
from elasticache_sessions.clients import breaker
from elasticache_sessions.clients.breaker import FIRST_PAUSE, LONGEST_PAUSE
from tests.support.demo import wait_until
from tests.support.instances import Answer, Instance, View, Visit, instances
from tests.support.load import PATIENT, contents
from tests.support.proxy import Proxy
from tests.support.stores import Store

pytestmark = pytest.mark.usefixtures("never_left_alone")

MODES = ("error", "anonymous")


def unavailable(visit: Visit) -> bool:
    return bool(visit.raw.unavailable)


def then(first: View, second: View) -> View:
    return lambda visit: [first(visit), second(visit)][1]


def swallowing(view: View) -> View:
    """The same in a view that takes no notice of its failure."""

    def careless(visit: Visit) -> str:
        with suppress(StoreUnavailable, KeyError):
            view(visit)
        return "done"

    return careless


# In the order in which one visitor does them.
HARMLESS: dict[str, View] = {
    "read": lambda visit: visit.get("user"),
    "write": lambda visit: visit.update(late=True),
    "change in place": lambda visit: visit.setdefault("cart", []).append("mug"),
    "say modified": lambda visit: visit.modify(),
}
DECISIVE: dict[str, View] = {
    "clear": lambda visit: visit.clear(),
    "pop": lambda visit: visit.pop("user", None),
    "delete": lambda visit: visit.__delitem__("user"),
    "cycle": lambda visit: visit.cycle(),
    "login": lambda visit: visit.login("eve"),
    "logout": lambda visit: visit.logout(),
    "clear and log in": lambda visit: [visit.clear(), visit.login("eve")],
    "read and log out": lambda visit: [visit.get("user"), visit.logout()],
    "read and log in": lambda visit: [visit.get("user"), visit.login("eve")],
    "read and clear": lambda visit: [visit.get("user"), visit.clear()],
    "read and apply": lambda visit: [visit.get("user"), visit.apply(lambda fields: fields.update(late=True))],
}


@dataclass
class Shop:
    """A site, and a visitor who is signed in and has a cart."""

    site: Instance
    proxy: Proxy
    mode: str
    cookie: str = ""

    def begin(self) -> None:
        def sign_in(visit: Visit) -> None:
            visit.login("ada")
            visit.update(user="Ada", cart=["tea"])
            visit.keep()

        self.cookie = self.site.ask(sign_in).cookie or ""
        self.before = contents(self.site.manager, self.cookie.removesuffix(".p"))

    def serves(self, view: View, result: object, cookie: str | None = None) -> None:
        answer = self.site.ask(view, self.cookie if cookie is None else cookie)
        assert (answer.code, answer.result, answer.cookie) == (200, result, None), answer.errors
        assert "no-store" in answer.headers["Cache-Control"]
        assert "private" in answer.headers["Cache-Control"]
        assert answer.headers["Vary"] == "Cookie"

    def refuses(self, view: View, cookie: str | None = None) -> None:
        answer = self.site.ask(view, self.cookie if cookie is None else cookie)
        assert (answer.code, answer.cookie) == (503, None)
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in answer.headers

    def is_as_it_was(self) -> None:
        """The store is back, and the visitor is still signed in, by the cookie from before."""
        self.proxy.heal()
        patience = time.monotonic() + PATIENT
        while True:
            answer = self.site.ask(lambda visit: (dict(visit), unavailable(visit)), self.cookie)
            if answer.result == (self.before, False) or time.monotonic() > patience:
                break
            time.sleep(0.05)  # who was sent away often may need a moment to believe it
        assert (answer.code, answer.result) == (200, (self.before, False))
        assert answer.cookie in (None, self.cookie)


@pytest.fixture(params=MODES)
def shop(request: pytest.FixtureRequest, framework: str, single_proxy: Proxy) -> Iterator[Shop]:
    with instances(framework, single_proxy.url, on_outage=request.param) as (site,):
        shop = Shop(site, single_proxy, request.param)
        shop.begin()
        yield shop


anonymous = pytest.mark.parametrize("shop", ["anonymous"], indirect=True)


@pytest.mark.parametrize("mode", MODES)
def test_whatever_happens_in_an_outage_nobody_is_signed_out(
    framework: str, proxy: Proxy, networked_store: Store, mode: str
) -> None:
    """One visitor does everything, and comes back when the store is back; so it is on every store."""
    with instances(framework, proxy.url, refreshing=True, on_outage=mode) as (site,):
        shop = Shop(site, proxy, mode)
        shop.begin()
        keys = networked_store.keys()
        proxy.go_down()
        untouched = site.ask(lambda visit: "done", shop.cookie)
        assert (untouched.code, untouched.result, untouched.cookie) == (200, "done", None)
        for view in HARMLESS.values():
            if mode == "anonymous":
                shop.serves(then(view, then(HARMLESS["read"], unavailable)), True)
            else:
                shop.refuses(view)
        for name, view in DECISIVE.items():
            shop.refuses(view)
            # An error of a read is the view's to catch, and then it never came to the rest.
            if mode == "anonymous" or not (name == "login" or name.startswith("read")):
                shop.refuses(swallowing(view))
        assert site.ask(lambda visit: visit.get("user"), "").result is None
        shop.is_as_it_was()
        assert networked_store.keys() == keys


@pytest.mark.parametrize("verb", HARMLESS)
def test_what_cannot_be_saved_after_a_good_read(shop: Shop, verb: str) -> None:
    """It is dropped, or it is an error; a page that only read is true either way."""

    def view(visit: Visit) -> str:
        name = visit["user"]
        shop.proxy.go_down()
        HARMLESS[verb](visit)
        return f"{name} {unavailable(visit)}"

    if verb == "read":
        answer = shop.site.ask(view, shop.cookie)
        assert (answer.code, answer.result, answer.cookie) == (200, "Ada False", None)
    elif shop.mode == "anonymous":
        shop.serves(view, "Ada False")
    else:
        shop.refuses(view)
    shop.is_as_it_was()


@pytest.mark.parametrize("verb", [name for name in DECISIVE if not name.startswith("read")])
def test_a_sign_in_or_out_that_cannot_be_saved_after_a_good_read_is_an_error(shop: Shop, verb: str) -> None:
    def view(visit: Visit) -> str:
        assert visit["user"] == "Ada"
        shop.proxy.go_down()
        return str(swallowing(DECISIVE[verb])(visit))

    shop.refuses(view)
    shop.is_as_it_was()


@anonymous
def test_a_request_that_found_the_store_down_does_not_ask_again_when_it_is_back(shop: Shop) -> None:
    def view(visit: Visit) -> tuple[object, ...]:
        first = visit.get("user")
        asked = len(shop.site.commands)
        shop.proxy.heal()
        visit["cart"] = ["mug"]
        again = visit.get("user")
        return first, again, unavailable(visit), len(shop.site.commands) - asked

    shop.proxy.go_down()
    with shop.site.recording() as commands:
        shop.serves(view, (None, None, True, 0))
    assert set(commands) == {"read"}, "nor did the save"
    shop.is_as_it_was()


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_hangs_is_asked_once_in_a_request(
    framework: str, single_proxy: Proxy, mode: str
) -> None:
    with instances(framework, single_proxy.url) as (patient,):
        shop = Shop(patient, single_proxy, mode)
        shop.begin()
        single_proxy.hold_replies()
        with instances(framework, single_proxy.url, on_outage=mode, timeout=0.2) as (site,):
            shop.site = site
            if mode == "anonymous":
                shop.serves(then(HARMLESS["write"], HARMLESS["read"]), None)
                shop.refuses(swallowing(DECISIVE["read and log out"]))
            else:
                shop.refuses(HARMLESS["read"])
                shop.refuses(swallowing(DECISIVE["logout"]))
            assert site.commands == ["read", "read"]
        shop.site = patient
        shop.is_as_it_was()


@pytest.fixture
def real_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoes `never_left_alone`."""
    monkeypatch.setattr(breaker, "FIRST_PAUSE", FIRST_PAUSE)
    monkeypatch.setattr(breaker, "LONGEST_PAUSE", LONGEST_PAUSE)


def test_nobody_is_signed_in_or_out_while_the_store_is_left_alone(real_pauses: None, shop: Shop) -> None:
    shop.proxy.go_down()

    def is_left_alone() -> bool:
        shop.site.ask(DECISIVE["read and log out"], shop.cookie)
        try:
            contents(shop.site.manager, shop.cookie.removesuffix(".p"))
        except StoreUnavailable as error:
            return "is left alone" in str(error)
        return False

    for view in DECISIVE.values():
        wait_until(is_left_alone, PATIENT, "the store is left alone")
        shop.refuses(view)
    shop.is_as_it_was()


VISITORS: dict[str, tuple[View, bool]] = {
    "reads": (lambda visit: visit.get("user"), True),
    "fills the cart": (lambda visit: visit.update(cart=["mug"]), True),
    "signs in": (lambda visit: visit.login("eve"), False),
    "begins anew and signs in": (lambda visit: [visit.clear(), visit.update(user="Eve")], False),
}


@pytest.mark.parametrize(("view", "harmless"), VISITORS.values(), ids=VISITORS.keys())
def test_a_visitor_without_a_cookie_gets_none(shop: Shop, view: View, harmless: bool) -> None:
    shop.proxy.go_down()
    if view is VISITORS["reads"][0]:
        answer: Answer = shop.site.ask(view)
        assert (answer.code, answer.cookie) == (200, None)
    elif harmless and shop.mode == "anonymous":
        shop.serves(swallowing(view), "done", cookie="")
    else:
        shop.refuses(view, cookie="")
    shop.is_as_it_was()
