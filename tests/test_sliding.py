"""What a read stretches, and what it never does, on each store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from elasticache_sessions.session import handle_of
from tests.support.instances import Instance, View, instances
from tests.support.stores import LOOKING, Store

READS: dict[str, View] = {"read": dict, "refresh": lambda visit: None}
looking = pytest.mark.parametrize("store", LOOKING, indirect=True)
"""Where a touch is blind, only the record says when a session ends: see test_memcached_lifetimes."""
reading = pytest.mark.parametrize("read", READS.values(), ids=READS.keys())


@pytest.fixture
def both(framework: str, store: Store) -> Iterator[tuple[Instance, Instance]]:
    """Sessions of the first instance end 100 s after they were used, those of the other after 1,000 s."""
    with ExitStack() as stack:
        short, long = (
            stack.enter_context(instances(framework, store.url, refreshing=True, idle_timeout=seconds))[0]
            for seconds in (100, 1_000)
        )
        yield short, long


def sign_in(shop: Instance) -> str:
    return shop.ask(lambda visit: [visit.update(a=1), visit.keep()]).cookie or ""


def key_of(cookie: str) -> bytes:
    return f"sess:{handle_of(cookie.removesuffix('.p'))}".encode()


@reading
def test_a_read_stretches_a_session(both: tuple[Instance, Instance], store: Store, read: View) -> None:
    short, long = both
    cookie = sign_in(short)
    assert 98 <= (store.ttl(key_of(cookie)) or 0) <= 100
    assert long.ask(read, cookie).cookie == cookie
    assert 998 <= (store.ttl(key_of(cookie)) or 0) <= 1_000


@looking
@reading
def test_a_read_never_stretches_a_tombstone(
    both: tuple[Instance, Instance], store: Store, read: View
) -> None:
    short, long = both
    cookie = sign_in(short)
    key = key_of(cookie)
    short.ask(lambda visit: visit.logout(), cookie)
    tombstone = store.get(key)
    assert tombstone is not None
    assert long.ask(read, cookie).cookie is None
    assert 98 <= (store.ttl(key) or 0) <= 100
    assert store.get(key) == tombstone


@looking
@reading
def test_a_read_never_stretches_a_session_past_its_end(framework: str, store: Store, read: View) -> None:
    ends = {"absolute_timeout": 50}
    with (
        instances(framework, store.url, refreshing=True, idle_timeout=10, **ends) as (short,),
        instances(framework, store.url, refreshing=True, idle_timeout=1_000, **ends) as (long,),
    ):
        cookie = sign_in(short)
        assert 8 <= (store.ttl(key_of(cookie)) or 0) <= 10
        assert long.ask(read, cookie).cookie == cookie
        assert 48 <= (store.ttl(key_of(cookie)) or 0) <= 50


@looking
@reading
def test_a_session_with_a_lifetime_of_its_own_slides_by_that(
    both: tuple[Instance, Instance], store: Store, read: View
) -> None:
    _, long = both
    cookie = long.ask(lambda visit: [visit.update(a=1), visit.keep(), visit.expire_after(300)]).cookie or ""
    assert 298 <= (store.ttl(key_of(cookie)) or 0) <= 300
    assert long.ask(read, cookie).cookie == cookie
    assert 298 <= (store.ttl(key_of(cookie)) or 0) <= 300
