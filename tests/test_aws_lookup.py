"""`elasticache://name`: what AWS says of the cache, and what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.stub import Stubber
from django.core.management import call_command
from django.http import HttpRequest

from elasticache_sessions import (
    AsyncSessionManager,
    ConfigurationError,
    SessionManager,
    Settings,
    StoreUnavailable,
)
from elasticache_sessions.clients import aws_lookup
from elasticache_sessions.endpoint import Endpoint
from tests.support import aws_api
from tests.support.aws import KEYS, REGION, isolate, with_keys
from tests.support.aws_answers import cluster, group, place, serverless, sharded
from tests.support.aws_api import Api, error
from tests.support.demo import wait_until
from tests.support.discovery import DiscoveryEndpoint
from tests.support.django_pages import Site as DjangoSite, session_of
from tests.support.flask_apps import Site as FlaskSite
from tests.support.load import PATIENT, OnLoop, at_once, contents, stored_id
from tests.support.servers import free_port
from tests.support.stores import Store

NOWHERE = "ReplicationGroupNotFoundFault", "ServerlessCacheNotFoundFault", "CacheClusterNotFound"


@contextmanager
def api(*answers: dict[str, Any] | tuple[str, int]) -> Iterator[Any]:
    """botocore's client, which gives these answers in turn (a cache, or an error's code and status), and no other.

    The stub holds questions and answers against AWS's own description of the service.
    """
    client = _client()
    questions = (
        ("describe_replication_groups", "ReplicationGroups", {"ReplicationGroupId": "shop"}),
        ("describe_serverless_caches", "ServerlessCaches", {"ServerlessCacheName": "shop"}),
        ("describe_cache_clusters", "CacheClusters", {"CacheClusterId": "shop", "ShowCacheNodeInfo": True}),
    )
    with Stubber(client) as stubber:
        for (operation, members, expected), answer in zip(questions, answers, strict=False):
            if isinstance(answer, dict):
                stubber.add_response(operation, {members: [answer]}, expected)
            else:
                code, status = answer
                stubber.add_client_error(operation, code, "so it is", status, expected_params=expected)
        yield client
        stubber.assert_no_pending_responses()


@cache
def _client() -> Any:
    keys = {"aws_access_key_id": KEYS[0], "aws_secret_access_key": KEYS[1]}
    return botocore.session.get_session().create_client("elasticache", REGION, **keys)


def missing(kinds: int) -> list[tuple[str, int]]:
    return [(code, 404) for code in NOWHERE[:kinds]]


def found(url: str, *answers: dict[str, Any] | tuple[str, int]) -> str:
    with api(*answers) as client:
        return aws_lookup.found(client, Endpoint.from_url(url))


PLAIN = f"elasticache://shop?region={REGION}"
IAM = f"{PLAIN}&iam_user=app"
AS_APP = f"iam_user=app&iam_cache=shop&region={REGION}"


@pytest.mark.parametrize(
    ("url", "kind", "described", "becomes"),
    [
        (PLAIN, 0, group(), "valkeys://master.shop.abc123.euc1.cache.amazonaws.com:6379"),
        (
            PLAIN,
            0,
            group(Engine="redis", TransitEncryptionEnabled=False),
            "redis://master.shop.abc123.euc1.cache.amazonaws.com:6379",
        ),
        (PLAIN, 0, sharded(), "valkeys://clustercfg.shop.abc123.euc1.cache.amazonaws.com:6379?cluster=true"),
        (
            "elasticache://:s%40cret@shop",
            0,
            group(AuthTokenEnabled=True, Status="modifying"),
            "valkeys://:s%40cret@master.shop.abc123.euc1.cache.amazonaws.com:6379",
        ),
        (
            "elasticache://app:secret@shop",
            0,
            sharded(UserGroupIds=["users"]),
            "valkeys://app:secret@clustercfg.shop.abc123.euc1.cache.amazonaws.com:6379?cluster=true",
        ),
        (
            IAM,
            0,
            sharded(UserGroupIds=["users"]),
            f"valkeys://clustercfg.shop.abc123.euc1.cache.amazonaws.com:6379?cluster=true&{AS_APP}",
        ),
        (PLAIN, 1, serverless(), "valkeys://shop-abc123.serverless.euc1.cache.amazonaws.com:6379"),
        (
            IAM,
            1,
            serverless(UserGroupId="users", Engine="redis", Status="AVAILABLE"),
            f"rediss://shop-abc123.serverless.euc1.cache.amazonaws.com:6379?serverless=true&{AS_APP}",
        ),
        (
            PLAIN,
            1,
            serverless(Engine="memcached", Endpoint=place("shop-abc123.serverless.euc1", 11211)),
            "memcached://shop-abc123.serverless.euc1.cache.amazonaws.com:11211?tls=true",
        ),
        (PLAIN, 2, cluster(), "memcached+discovery://shop.abc123.cfg.euc1.cache.amazonaws.com:11211"),
        (
            f"{PLAIN}&copies=2&handover=0&discovery_interval=5",
            2,
            cluster(nodes=1, TransitEncryptionEnabled=True),
            (
                "memcached+discovery://shop.abc123.cfg.euc1.cache.amazonaws.com:11211"
                "?copies=2&discovery_interval=5.0&handover=0&tls=true"
            ),
        ),
        (PLAIN, 2, cluster("redis", 1), "redis://shop.abc123.0001.euc1.cache.amazonaws.com:6379"),
        (
            "elasticache://:token@shop",
            2,
            cluster("redis", 1, AuthTokenEnabled=True, TransitEncryptionEnabled=True),
            "rediss://:token@shop.abc123.0001.euc1.cache.amazonaws.com:6379",
        ),
    ],
)
def test_a_cache_becomes_the_url_that_says_the_same(
    url: str, kind: int, described: dict[str, Any], becomes: str
) -> None:
    assert found(url, *missing(kind), described) == becomes


@pytest.mark.parametrize(
    ("url", "kind", "described", "error", "says"),
    [
        (
            PLAIN,
            0,
            group(AuthTokenEnabled=True),
            ConfigurationError,
            r"AUTH token. Write elasticache://:token@shop",
        ),
        (PLAIN, 0, group(UserGroupIds=["users"]), ConfigurationError, "Add iam_user=… .*user:password@shop"),
        (IAM, 0, group(), ConfigurationError, "no user group. Give it one that holds the user 'app'"),
        (
            IAM,
            0,
            group(UserGroupIds=["users"], TransitEncryptionEnabled=False),
            ConfigurationError,
            "no encryption in transit",
        ),
        (PLAIN, 0, group(Status="creating"), StoreUnavailable, "its status is 'creating'. Try again when"),
        (PLAIN, 0, group(Status="deleting"), StoreUnavailable, "its status is 'deleting'"),
        (PLAIN, 0, group(NodeGroups=[]), StoreUnavailable, "no endpoint yet"),
        (PLAIN, 1, serverless(UserGroupId="users"), ConfigurationError, "Add iam_user=…"),
        (IAM, 1, serverless(), ConfigurationError, "no user group"),
        (PLAIN, 1, serverless(Status="CREATE-FAILED"), StoreUnavailable, "'CREATE-FAILED'"),
        (
            "elasticache://:pw@shop",
            1,
            serverless(Engine="memcached"),
            ConfigurationError,
            "takes no user and no",
        ),
        (IAM, 2, cluster(), ConfigurationError, "is Memcached, which takes no user"),
        (IAM, 2, cluster("redis", 1), ConfigurationError, "no user group"),
        (PLAIN, 2, cluster("redis", 1, AuthTokenEnabled=True), ConfigurationError, "AUTH token"),
        (
            PLAIN,
            2,
            cluster("redis", 1, ReplicationGroupId="group-1"),
            ConfigurationError,
            "one node of the replication group 'group-1'.*Write elasticache://group-1",
        ),
        (PLAIN, 2, cluster(CacheClusterStatus="deleted"), StoreUnavailable, "'deleted'"),
        (PLAIN, 2, cluster("redis", nodes=0), StoreUnavailable, "no endpoint yet"),
        (PLAIN, 2, cluster(ConfigurationEndpoint={}), StoreUnavailable, "no endpoint yet"),
        (
            f"{PLAIN}&copies=2&handover=60",
            0,
            group(),
            ConfigurationError,
            "has copies=2, handover=60 for Memcached, and the cache 'shop' is none. Remove it",
        ),
        (
            f"{PLAIN}&discovery_interval=5",
            2,
            cluster("redis", 1),
            ConfigurationError,
            "discovery_interval=5.0 for",
        ),
        (
            f"{PLAIN}&copies=2",
            1,
            serverless(Engine="memcached"),
            ConfigurationError,
            f"is Serverless Memcached.*Write elasticache://shop.region={REGION}, without copies=2",
        ),
    ],
)
def test_a_cache_that_does_not_fit_is_refused_with_what_to_do(
    url: str, kind: int, described: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        found(url, *missing(kind), described)


# Asking


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    """The API, as botocore finds it."""
    with aws_api.serving() as api:
        with_keys(monkeypatch, tmp_path)
        monkeypatch.setenv("AWS_ENDPOINT_URL_ELASTICACHE", api.url)
        monkeypatch.setattr(aws_lookup, "_known", {})
        yield api
    wait_until(lambda: not aws_lookup._under_way, PATIENT, "nobody asks any more")


GROUPS, SERVERLESS, CLUSTERS = (
    "DescribeReplicationGroups",
    "DescribeServerlessCaches",
    "DescribeCacheClusters",
)


def settings(url: str = PLAIN, **others: Any) -> Settings:
    return Settings(url=url, **({"timeout": PATIENT, "connect_timeout": PATIENT} | others))


def test_the_cache_is_looked_up_once_in_a_process_for_threads_and_event_loops(
    service: Api, single_store: Store
) -> None:
    service.answers[GROUPS] = aws_api.group(single_store.ports[0])
    made = at_once(*[lambda: SessionManager.connect(settings())] * 8)
    loops = OnLoop(AsyncSessionManager.connect(settings()))
    assert contents(loops, stored_id(made[0], n=1)) == {"n": 1}
    assert service.asked == [GROUPS]
    for manager in (*made, loops):
        manager.close()


def test_memcached_that_is_found_is_held_to_its_rules(service: Api, give_store: Any) -> None:
    with DiscoveryEndpoint(*give_store("memcached").ports) as endpoint:
        service.answers[CLUSTERS] = aws_api.memcached(endpoint.port)
        manager = SessionManager.connect(settings())
        assert manager.rules.blind_touch
        assert contents(manager, stored_id(manager, n=1)) == {"n": 1}
        manager.close()
        assert AsyncSessionManager.connect(settings()).rules.blind_touch
        assert service.asked == [GROUPS, SERVERLESS, CLUSTERS]
        assert endpoint.asked
        with pytest.raises(ConfigurationError, match="PREFIX cannot begin a key of Memcached"):
            SessionManager.connect(settings(prefix="my shop:"))


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (
            error("AccessDenied", 403),
            ConfigurationError,
            "does not allow it.*elasticache:DescribeServerlessCaches",
        ),
        (
            error("InvalidClientTokenId", 403),
            ConfigurationError,
            "refused.*Check the region, and the AWS cred",
        ),
        (error("ExpiredToken", 403), StoreUnavailable, "credentials have expired"),
        ((200, "<html>a proxy"), StoreUnavailable, "could not be asked"),
        (
            error("ReplicationGroupNotFoundFault", 404),
            ConfigurationError,
            f"no replication .* 'shop' in {REGION}",
        ),
    ],
)
def test_what_aws_refuses_is_told_and_asked_anew_next_time(
    service: Api, single_store: Store, answer: aws_api.Answer, kind: type[Exception], says: str
) -> None:
    service.answers[GROUPS] = answer
    with pytest.raises(kind, match=says):
        SessionManager.connect(settings())
    service.answers[GROUPS] = aws_api.group(single_store.ports[0])
    manager = SessionManager.connect(settings())
    assert stored_id(manager, n=1)
    manager.close()


def test_what_is_throttled_is_asked_again_a_little(service: Api) -> None:
    service.answers[GROUPS] = error("Throttling", message="Rate exceeded")
    with pytest.raises(StoreUnavailable, match=r"too busy.*Rate exceeded.*Try again") as failed:
        SessionManager.connect(settings())
    assert failed.value.retry and not failed.value.sent
    assert service.asked == [GROUPS] * 3


def test_an_api_that_hangs_holds_up_nobody_for_long_and_its_late_answer_counts(
    service: Api, single_store: Store
) -> None:
    service.answers[GROUPS] = aws_api.group(single_store.ports[0])
    service.flowing.clear()
    hurried = settings(connect_timeout=0.2)
    with pytest.raises(StoreUnavailable, match="did not say in time"):
        SessionManager.connect(hurried)
    wait_until(lambda: service.asked, PATIENT, "it is asked")
    service.flowing.set()
    wait_until(lambda: aws_lookup._known, PATIENT, "who asked has the answer")
    asked = len(service.asked)
    SessionManager.connect(hurried).close()
    assert len(service.asked) == asked


def test_an_api_that_hangs_does_not_hold_up_an_event_loop_again_and_again(
    service: Api, single_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers[GROUPS] = aws_api.group(single_store.ports[0])
    service.flowing.clear()
    monkeypatch.setattr(aws_lookup, "FAILURE_HOLDS", PATIENT)
    monkeypatch.setattr(aws_lookup, "_slow_until", {})

    async def ask(connect_timeout: float) -> float:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="did not say in time"):
            SessionManager.connect(settings(connect_timeout=connect_timeout))
        return time.monotonic() - began

    asyncio.run(ask(0.2))
    assert asyncio.run(ask(PATIENT)) < PATIENT / 2
    service.flowing.set()
    wait_until(lambda: aws_lookup._known, PATIENT, "who asked has the answer")
    SessionManager.connect(settings()).close()


def test_an_api_that_is_not_there_is_told(service: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_ELASTICACHE", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(
        StoreUnavailable, match=r"could not be asked.*VPC endpoint.*cache's endpoint into the URL"
    ):
        SessionManager.connect(settings())


def test_without_credentials_or_a_region_it_is_told_which(
    service: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolate(monkeypatch, tmp_path)
    with pytest.raises(ConfigurationError, match="no AWS region is set"):
        SessionManager.connect(settings("elasticache://shop"))
    with pytest.raises(StoreUnavailable, match="there are no AWS credentials"):
        SessionManager.connect(settings())
    assert service.asked == []


# In the frameworks


def test_flask_says_at_its_start_that_the_cache_is_not_there(service: Api, single_store: Store) -> None:
    with pytest.raises(ConfigurationError, match="no replication group"):
        FlaskSite(PLAIN)
    service.answers[GROUPS] = aws_api.group(single_store.ports[0])
    with FlaskSite(PLAIN, ELASTICACHE_SESSIONS_TIMEOUT=PATIENT) as site:
        assert site.visit(lambda: None).status_code == 200


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_django_answers_503_until_aws_says_where_the_cache_is(
    service: Api, single_store: Store, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    async def touch_async(request: HttpRequest) -> None:
        await session_of(request).aset("n", 1)

    def touch(request: HttpRequest) -> None:
        session_of(request)["n"] = 1

    view = touch_async if kind == "asgi" else touch
    service.answers[GROUPS] = error("ExpiredToken", 403)
    with DjangoSite(kind, PLAIN, ELASTICACHE_SESSIONS_TIMEOUT=PATIENT) as site:
        call_command("check")
        assert site.visit().status_code == 200  # needs no session
        assert service.asked == []
        response = site.visit(view)
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert "AWS credentials have expired" in caplog.text
        service.answers[GROUPS] = error("AccessDenied", 403)
        assert site.visit(view).status_code == 500
        assert "elasticache:DescribeCacheClusters" in caplog.text
        service.answers[GROUPS] = aws_api.group(single_store.ports[0])
        assert site.visit(view).status_code == 200
        assert site.contents() == {"n": 1}
