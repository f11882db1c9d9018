"""Fixtures for every test: real servers, started when a test first asks for one, and gone when the run is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from elasticache_sessions import operation
from elasticache_sessions.clients import breaker
from tests.support import stores
from tests.support.instances import FRAMEWORKS
from tests.support.leaks import IDS, Watch
from tests.support.proxy import Proxy
from tests.support.servers import VALKEY_9_1, Server
from tests.support.stores import Store

# An example may talk to a server, so none has a deadline. CI tries the same examples each time: what it finds belongs to
# the change before it; at a desk each run tries others. No database: a failure prints the line that repeats it.
_common = hypothesis.settings(
    deadline=None, database=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.register_profile("default", _common, max_examples=50, stateful_step_count=30)
hypothesis.settings.register_profile("few", _common, max_examples=15, stateful_step_count=20)
hypothesis.settings.register_profile("long", _common, max_examples=300, stateful_step_count=60)
hypothesis.settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    usual = ",".join(name for name in stores.ALL if name not in stores.TOPOLOGIES + stores.BY_NOX)
    parser.addoption(
        "--stores",
        default=usual,
        help="only these: %(default)s; or 'topologies', and no test that takes no store: "
        + ", ".join(stores.TOPOLOGIES),
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of stores that were not asked for."""
    asked = config.getoption("--stores")
    wanted = stores.TOPOLOGIES if asked == "topologies" else (None, *asked.split(","))
    if unknown := set(wanted) - {None, *stores.ALL}:
        raise pytest.UsageError(
            f"--stores: {', '.join(map(str, unknown))} is none of {', '.join(stores.ALL)}"
        )
    left_out = [item for item in items if _store_of(item) not in wanted or _is_the_same_on_one_node(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_the_same_on_one_node(item: pytest.Item) -> bool:
    """Whether a test is of something to which it is all one on how many nodes a session is, so that one node will do."""
    return (_store_of(item) in ("memcached-copies", "memcached-3") and item.path.stem in _OF_ONE_NODE) or (
        _store_of(item) == "memcached-3" and item.path.stem in _OF_COPIES
    )


_OF_ONE_NODE = {
    "test_cookies",
    "test_django_contrib",
    "test_django_serializer",
    "test_flask_streaming",
    "test_storage",
}
# With two copies on three nodes, among the topologies.
_OF_COPIES = {
    "test_apply_concurrency",
    "test_concurrency",
    "test_django_lifetimes",
    "test_django_outage",
    "test_ended_elsewhere",
    "test_flask_outage",
    "test_lost_replies",
    "test_lost_replies_of_new_ids",
    "test_outage_policy",
    "test_shared_sessions",
    "test_sliding",
}


def _store_of(item: pytest.Item) -> object:
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return next(
        (params[name] for name in ("store", "networked_store", "redis_store") if name in params), None
    )


IDS.remember()


@pytest.fixture(autouse=True)
def no_id_is_logged() -> Iterator[Watch]:
    """Whatever a test does, our loggers show no id."""
    watch, logger = Watch(), logging.getLogger("elasticache_sessions")
    logger.addHandler(watch)
    yield watch
    logger.removeHandler(watch)
    assert watch.found == []


@pytest.fixture(scope="session")
def give_store() -> Iterator[Callable[[str], Store]]:
    """Gives a store by name, emptied. Each xdist worker has servers of its own."""
    with stores.store_factory() as give:
        yield give


@pytest.fixture(params=stores.ALL)
def store(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Store:
    """Each store in turn, empty."""
    return give_store(request.param)


@pytest.fixture(params=stores.NETWORKED)
def networked_store(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Store:
    """Each store behind a network in turn, empty."""
    return give_store(request.param)


@pytest.fixture(params=stores.REDIS)
def redis_store(request: pytest.FixtureRequest, give_store: Callable[[str], Store]) -> Store:
    """Each Redis and Valkey in turn, empty: where their scripts or their commands are looked at."""
    return give_store(request.param)


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    """Each framework in turn: for `instances(framework, …)`."""
    return str(request.param)


@pytest.fixture
def single_store(give_store: Callable[[str], Store]) -> Store:
    """Valkey 9.1, empty: where one store shows it."""
    return give_store("valkey-9.1")


@pytest.fixture
def proxy(networked_store: Store) -> Iterator[Proxy]:
    """A proxy before each store behind a network in turn."""
    with Proxy(*networked_store.ports, dialect=networked_store.dialect) as proxy:
        yield proxy


@pytest.fixture
def one_copy(networked_store: Store) -> None:
    """For tests that count the commands of one node. What becomes of the two halves of a write: test_memcached_model.py and
    test_memcached_flight.py.
    """
    if networked_store.dialect.copies > 1:
        pytest.skip("a write is a command to each of two nodes here, and this counts commands")


@pytest.fixture
def redis_proxy(redis_store: Store) -> Iterator[Proxy]:
    """A proxy before each Redis and Valkey in turn."""
    with Proxy(*redis_store.ports, dialect=redis_store.dialect) as proxy:
        yield proxy


@pytest.fixture
def single_proxy(single_store: Store) -> Iterator[Proxy]:
    """A proxy before Valkey 9.1."""
    with Proxy(*single_store.ports) as proxy:
        yield proxy


@pytest.fixture
def never_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that failed may be asked again at once, and is, three times, without a pause: for tests of what a failure does,
    and what is there after it.
    """
    monkeypatch.setattr(operation, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(breaker, "LONGEST_PAUSE", 0.0)


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A Valkey 9.1 of the test's own, to stop, pause and start."""
    with Server(VALKEY_9_1) as server:
        yield server
