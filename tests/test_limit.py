"""How long an operation waits: TIMEOUT for all of it, CONNECT_TIMEOUT on top where it connects, whatever hangs or drips."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from elasticache_sessions import Session, StoreUnavailable
from elasticache_sessions.clients import network
from elasticache_sessions.limit import EachWait, TimeLimit, Timeouts, running
from tests.support import topologies
from tests.support.dialects import Access
from tests.support.load import (
    PATIENT,
    Manager,
    at_once,
    contents,
    is_read,
    manager_of,
    manager_session,
    once_back,
)
from tests.support.proxy import Proxy
from tests.support.scripts import run
from tests.support.servers import REDIS_7_0, Server
from tests.support.stores import Store

TIMEOUT, CONNECT_TIMEOUT = 0.4, 0.4
# A busy machine is no fault: what is to end within a limit may take so many times as long here.
SLACK = 4

each_kind = pytest.mark.parametrize("kind", ["threads", "asyncio"])


@contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds * SLACK


# The limit itself


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def test_time_runs_only_while_the_store_is_waited_for(clock: Clock) -> None:
    limit = TimeLimit(5, 3)
    for left in (5, 3, 1):
        with limit:
            assert running() is limit and limit.left() == left
            clock.now += 2
        clock.now += 1_000  # the app computes
    with limit:
        assert limit.left() == 0
        with pytest.raises(TimeoutError):
            limit.need()


def test_connecting_has_its_own_time_and_takes_none_of_the_others(clock: Clock) -> None:
    limit = TimeLimit(5, 3)
    with limit:
        clock.now += 4
        with limit.connecting():
            assert limit.left() == 3
            clock.now += 2
        assert limit.left() == 1
        with limit.connecting():
            assert limit.left() == 1
            clock.now += 10
            assert limit.left() == 0
        assert limit.left() == 1
        with limit.connecting():
            assert limit.left() == 0


def test_connecting_within_connecting_has_no_more_time(clock: Clock) -> None:
    """A cluster's first map of slots needs a connection, too."""
    limit = TimeLimit(5, 3)
    with limit:
        with limit.connecting():
            clock.now += 2
            with limit.connecting():
                assert limit.left() == 1
                clock.now += 1
            assert limit.left() == 0
        assert limit.left() == 5


def test_half_leaves_time_for_another_way(clock: Clock) -> None:
    limit = TimeLimit(8, 3)
    with limit:
        with limit.half():
            assert limit.left() == 4
            clock.now += 4
            assert limit.left() == 0
        assert limit.left() == 4
        with limit.half(), limit.connecting():
            clock.now += 3
        assert limit.left() == 4, "what connecting took is not counted"


def test_a_conflict_begins_the_time_anew(clock: Clock) -> None:
    limit = TimeLimit(5, 3)
    with limit:
        clock.now += 4
        limit.renew()
        assert limit.left() == 5


def test_a_search_gives_each_node_all_of_both(clock: Clock) -> None:
    with EachWait(5, 3):
        for _ in range(3):
            with running().connecting():
                assert running().left() == 3
                clock.now += 3
            assert running().left() == 5
            clock.now += 5


def test_what_is_part_of_no_operation_has_a_limit_of_its_own() -> None:
    with Timeouts(5, 3).limited():
        outer = running()
        with Timeouts(50, 30).limited():
            assert running() is outer
    with pytest.raises(LookupError):
        running()


# Against servers


@each_kind
def test_a_reply_that_drips_is_no_reply(proxy: Proxy, kind: str) -> None:
    with manager_of(kind, proxy.url, timeout=TIMEOUT, connect_timeout=PATIENT) as manager:
        stored = once_back(lambda: manager_session(manager, text="x" * 400))
        proxy.drip_replies(0.02)
        with takes_at_most(TIMEOUT), pytest.raises(StoreUnavailable):
            manager.load(stored.id)
        proxy.heal()
        assert once_back(lambda: contents(manager, stored.id)) == {"text": "x" * 400}


@each_kind
def test_an_operation_of_many_commands_has_one_limit(proxy: Proxy, kind: str) -> None:
    """Each reply comes in time, all of them together do not."""
    with manager_of(kind, proxy.url, timeout=PATIENT, connect_timeout=PATIENT) as patient:
        stored = manager_session(patient, user="Ada")
    with manager_of(kind, proxy.url, timeout=1.0, connect_timeout=PATIENT) as manager:
        proxy.delay_replies(0.6)
        with pytest.raises(StoreUnavailable):
            manager.end(stored.id or "")  # a read and a write


@each_kind
def test_what_apply_computes_is_no_time_of_the_stores(networked_store: Store, kind: str) -> None:
    with manager_of(kind, networked_store.url, timeout=1.0, connect_timeout=PATIENT) as manager:
        stored = once_back(lambda: manager_session(manager, count=0))

        def change(fields: dict[str, int]) -> None:
            time.sleep(1.1)
            fields["count"] += 1

        manager.apply(stored, change)
        assert contents(manager, stored.id) == {"count": 1}


@each_kind
def test_a_new_session_finds_another_node_while_one_hangs(kind: str) -> None:
    with (
        topologies.nodes(3) as nodes,
        manager_of(kind, nodes.url, timeout=1.0, connect_timeout=PATIENT) as manager,
    ):
        nodes.nodes[0].pause()
        for number in range(12):
            session = manager_session(manager, number=number)
            assert contents(manager, session.id) == {"number": number}


# Names


class Names:
    """The system's resolver, which knows one more name: `cache.test`, to be slow about or to change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses = ["127.0.0.1"]
        self.go_on = threading.Event()
        self.go_on.set()
        self.also = ""
        self.asked, self.began, self.takes = 0, threading.Event(), 0.0
        known = socket.getaddrinfo

        def getaddrinfo(host: str, port: int, *arguments: int, **options: int) -> list[object]:
            if not str(host).endswith("cache.test") and host != self.also:
                return known(host, port, *arguments, **options)  # type: ignore[return-value]
            self.asked += 1
            self.began.set()
            self.go_on.wait(PATIENT)
            time.sleep(self.takes)
            return [
                found for address in self.addresses for found in known(address, port, *arguments, **options)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names(monkeypatch)
    yield made
    made.go_on.set()
    deadline = time.monotonic() + PATIENT
    while network._lookups and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture(params=["valkey-9.1", "cluster", "memcached"])
def one_of_each_kind(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Store:
    return give_store(request.param)


def by_name(store: Store, name: str = "cache.test") -> str:
    return store.url.replace("127.0.0.1", name)


@each_kind
def test_a_name_that_resolves_slowly_costs_connect_timeout_and_heals(
    one_of_each_kind: Store, names: Names, kind: str
) -> None:
    names.go_on.clear()
    with manager_of(
        kind, by_name(one_of_each_kind), timeout=PATIENT, connect_timeout=CONNECT_TIMEOUT
    ) as manager:
        with takes_at_most(CONNECT_TIMEOUT), pytest.raises(StoreUnavailable):
            manager.load("x" * 40)
        names.go_on.set()
        assert once_back(lambda: manager.load("x" * 40)) is None


def test_look_ups_that_hang_are_shared_and_bounded(single_store: Store, names: Names) -> None:
    names.go_on.clear()
    before = threading.active_count()

    def ask(name: str) -> None:
        with (
            manager_of("threads", by_name(single_store, name), timeout=0.1, connect_timeout=0.1) as manager,
            pytest.raises(StoreUnavailable),
        ):
            manager.load("x" * 40)

    at_once(*[lambda: ask("cache.test")] * 8)
    assert names.asked == 1
    for number in range(12):
        ask(f"{number}.cache.test")
    assert names.asked == 8
    assert threading.active_count() - before <= 8
    url = by_name(single_store, "one-too-many.cache.test")
    with manager_of("threads", url, timeout=PATIENT, connect_timeout=0.1) as manager:
        with pytest.raises(StoreUnavailable, match="check this machine's DNS"):
            manager.load("x" * 40)
        names.go_on.set()
        assert once_back(lambda: manager.load("x" * 40)) is None, "its turn has come"
    names.go_on.clear()
    with manager_of("threads", single_store.url) as manager:
        assert manager.load("x" * 40) is None, "an address needs no look-up"


def test_more_names_than_threads_wait_for_their_turn(single_store: Store, names: Names) -> None:
    names.takes = 0.05

    def ask(name: str) -> None:
        url = by_name(single_store, name)
        with manager_of("threads", url, timeout=PATIENT, connect_timeout=PATIENT) as manager:
            assert manager.load("x" * 40) is None

    at_once(*[lambda number=number: ask(f"{number}.cache.test") for number in range(24)])
    assert names.asked == 24


def test_tasks_do_not_cancel_the_look_up_of_others(single_store: Store, names: Names) -> None:
    names.go_on.clear()

    async def main() -> None:
        asking = [asyncio.create_task(network._addresses_async("cache.test", 1)) for _ in range(3)]
        await asyncio.to_thread(names.began.wait, PATIENT)
        asking[0].cancel()
        await asyncio.sleep(0)
        names.go_on.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert all(isinstance(answer, list) for answer in answers[1:])

    with TimeLimit(PATIENT, PATIENT):
        asyncio.run(main())
    assert names.asked == 1


@each_kind
def test_the_next_address_of_a_name_is_tried(one_of_each_kind: Store, names: Names, kind: str) -> None:
    names.addresses = ["127.0.0.2", "127.0.0.1"]  # nobody listens on the first
    with manager_of(kind, by_name(one_of_each_kind), timeout=PATIENT, connect_timeout=PATIENT) as manager:
        assert contents(manager, manager_session(manager, user="Ada").id) == {"user": "Ada"}


@each_kind
def test_an_address_that_swallows_everything_leaves_time_for_the_next(
    give_store: Callable[[str], Store], names: Names, kind: str
) -> None:
    store = give_store("valkey-9.1")
    with socket.socket() as full:
        # A backlog that is full, so that nobody's SYN is answered.
        full.bind(("127.0.0.2", store.ports[0]))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.2", store.ports[0]))
        names.addresses = ["127.0.0.2", "127.0.0.1"]
        with manager_of(kind, by_name(store), timeout=PATIENT, connect_timeout=2.0) as manager:
            assert contents(manager, manager_session(manager, user="Ada").id) == {"user": "Ada"}
        for each in waiting:
            each.close()


def test_a_child_looks_up_for_itself_what_its_parent_was_looking_up(single_store: Store) -> None:
    script = """
        import os, socket, sys, threading
        from elasticache_sessions import *
        known, parent, asked = socket.getaddrinfo, os.getpid(), threading.Event()
        def getaddrinfo(host, *arguments, **options):
            if host == "cache.test":
                asked.set()
                if os.getpid() == parent:
                    threading.Event().wait(20)
                host = "127.0.0.1"
            return known(host, *arguments, **options)
        socket.getaddrinfo = getaddrinfo
        manager = SessionManager.connect(Settings(url=sys.argv[1], timeout=10, connect_timeout=10))
        def ask():
            try:
                manager.load("x" * 40)
            except StoreUnavailable:
                pass
        threading.Thread(target=ask, daemon=True).start()
        asked.wait()
        if os.fork() == 0:
            print(manager.load("x" * 40), flush=True)
            os._exit(0)
        os.wait()
        os._exit(0)
    """
    assert run(script, by_name(single_store)).strip() == "None"


def test_a_session_is_not_stored_twice_by_a_write_that_was_sent_again(proxy: Proxy) -> None:
    """A limit that ends between two sendings leaves the record as it is, or once changed."""
    with manager_of("threads", proxy.url, timeout=PATIENT, connect_timeout=PATIENT) as patient:
        stored: Session = manager_session(patient, count=0)
        session_id = stored.id
    with manager_of("threads", proxy.url, timeout=0.3, connect_timeout=PATIENT) as manager:
        outcomes = [_add_one(manager, session_id, proxy) for _ in range(4)]
        proxy.heal()
        found = once_back(lambda: contents(manager, session_id))
    assert found is not None and outcomes.count(True) <= found["count"] <= 4


def _add_one(manager: Manager, session_id: str | None, proxy: Proxy) -> bool:
    with suppress(StoreUnavailable):
        session = once_back(lambda: manager.load(session_id))
        assert session is not None
        proxy.lose_reply(times=2)
        manager.apply(session, lambda fields: fields.update(count=fields["count"] + 1))
        return True
    return False


@each_kind
def test_an_address_that_hangs_in_tls_leaves_time_for_the_next(names: Names, kind: str) -> None:
    with Server(REDIS_7_0, access=Access(tls=True)) as server, socket.socket() as silent:
        silent.bind(("127.0.0.2", server.port))
        silent.listen(16)
        names.addresses, names.also = ["127.0.0.2", "127.0.0.1"], "localhost"
        url = server.url.replace("127.0.0.1", "localhost")
        with manager_of(kind, url, timeout=PATIENT, connect_timeout=4.0) as manager:
            assert contents(manager, manager_session(manager, user="Ada").id) == {"user": "Ada"}


@each_kind
def test_a_new_session_finds_another_node_while_one_swallows_connections(kind: str) -> None:
    with topologies.nodes(2) as nodes, socket.socket() as full:
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.2", port))
        url = f"memcached://127.0.0.2:{port}," + ",".join(f"127.0.0.1:{node.port}" for node in nodes.nodes)
        with manager_of(kind, url, timeout=PATIENT, connect_timeout=1.0) as manager:
            for number in range(12):
                session = manager_session(manager, number=number)
                assert contents(manager, session.id) == {"number": number}
        for each in waiting:
            each.close()


def test_without_hiredis_it_works_as_well(single_store: Store) -> None:
    script = """
        import sys
        sys.modules["hiredis"] = None
        from elasticache_sessions import *
        manager = SessionManager.connect(Settings(url=sys.argv[1], timeout=10, connect_timeout=10))
        for _ in range(3):
            session = Session()
            session.fields["user"] = "Ada"
            manager.save(session)
            print(manager.load(session.id).fields["user"])
        async def main():
            manager = AsyncSessionManager.connect(Settings(url=sys.argv[1], timeout=10, connect_timeout=10))
            print((await manager.load(session.id)).fields["user"])
        import asyncio
        asyncio.run(main())
    """
    assert run(script, single_store.url).split() == ["Ada"] * 4


def test_without_hiredis_a_reply_that_nobody_asked_for_is_given_to_nobody(single_proxy: Proxy) -> None:
    script = """
        import sys
        sys.modules["hiredis"] = None
        from elasticache_sessions import *
        manager = SessionManager.connect(Settings(url=sys.argv[1], timeout=10, connect_timeout=10))
        session = Session()
        session.fields["user"] = "Ada"
        manager.save(session)
        print(manager.load("A" * len(session.id)))  # its reply comes twice
        print(manager.load(session.id).fields["user"])
    """
    single_proxy.replace_reply(b"$-1\r\n$-1\r\n", when=is_read)
    assert run(script, single_proxy.url).split() == ["None", "Ada"]
