"""The pool of connections to one Memcached node, by itself: whom it gives what, and what a fork leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from elasticache_sessions import StoreUnavailable
from elasticache_sessions.clients.pool import Pool
from elasticache_sessions.limit import TimeLimit
from tests.support.load import at_once
from tests.support.scripts import run
from tests.support.stores import Store


@pytest.fixture(autouse=True)
def impatience() -> Iterator[None]:
    """Nobody waits for a connection."""
    with TimeLimit(0, 0):
        yield


class Thing:
    """What a pool holds, without a network."""

    def __init__(self) -> None:
        self.is_usable = True

    def close(self) -> None:
        self.is_usable = False


class Maker:
    """Makes things, and keeps them; fails as often as it is told to."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.made: list[Thing] = []

    def __call__(self) -> Thing:
        if self.failures:
            raise self.failures.pop()
        self.made.append(Thing())
        return self.made[-1]


def test_the_one_that_came_back_last_is_given_first() -> None:
    make = Maker()
    pool = Pool(make, 3)
    with pool.connection() as one, pool.connection() as two:
        assert one is not two
    for _ in range(3):
        with pool.connection() as again:
            assert again is one
    assert len(make.made) == 2


def test_what_does_not_work_any_more_is_closed_and_left_out() -> None:
    make = Maker()
    pool = Pool(make, 3)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(pool.connection())
    for thing in make.made[:2]:
        thing.close()
    with pool.connection() as left, pool.connection() as new:
        assert left is make.made[2]
        assert new is make.made[3]


def test_there_are_never_more_than_its_size_however_many_ask() -> None:
    make = Maker()
    pool = Pool(make, 3)
    out, most, lock = [0], [0], threading.Lock()

    def work() -> None:
        for _ in range(50):
            with TimeLimit(30, 30), pool.connection() as thing:
                assert thing.is_usable
                with lock:
                    out[0] += 1
                    most[0] = max(most[0], out[0])
                with lock:
                    out[0] -= 1

    at_once(*[work] * 8)
    assert len(make.made) <= 3
    assert most[0] <= 3


def test_a_place_is_free_again_whatever_happened_on_it() -> None:
    failures = (StoreUnavailable("refused"), SystemExit("a greenlet is killed while it connects"))
    make = Maker(*failures)
    pool = Pool(make, 1)
    for _ in failures:
        with pytest.raises((StoreUnavailable, SystemExit), match=r"refused|killed"), pool.connection():
            pass
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), pool.connection() as thing:
            raise error
        assert not thing.is_usable, "a reply may be on its way"
    with pool.connection(), pytest.raises(StoreUnavailable, match="is busy"), pool.connection():
        pass
    with pool.connection() as thing:
        assert thing is make.made[-1]
    assert len(make.made) == 4


def test_who_is_killed_while_he_looks_at_one_leaves_it_closed() -> None:
    """With gevent, looking whether something waits to be read lets others go on."""

    class Watched:
        closed = killing = False

        @property
        def is_usable(self) -> bool:
            if self.killing:
                raise SystemExit
            return not self.closed

        def close(self) -> None:
            self.closed = True

    pool = Pool(Watched, 1)
    with pool.connection() as first:
        pass
    first.killing = True
    with pytest.raises(SystemExit), pool.connection():
        pass
    assert first.closed
    with pool.connection() as second:
        assert second is not first


def test_closing_closes_what_is_there_at_once_and_what_is_on_loan_when_it_comes_back() -> None:
    make = Maker()
    pool = Pool(make, 2)
    with pool.connection() as lent:
        with pool.connection() as idle:
            pass
        pool.close()
        assert (idle.is_usable, lent.is_usable) == (False, True)
    assert not lent.is_usable
    with pool.connection() as new:
        assert new is make.made[2] and new.is_usable


def test_a_child_closes_its_copies_and_the_parent_goes_on_with_its_own(
    give_store: Callable[[str], Store],
) -> None:
    script = """
        import os, stat, sys
        from contextlib import suppress
        from elasticache_sessions import *
        def sockets():
            found = set()
            for number in range(256):
                with suppress(OSError):
                    if stat.S_ISSOCK((status := os.fstat(number)).st_mode):
                        found.add(status.st_ino)
            return found
        before = sockets()
        manager = SessionManager.connect(Settings(url=sys.argv[1], timeout=10))
        assert manager.load("x" * 40) is None
        [parents] = sockets() - before
        pid = os.fork()
        if pid == 0:
            try:
                assert sockets() - before == {parents}
                assert manager.load("x" * 40) is None
                [mine] = sockets() - before
                assert mine != parents
                manager.close()
                assert sockets() == before
            except BaseException:
                import traceback; traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert manager.load("x" * 40) is None
        assert sockets() - before == {parents}
        print("well")
    """
    assert run(script, give_store("memcached").url) == "well\n"


def test_a_greenlet_that_is_killed_while_it_waits_takes_no_place_with_it() -> None:
    script = """
        from gevent import monkey; monkey.patch_all()
        import gevent
        from elasticache_sessions.clients.pool import Pool
        from elasticache_sessions.limit import TimeLimit
        class Thing:
            is_usable = True
            def close(self): pass
        pool = Pool(Thing, 4)
        def work():
            with TimeLimit(10, 10), pool.connection():
                gevent.sleep(0.002)
        for _ in range(40):
            working = [gevent.spawn(work) for _ in range(20)]
            gevent.sleep(0.001)
            gevent.killall(working[::2], block=False)
            gevent.joinall(working)
        with TimeLimit(1, 1), pool.connection(), pool.connection(), pool.connection(), pool.connection():
            print("four")
    """
    assert run(script).split() == ["four"]
