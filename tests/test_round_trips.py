"""What each kind of request costs, in round trips and new connections, counted at a TCP proxy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask import session

from elasticache_sessions import AsyncSessionManager, Session, Settings
from elasticache_sessions.session import handle_of
from tests.support import resp
from tests.support.load import (
    PATIENT,
    Instance,
    at_once,
    instances,
    is_write,
    manager_session,
    managers,
    warm_up,
)
from tests.support.proxy import Count, Proxy
from tests.support.servers import Server
from tests.support.stores import MEMCACHED, Store

Act = Callable[[], object]


@pytest.fixture
def shop(proxy: Proxy) -> Iterator[Instance]:
    """An instance behind the proxy that has had its first requests: connected, and its scripts are loaded."""
    with instances(proxy.url) as (instance,):
        warm_up(instance.manager)
        yield instance


def cost(proxy: Proxy, act: Act) -> int:
    """Round trips of `act`, which makes no connection."""
    with proxy.counting() as count:
        act()
    assert count.connections == 0
    return count.round_trips


def put(**values: object) -> Act:
    return lambda: session.update(values)


def read() -> object:
    return session.get("user")


def sign_in(shop: Instance, **config: object) -> str:
    """A stored session's cookie."""
    return shop.ask(put(user="Ada", cart=["kettle"])).cookie or ""


# What costs more on Memcached: its touch is blind, a write that is refused does not bring what is there, and one that is
# stored brings no token for the next.
TABLE = {  # on Valkey and Redis, on Memcached
    "slide a session with an idle timeout of its own": (1, 2),
    "read and change, and another was faster": (3, 4),
    "a second save in one request": (1, 2),
}


@pytest.fixture
def price(networked_store: Store) -> Callable[[str], int]:
    """What a case of the table costs on this store."""
    return lambda case: TABLE[case][networked_store.name in MEMCACHED]


# The cases of docs/architecture.md


def test_a_request_that_does_not_touch_its_session_costs_nothing(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(lambda: None)) == 0
    assert cost(proxy, lambda: shop.ask(lambda: None, cookie)) == 0


def test_reading_without_a_cookie_costs_nothing(shop: Instance, proxy: Proxy) -> None:
    assert cost(proxy, lambda: shop.ask(read)) == 0


@pytest.mark.parametrize("cookie", ["", "no id", "x" * 39, "x" * 41, "x" * 10_000, "é" * 40])
def test_a_cookie_that_cannot_be_an_id_costs_nothing(shop: Instance, proxy: Proxy, cookie: str) -> None:
    assert cost(proxy, lambda: shop.ask(read, cookie)) == 0


def test_reading_costs_one(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(read, cookie)) == 1
    assert cost(proxy, lambda: shop.ask(lambda: [read(), dict(session), len(session)], cookie)) == 1
    assert cost(proxy, lambda: shop.ask(read, "x" * 40)) == 1


def test_reading_and_sliding_cost_one(shop: Instance, proxy: Proxy, networked_store: Store) -> None:
    cookie = sign_in(shop)
    key = f"sess:{handle_of(cookie)}".encode()
    networked_store.expire(key, 100)
    assert cost(proxy, lambda: shop.ask(read, cookie)) == 1
    assert (networked_store.ttl(key) or 0) > 100, "it did not slide"


def test_refreshing_a_permanent_session_costs_one_and_after_a_read_one_more(
    shop: Instance, proxy: Proxy, networked_store: Store
) -> None:
    cookie = shop.ask(lambda: [put(user="Ada")(), setattr(session, "permanent", True)]).cookie or ""
    assert cookie.endswith(".p")
    key = f"sess:{handle_of(cookie.removesuffix('.p'))}".encode()
    networked_store.expire(key, 100)
    answers = []
    assert cost(proxy, lambda: answers.append(shop.ask(lambda: None, cookie))) == 1
    assert answers[0].cookie == cookie
    assert (networked_store.ttl(key) or 0) > 100, "it did not slide"
    # One that has read it asks again before it sets the cookie: another request may have cycled the id since.
    assert cost(proxy, lambda: shop.ask(read, cookie)) == 2


@pytest.mark.parametrize("idle_ttl", [1000, 40 * 86_400], ids=["shorter", "longer"])
def test_sliding_a_session_with_an_idle_timeout_of_its_own(
    shop: Instance,
    proxy: Proxy,
    networked_store: Store,
    price: Callable[[str], int],
    idle_ttl: int,
) -> None:
    """Shorter and longer than the store-wide one, 31 days."""
    own = Session(idle_ttl=idle_ttl)
    own.fields["user"] = "Ada"
    rules = shop.manager.rules
    shop.manager.rules = replace(rules, clock=lambda: time.time() - idle_ttl / 2)  # so long ago
    shop.manager.save(own)
    shop.manager.rules = rules
    key = f"sess:{own.handle}".encode()
    networked_store.expire(key, idle_ttl // 2)
    assert cost(proxy, lambda: shop.ask(read, own.id)) == price(
        "slide a session with an idle timeout of its own"
    )
    # A server's clock that ticks in whole seconds may be behind by one.
    assert idle_ttl - 10 <= (networked_store.ttl(key) or 0) <= idle_ttl + 1


def test_reading_and_changing_cost_two(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(put(user="Grace"), cookie)) == 2
    assert cost(proxy, lambda: shop.ask(lambda: session["cart"].append("mug"), cookie)) == 2
    assert cost(proxy, lambda: shop.ask(lambda: session.pop("cart"), cookie)) == 2
    assert (
        cost(proxy, lambda: shop.ask(lambda: shop.sessions.apply(lambda fields: fields.update(n=1)), cookie))
        == 2
    )


def test_a_change_that_meets_another_costs_what_the_conflict_does(
    shop: Instance, proxy: Proxy, networked_store: Store, price: Callable[[str], int]
) -> None:
    cookie = sign_in(shop)
    with instances(networked_store.url) as (there,):
        proxy.on_request(lambda exchange: there.ask(put(other=True), cookie), when=is_write)
        assert cost(proxy, lambda: shop.ask(put(user="Grace"), cookie)) == price(
            "read and change, and another was faster"
        )
    assert shop.ask(lambda: dict(session), cookie).result == {
        "user": "Grace",
        "cart": ["kettle"],
        "other": True,
    }


def test_a_second_save_in_one_request(shop: Instance, proxy: Proxy, price: Callable[[str], int]) -> None:
    stored = manager_session(shop.manager, count=0)
    stored.fields["count"] = 1
    assert cost(proxy, lambda: shop.manager.save(stored)) == price("a second save in one request")


def test_a_change_that_comes_to_nothing_costs_no_write(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    # For Flask, assigning is modifying: the cookie is set again, once the store says that its id is still the one.
    with proxy.counting() as count:
        shop.ask(put(user="Ada"), cookie)
    assert count.round_trips == 2
    assert not any(is_write(command) for command in count.commands)
    assert cost(proxy, lambda: shop.ask(lambda: list(session["cart"]), cookie)) == 1


def test_a_new_session_costs_one(shop: Instance, proxy: Proxy) -> None:
    assert cost(proxy, lambda: shop.ask(put(user="Ada"))) == 1


def test_signing_in_without_a_session_costs_one(shop: Instance, proxy: Proxy) -> None:
    assert cost(proxy, lambda: shop.ask(lambda: [put(user="Ada")(), shop.sessions.login(1)])) == 1


def test_a_new_id_costs_three(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(shop.sessions.cycle_id, cookie)) == 3


def test_signing_in_costs_three(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(lambda: [put(user="Grace")(), shop.sessions.login(1)], cookie)) == 3


def test_signing_out_costs_two(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(shop.sessions.logout, cookie)) == 2
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(lambda: session.clear(), cookie)) == 2


# Connections


def mixed(shop: Instance, cookie: str) -> None:
    for number in range(25):
        assert shop.ask(lambda: None, cookie).code == 200
        assert shop.ask(read, cookie).result == "Ada"
        assert shop.ask(put(number=number), cookie).code == 200
        assert shop.ask(read).code == 200


def test_100_requests_make_no_connection(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    with proxy.counting() as count:
        mixed(shop, cookie)
    assert count.connections == 0
    assert count.round_trips == 25 * (1 + 2)


def test_100_requests_of_each_of_eight_threads_share_eight_connections(proxy: Proxy) -> None:
    with instances(proxy.url) as (shop,):
        cookies = [sign_in(shop) for _ in range(8)]
        with proxy.counting() as count:
            at_once(*[lambda cookie=cookie: mixed(shop, cookie) for cookie in cookies])
    assert count.round_trips >= 8 * 25 * (1 + 2)
    assert count.connections <= 8 * len(proxy.ports)


def test_100_operations_of_an_event_loop_make_no_connection(proxy: Proxy) -> None:
    manager = AsyncSessionManager.connect(Settings(url=proxy.url, timeout=PATIENT))

    async def main() -> Count:
        stored = Session()
        stored.fields["user"] = "Ada"
        await manager.save(stored)
        assert await manager.load(stored.id) is not None
        with proxy.counting() as count:
            for number in range(50):
                loaded = await manager.load(stored.id)
                assert loaded is not None
                loaded.fields["number"] = number
                await manager.save(loaded)
        return count

    count = asyncio.run(main())
    assert (count.round_trips, count.connections) == (100, 0)


def test_the_first_question_of_a_connection_is_the_first_thing_it_says(single_proxy: Proxy) -> None:
    with managers(single_proxy.url) as (manager,), single_proxy.counting() as count:
        assert manager.load("x" * 40) is None
    assert count.connections == 1
    assert count.names in (["EVALSHA", "EVAL"], ["EVALSHA"])
    with managers(single_proxy.url) as (manager,), single_proxy.counting() as count:
        assert manager.load("x" * 40) is None
    assert (count.connections, count.round_trips, count.names) == (1, 1, ["EVALSHA"])


def test_the_first_question_of_an_event_loop_is_the_first_thing_it_says(single_proxy: Proxy) -> None:
    manager = AsyncSessionManager.connect(Settings(url=single_proxy.url, timeout=PATIENT))
    asyncio.run(manager.load("x" * 40))
    with single_proxy.counting() as count:
        asyncio.run(manager.load("x" * 40))
    assert (count.connections, count.round_trips, count.names) == (1, 1, ["EVALSHA"])


@pytest.mark.parametrize(
    ("user", "path", "says"),
    [
        ("", "/0", []),
        ("", "/3", ["SELECT"]),
        (":secret", "", ["AUTH"]),
        (":secret", "/3", ["AUTH", "SELECT"]),
        ("shop:pass", "", ["AUTH"]),
    ],
)
def test_a_connection_says_who_it_is_and_which_database_only_where_the_url_does(
    own_server: Server, user: str, path: str, says: list[str]
) -> None:
    own_server.command("ACL", "SETUSER", "shop", "on", ">pass", "~*", "+@all")
    if user.startswith(":"):
        own_server.command("CONFIG", "SET", "requirepass", "secret")
    with Proxy(own_server.port) as proxy:
        url = f"redis://{user}@{proxy.host}:{proxy.port}{path}" if user else f"{proxy.url}{path}"
        with managers(url) as (manager,):
            with proxy.counting() as count:
                assert manager.load("x" * 40) is None
            assert count.names == [*says, "EVALSHA", "EVAL"]
            with proxy.counting() as count:
                assert manager.load("x" * 40) is None
            assert count.names == ["EVALSHA"]


# Scripts


def test_a_server_that_forgot_the_scripts_is_told_each_once(redis_store: Store, redis_proxy: Proxy) -> None:
    with instances(redis_proxy.url) as (shop,):
        warm_up(shop.manager)
        cookie = sign_in(shop)
        for port in redis_store.ports:
            resp.command(port, "SCRIPT", "FLUSH")
        with redis_proxy.counting() as count:
            assert shop.ask(put(user="Grace"), cookie).code == 200
        assert count.names == ["EVALSHA", "EVAL"] * 2
        with redis_proxy.counting() as count:
            assert shop.ask(put(user="Ada"), cookie).code == 200
        assert count.names == ["EVALSHA"] * 2


# Idle time


def test_a_read_that_slides_nothing_writes_nothing(redis_store: Store) -> None:
    with instances(redis_store.url) as (shop,):
        cookie = sign_in(shop)
        shop.ask(read, cookie)
        key = f"sess:{handle_of(cookie)}".encode()
        ends = redis_store.raw("PEXPIRETIME", key)
        time.sleep(0.01)
        shop.ask(read, cookie)
        assert redis_store.raw("PEXPIRETIME", key) == ends
