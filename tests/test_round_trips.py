"""What each kind of request costs, in round trips and new connections, counted at a TCP proxy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from elasticache_sessions import AsyncSessionManager, Session, Settings
from elasticache_sessions.record import Record, pack, unpack
from elasticache_sessions.session import handle_of
from tests.support.instances import Instance, View, Visit, instances
from tests.support.load import PATIENT, at_once, is_write, manager_session, managers, warm_up
from tests.support.proxy import Count, Proxy
from tests.support.servers import Server
from tests.support.stores import MEMCACHED, Store

Act = Callable[[], object]

MONTH = 31 * 86_400


@pytest.fixture
def shop(framework: str, proxy: Proxy) -> Iterator[Instance]:
    """An instance behind the proxy that has had its first requests: connected, and its scripts are loaded."""
    with instances(framework, proxy.url) as (instance,):
        warm_up(instance.manager)
        yield instance


@pytest.fixture
def sliding(framework: str, proxy: Proxy) -> Iterator[Instance]:
    """The same, where sessions end a month after they were used, whatever the framework's habit."""
    with instances(framework, proxy.url, idle_timeout=MONTH) as (instance,):
        warm_up(instance.manager)
        yield instance


@pytest.fixture
def refreshing(framework: str, proxy: Proxy) -> Iterator[Instance]:
    """The same, where the cookie is set anew with each response."""
    with instances(framework, proxy.url, refreshing=True) as (instance,):
        warm_up(instance.manager)
        yield instance


def cost(proxy: Proxy, act: Act) -> int:
    """Round trips of `act`, which makes no connection."""
    with proxy.counting() as count:
        act()
    assert count.connections == 0
    return count.flights


def put(**values: object) -> View:
    return lambda visit: visit.update(values)


def read(visit: Visit) -> object:
    return visit.get("user")


def touch_nothing(visit: Visit) -> None:
    pass


def sign_in(shop: Instance) -> str:
    """A stored session's cookie."""
    return shop.ask(put(user="Ada", cart=["kettle"])).cookie or ""


def key_of(cookie: str) -> bytes:
    return f"sess:{handle_of(cookie.removesuffix('.p'))}".encode()


# What costs more on Memcached: its touch is blind, a write that is refused does not bring what is there, and one that is
# stored brings no token for the next. With two copies, what must be done exactly once is decided on one node first.
TABLE = {  # on Valkey and Redis, on Memcached, on Memcached with two copies
    "slide a session with an idle timeout of its own": (1, 2, 2),
    "read and change, and another was faster": (3, 4, 4),
    "a second save in one request": (1, 2, 2),
    "read and apply": (2, 2, 3),
}


@pytest.fixture
def price(networked_store: Store) -> Callable[[str], int]:
    """What a case of the table costs on this store."""
    column = networked_store.dialect.copies if networked_store.name in MEMCACHED else 0
    return lambda case: TABLE[case][column]


# The cases of docs/architecture.md


def test_a_request_that_does_not_touch_its_session_costs_nothing(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(touch_nothing)) == 0
    assert cost(proxy, lambda: shop.ask(touch_nothing, cookie)) == 0


def test_reading_without_a_cookie_costs_nothing(shop: Instance, proxy: Proxy) -> None:
    assert cost(proxy, lambda: shop.ask(read)) == 0


@pytest.mark.parametrize("cookie", ["", "no id", "x" * 39, "x" * 41, "x" * 10_000, "é" * 40])
def test_a_cookie_that_cannot_be_an_id_costs_nothing(shop: Instance, proxy: Proxy, cookie: str) -> None:
    assert cost(proxy, lambda: shop.ask(read, cookie)) == 0
    assert cost(proxy, lambda: shop.ask(lambda visit: visit.logout(), cookie)) == 0


def test_reading_costs_one(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(read, cookie)) == 1
    assert cost(proxy, lambda: shop.ask(lambda visit: [read(visit), dict(visit), "x" in visit], cookie)) == 1
    assert cost(proxy, lambda: shop.ask(read, "x" * 40)) == 1


def test_reading_and_sliding_cost_one(sliding: Instance, proxy: Proxy, networked_store: Store) -> None:
    cookie = sign_in(sliding)
    networked_store.expire(key_of(cookie), 100)
    assert cost(proxy, lambda: sliding.ask(read, cookie)) == 1
    assert (networked_store.ttl(key_of(cookie)) or 0) > 100, "it did not slide"


def test_refreshing_the_cookie_costs_one_and_after_a_read_one_more(
    refreshing: Instance, proxy: Proxy, networked_store: Store
) -> None:
    cookie = refreshing.ask(lambda visit: [visit.update(user="Ada"), visit.keep()]).cookie or ""
    networked_store.expire(key_of(cookie), 100)
    answers = []
    assert cost(proxy, lambda: answers.append(refreshing.ask(touch_nothing, cookie))) == 1
    assert answers[0].cookie == cookie
    assert (networked_store.ttl(key_of(cookie)) or 0) > 100, "it did not slide"
    # One that has read it asks again before it sets the cookie: another request may have cycled the id since.
    assert cost(proxy, lambda: answers.append(refreshing.ask(read, cookie))) == 2
    assert answers[1].cookie == cookie
    assert cost(proxy, lambda: refreshing.ask(put(user="Grace"), cookie)) == 2


def test_refreshing_costs_nothing_where_there_is_no_session(refreshing: Instance, proxy: Proxy) -> None:
    assert cost(proxy, lambda: refreshing.ask(touch_nothing)) == 0
    assert cost(proxy, lambda: refreshing.ask(read)) == 0
    assert cost(proxy, lambda: refreshing.ask(read, "no id")) == 0


@pytest.mark.parametrize("idle_ttl", [1000, 40 * 86_400], ids=["shorter", "longer"])
def test_sliding_a_session_with_an_idle_timeout_of_its_own(
    sliding: Instance,
    proxy: Proxy,
    networked_store: Store,
    price: Callable[[str], int],
    idle_ttl: int,
) -> None:
    """Shorter and longer than that of the others, a month."""

    def view(visit: Visit) -> None:
        visit["user"] = "Ada"
        visit.expire_after(idle_ttl)

    cookie = sliding.ask(view).session_id
    key = key_of(cookie)
    assert idle_ttl - 10 <= (networked_store.ttl(key) or 0) <= idle_ttl + 5
    half_as_long(networked_store, key, idle_ttl)
    assert cost(proxy, lambda: sliding.ask(read, cookie)) == price(
        "slide a session with an idle timeout of its own"
    )
    # A server's clock that ticks in whole seconds may be behind, on a busy machine by more than one.
    assert idle_ttl - 10 <= (networked_store.ttl(key) or 0) <= idle_ttl + 5


def half_as_long(store: Store, key: bytes, idle_ttl: int) -> None:
    """As if half of its idle time had passed."""
    record = unpack(store.get(key) or b"")
    end = max(0, record.header.idle_end - idle_ttl // 2)
    store.set(key, pack(Record(record.header._replace(idle_end=end), record.fields)), idle_ttl // 2)


def test_reading_and_changing_cost_two(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(put(user="Grace"), cookie)) == 2
    assert cost(proxy, lambda: shop.ask(lambda visit: visit["cart"].append("mug"), cookie)) == 2
    assert cost(proxy, lambda: shop.ask(lambda visit: visit.pop("cart"), cookie)) == 2
    assert cost(proxy, lambda: shop.ask(lambda visit: [visit.clear(), visit.update(a=1)], cookie)) == 2


def test_applying_costs_two_or_three(shop: Instance, proxy: Proxy, price: Callable[[str], int]) -> None:
    cookie = sign_in(shop)
    apply: View = lambda visit: visit.apply(lambda fields: fields.update(n=1))  # noqa: E731 - as the views around it
    assert cost(proxy, lambda: shop.ask(apply, cookie)) == price("read and apply")


def test_a_change_that_meets_another_costs_what_the_conflict_does(
    shop: Instance, framework: str, proxy: Proxy, networked_store: Store, price: Callable[[str], int]
) -> None:
    cookie = sign_in(shop)
    with instances(framework, networked_store.url) as (there,):
        proxy.on_request(lambda exchange: there.ask(put(other=True), cookie), when=is_write)
        costs = cost(proxy, lambda: shop.ask(put(user="Grace"), cookie))
    at_most = price("read and change, and another was faster")
    # Of two copies one may be written by then, and whoever was faster on the other has merged it.
    assert costs == at_most or (proxy.dialect.copies > 1 and costs == at_most - 1)
    assert shop.ask(dict, cookie).result == {"user": "Grace", "cart": ["kettle"], "other": True}


def test_a_second_save_in_one_request(shop: Instance, proxy: Proxy, price: Callable[[str], int]) -> None:
    stored = manager_session(shop.manager, count=0)
    stored.fields["count"] = 1
    assert cost(proxy, lambda: shop.manager.save(stored)) == price("a second save in one request")


def test_assigning_an_equal_value_costs_two(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    # It is modifying: the cookie is set again, once the store says that its id is still the one.
    with proxy.counting() as count:
        shop.ask(put(user="Ada"), cookie)
    assert count.flights == 2
    assert any(is_write(command) for command in count.commands) == shop.habits.equal_is_written


def test_a_list_that_was_only_looked_at_is_not_written(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(lambda visit: list(visit["cart"]), cookie)) == 1


def test_a_new_session_costs_one(shop: Instance, proxy: Proxy) -> None:
    assert cost(proxy, lambda: shop.ask(put(user="Ada"))) == 1


def test_signing_in_without_a_session_costs_three(shop: Instance, proxy: Proxy) -> None:
    assert cost(proxy, lambda: shop.ask(lambda visit: [visit.update(user="Ada"), visit.login("1")])) == 3


def test_a_new_id_costs_three(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(lambda visit: visit.cycle(), cookie)) == 3


def test_signing_in_costs_five(shop: Instance, proxy: Proxy) -> None:
    """Two of them for the list of the user's sessions."""
    cookie = sign_in(shop)
    sign_in_as_grace: View = lambda visit: [visit.update(user="Grace"), visit.login("1")]  # noqa: E731 - as above
    assert cost(proxy, lambda: shop.ask(sign_in_as_grace, cookie)) == 5


def test_signing_out_costs_four_and_two_where_nobody_was_signed_in(shop: Instance, proxy: Proxy) -> None:
    cookie = shop.ask(lambda visit: [visit.update(user="Ada"), visit.login("ada")]).session_id
    assert cost(proxy, lambda: shop.ask(lambda visit: visit.logout(), cookie)) == 4
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(lambda visit: [read(visit), visit.logout()], cookie)) == 2
    cookie = sign_in(shop)
    assert cost(proxy, lambda: shop.ask(lambda visit: visit.clear(), cookie)) == 2


def test_listing_a_users_sessions_costs_two_however_many_they_are(single_proxy: Proxy) -> None:
    """Besides reading the session of whoever asks. Where there are several nodes, they are asked at once."""
    with managers(single_proxy.url) as (manager,):
        for _ in range(5):
            session = Session(owner="ada")
            session.fields["user"] = "Ada"
            manager.save(session)
        assert len(manager.for_user("ada")) == 5
        assert cost(single_proxy, lambda: manager.for_user("ada")) == 2


# Connections


def mixed(shop: Instance, cookie: str) -> None:
    for number in range(25):
        assert shop.ask(touch_nothing, cookie).code == 200
        assert shop.ask(read, cookie).result == "Ada"
        assert shop.ask(put(number=number), cookie).code == 200
        assert shop.ask(read).code == 200


def test_100_requests_make_no_connection(shop: Instance, proxy: Proxy) -> None:
    cookie = sign_in(shop)
    with proxy.counting() as count:
        mixed(shop, cookie)
    assert count.connections == 0
    assert count.flights == 25 * (1 + 2)


def test_100_requests_of_each_of_eight_threads_share_eight_connections(framework: str, proxy: Proxy) -> None:
    with instances(framework, proxy.url) as (shop,):
        cookies = [sign_in(shop) for _ in range(8)]
        with proxy.counting() as count:
            at_once(*[lambda cookie=cookie: mixed(shop, cookie) for cookie in cookies])
    assert len(count.commands) >= 8 * 25 * (1 + 2)  # the tasks of an event loop share flights
    assert count.connections <= 8 * len(proxy.ports)


def test_100_operations_of_an_event_loop_make_no_connection(proxy: Proxy) -> None:
    manager = AsyncSessionManager.connect(Settings(url=proxy.url, timeout=PATIENT, connect_timeout=PATIENT))

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
    assert (count.flights, count.connections) == (100, 0)


def test_the_first_question_of_a_connection_is_the_first_thing_it_says(single_proxy: Proxy) -> None:
    with managers(single_proxy.url) as (manager,), single_proxy.counting() as count:
        assert manager.load("x" * 40) is None
    assert count.connections == 1
    assert count.names in (["EVALSHA", "EVAL"], ["EVALSHA"])
    with managers(single_proxy.url) as (manager,), single_proxy.counting() as count:
        assert manager.load("x" * 40) is None
    assert (count.connections, count.round_trips, count.names) == (1, 1, ["EVALSHA"])


def test_the_first_question_of_an_event_loop_is_the_first_thing_it_says(single_proxy: Proxy) -> None:
    manager = AsyncSessionManager.connect(
        Settings(url=single_proxy.url, timeout=PATIENT, connect_timeout=PATIENT)
    )
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


def test_a_server_that_forgot_the_scripts_is_told_each_once(
    framework: str, redis_store: Store, redis_proxy: Proxy
) -> None:
    with instances(framework, redis_proxy.url, idle_timeout=MONTH) as (shop,):
        warm_up(shop.manager)
        cookie = sign_in(shop)
        for port in redis_store.ports:
            redis_store.dialect.command(port, "SCRIPT", "FLUSH")
        with redis_proxy.counting() as count:
            assert shop.ask(put(user="Grace"), cookie).code == 200
        assert count.names == ["EVALSHA", "EVAL"] * 2
        with redis_proxy.counting() as count:
            assert shop.ask(put(user="Ada"), cookie).code == 200
        assert count.names == ["EVALSHA"] * 2


# Idle time


def test_a_read_that_slides_nothing_writes_nothing(framework: str, redis_store: Store) -> None:
    with instances(framework, redis_store.url, idle_timeout=MONTH) as (shop,):
        cookie = sign_in(shop)
        shop.ask(read, cookie)
        ends = redis_store.raw("PEXPIRETIME", key_of(cookie))
        time.sleep(0.01)
        shop.ask(read, cookie)
        assert redis_store.raw("PEXPIRETIME", key_of(cookie)) == ends
