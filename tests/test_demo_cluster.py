"""The demo on several nodes of Memcached: one dies, one comes, one goes, and no visitor notices."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support.chromium import add, browsing, expect, running_chromium
from tests.support.demo import (
    FLASK,
    PATIENTLY,
    SHOPS,
    Browser as Visitor,
    Crowd,
    Demo,
    cart_on,
    crowd,
    on_the_demo,
    running_demo,
    wait_until,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

STORE = "memcached-cluster"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo(STORE, **PATIENTLY) as demo:
        yield demo


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as chromium:
        yield chromium


def nobody_noticed(crowds: list[Crowd]) -> None:
    for visitors in crowds:
        print("\n" + visitors.judge())
        assert not visitors.failures(), visitors.failures()


@on_the_demo
def test_a_node_is_killed_filled_again_joined_and_taken_away_in_the_browser(
    chromium: Browser, demo: Demo
) -> None:
    with browsing(chromium, demo.url(FLASK)) as shop, browsing(chromium, demo.cache_url) as cache:
        shop.goto("/")
        add(shop, "Harbour mug")
        expect(shop.locator("#status")).to_contain_text("Memcached 1.6, on two nodes")
        cache.goto(shop.locator("#status a").get_attribute("href") or "")
        holding = cache.locator(".node", has_text="your session")
        expect(holding).to_have_count(2)
        killed = cache.locator(f"#{holding.first.get_attribute('id')}")
        killed.get_by_role("button", name="Kill").click()
        expect(killed).to_have_attribute("data-state", "down")
        shop.goto("/cart")
        assert cart_on(shop.content()) == {"mug": 1}
        shop.goto("/")
        add(shop, "Heron kettle")

        killed.get_by_role("button", name="Start again").click()
        expect(killed).to_have_attribute("data-state", "up")
        # Whoever uses the session fills the node again, as soon as an instance has seen that it is back.
        wait_until(lambda: shop.reload() and holding.count() == 2, 15, "the session is on two nodes again")
        assert shop.locator(".badge").get_attribute("data-items") == "2"

        cache.get_by_role("button", name="Add a node").click()
        expect(cache.locator("#node-4")).to_have_attribute("data-state", "up")
        cache.locator("#node-1").get_by_role("button", name="Take away").click()
        expect(cache.locator("#node-1")).to_have_attribute("data-state", "leaving")
        for _ in range(5):
            shop.goto("/cart")
            assert cart_on(shop.content()) == {"mug": 1, "kettle": 1}


@on_the_demo
def test_the_endpoint_speaks_elasticache_s_protocol(demo: Demo) -> None:
    cache = demo.cache()
    listed = [node["port"] for node in cache["nodes"] if node["state"] in ("up", "down")]
    with socket.create_connection(("127.0.0.1", min(listed) // 100 * 100)) as connection:
        connection.sendall(b"config get cluster\r\nversion\r\nget key\r\nquit\r\n")
        with connection.makefile("rb") as talk:
            answer = talk.read()
    head, version, nodes, end = re.fullmatch(
        rb"(CONFIG cluster 0 \d+)\r\n(\d+)\n([^\n]*)\n\r\nEND\r\n(.*)", answer, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    assert head == b"CONFIG cluster 0 %d" % len(b"%b\n%b\n" % (version, nodes))
    assert int(version) == cache["version"]
    assert nodes.decode().split() == [f"127.0.0.1|127.0.0.1|{port}" for port in listed]
    assert end == b"VERSION 1.6.22\r\nERROR\r\n"


@on_the_demo
def test_what_cannot_be_done_is_said_so(demo: Demo) -> None:
    for action, reason in (("5/kill", "node-5 is spare."), ("6/start", "node-6 is spare."), ("7/kill", None)):
        answer = Visitor(demo.cache_url).ask("POST", f"/nodes/{action}")
        assert (answer.code, answer.text if reason else None) == (409 if reason else 404, reason)
    elsewhere = Request(
        f"{demo.cache_url}/nodes/2/kill", headers={"Sec-Fetch-Site": "cross-site"}, method="POST"
    )
    with pytest.raises(HTTPError, match="403"):
        urlopen(elsewhere)


@on_the_demo
@pytest.mark.slow
def test_nobody_notices_when_nodes_die_return_empty_come_and_go() -> None:
    with running_demo(STORE, **PATIENTLY) as demo, ExitStack() as shops:
        crowds = [shops.enter_context(crowd(demo, shop, size=10)) for shop in SHOPS]
        demo.do("1/kill")
        for visitors in crowds:
            visitors.go_on()
        demo.do("1/start")
        demo.wait_until_whole(*crowds)

        demo.do("add")
        demo.wait_until_whole(*crowds)
        demo.do("2/kill")  # and nobody starts it again
        for visitors in crowds:
            visitors.go_on()
        demo.do("2/remove")
        demo.wait_until_whole(*crowds)

        demo.do("3/remove")
        wait_until(lambda: 3 not in demo.nodes(), 20, "node-3 is gone")
        demo.wait_until_whole(*crowds)
        shops.close()
        nobody_noticed(crowds)
        assert demo.nodes() == {1: "up", 4: "up"}
