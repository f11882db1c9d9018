"""Every setting is checked, and every error says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from elasticache_sessions import ConfigurationError, Session, SessionManager, Settings
from elasticache_sessions.endpoint import Iam
from elasticache_sessions.settings import NAME, Endpoint
from tests.support.stores import Store


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://cache", Endpoint("redis", "cache")),
        ("valkey://cache:7000/3", Endpoint("redis", "cache", 7000, db=3)),
        ("rediss://cache", Endpoint("redis", "cache", tls=True)),
        ("valkeys://u:p%40ss@cache", Endpoint("redis", "cache", 6379, "u", "p@ss", tls=True)),
        ("redis://:secret@cache/0?cluster=true", Endpoint("redis", "cache", password="secret", cluster=True)),
        ("redis://[::1]:1234?cluster=no", Endpoint("redis", "::1", 1234)),
        (
            "rediss://cache?ca_file=/etc/a%20ca.pem",
            Endpoint("redis", "cache", tls=True, ca_file="/etc/a ca.pem"),
        ),
        ("memcached://Cache", Endpoint("memcached", nodes=(("cache", 11211),))),
        (
            "memcached://a?tls=true&ca_file=/ca.pem",
            Endpoint("memcached", nodes=(("a", 11211),), tls=True, ca_file="/ca.pem"),
        ),
        (
            "memcached://a:1,b,[::1],[::2]:7/",
            Endpoint("memcached", nodes=(("a", 1), ("b", 11211), ("::1", 11211), ("::2", 7))),
        ),
        ("memcached://a,b?copies=2", Endpoint("memcached", nodes=(("a", 11211), ("b", 11211)), copies=2)),
        ("memcached+discovery://Cfg", Endpoint("memcached", "cfg", 11211, discovery=True)),
        (
            "memcached+discovery://[::1]:7/?copies=2&discovery_interval=0.2&handover=0&tls=true&ca_file=/ca.pem",
            Endpoint(
                "memcached",
                "::1",
                7,
                tls=True,
                ca_file="/ca.pem",
                copies=2,
                discovery=True,
                discovery_interval=0.2,
                handover=0,
            ),
        ),
        (
            "elasticache://shop?copies=2&discovery_interval=5&handover=60",
            Endpoint("elasticache", "shop", copies=2, discovery_interval=5, handover=60),
        ),
        (
            "valkeys://cache?cluster=true&iam_user=App&iam_cache=Shop&region=eu-west-1",
            Endpoint("redis", "cache", tls=True, cluster=True, iam=Iam("app", "shop"), region="eu-west-1"),
        ),
        (
            "rediss://cache?iam_user=default.app&iam_cache=shop-1&serverless=yes",
            Endpoint("redis", "cache", tls=True, iam=Iam("default.app", "shop-1", serverless=True)),
        ),
        ("elasticache://Shop-1", Endpoint("elasticache", "shop-1")),
        (
            "elasticache://u:p%40ss@shop?region=us-gov-west-1",
            Endpoint("elasticache", "shop", username="u", password="p@ss", region="us-gov-west-1"),
        ),
        ("elasticache://shop?iam_user=app", Endpoint("elasticache", "shop", iam=Iam("app", "shop"))),
        ("memory://", Endpoint("memory")),
        ("memory://shop", Endpoint("memory", "shop")),
    ],
)
def test_a_url_says_where_the_store_is(url: str, endpoint: Endpoint) -> None:
    assert Settings(url=url).endpoint == endpoint


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("cache:6379", "no scheme|begins with 'cache://'"),
        ("cache.example.org", "no scheme"),
        ("http://cache", "begins with 'http://'; known are redis://"),
        ("memcache://a:11211", "known are"),
        ("memcached://", "names a Memcached node as ''.*Write 'memcached://"),
        ("memcached://a,", "names a Memcached node as ''"),
        ("memcached://a:0", "'a:0', which is no host and port"),
        ("memcached://a:65536", "no host and port"),
        ("memcached://a:port", "no host and port"),
        ("memcached://a b", "no host and port"),
        ("memcached://a/0", "no host and port"),
        ("memcached://::1", "no host and port"),
        ("memcached://[::g]:1", "no host and port"),
        ("memcached://[::1", "no host and port"),
        ("memcached://a..b", "no host and port"),
        ("memcached://a,b,A:11211", "the node 'A:11211' twice. Write each node once"),
        ("memcached://[::1],[0:0::1]:11211", "twice"),
        ("memcached://user:swordfish@a", "holds a user or password.*without them"),
        ("memcached://a?handover=2", "unknown option 'handover'; allowed here: copies, tls, ca_file"),
        ("memcached://a?copies=2", "two copies, and names one node. Name two nodes or more, or remove"),
        ("memcached://a,b?copies=3", "'copies' is neither 1 nor 2. Write copies=2 .* or copies=1"),
        ("memcached://a,b?copies=", "'copies' is neither 1 nor 2. Write copies=2"),
        (
            "memcached://shop.abc.cfg.use1.cache.amazonaws.com:11211",
            r"'shop.*' as a node.*Write 'memcached\+discovery://shop",
        ),
        ("memcached+discovery://", r"as '', which is no host and port. Write 'memcached\+discovery://my-"),
        ("memcached+discovery://a:0", "as 'a:0', which is no host and port"),
        (
            "memcached+discovery://a,b",
            "names 2 hosts behind .* Write the one configuration endpoint.*or memcached://",
        ),
        ("memcached+discovery://user:swordfish@a", "Memcached takes none. Write 'memcached.discovery"),
        ("memcached+discovery://a?copy=2", "unknown option 'copy'.*Did you mean 'copies'"),
        ("memcached+discovery://a?copies=two", "'copies' is neither 1 nor 2"),
        (
            "memcached+discovery://a?discovery_interval=0",
            "no number of seconds that it can be. Write one from 0.1 to 300, as in",
        ),
        ("memcached+discovery://a?discovery_interval=nan", "no number of seconds that it can be. Write one"),
        ("memcached+discovery://a?discovery_interval=inf", "no number of seconds that it can be. Write one"),
        (
            "memcached+discovery://a?discovery_interval=90000",
            "no number of seconds that it can be. Write one",
        ),
        ("memcached+discovery://a?discovery_interval=", "no number of seconds that it can be. Write one"),
        (
            "memcached+discovery://a?handover=-1",
            "'handover' is no number of seconds. Write whole seconds, as in handover=86400",
        ),
        ("memcached+discovery://a?handover=1.5", "'handover' is no number of seconds. Write whole seconds"),
        ("memcached+discovery://a?handover=99999999999", "Write whole seconds"),
        ("memcached+discovery://a?ca_file=/ca.pem", "names a ca_file, but asks for no TLS"),
        ("elasticache://shop?copies=3", "'copies' is neither 1 nor 2"),
        ("elasticache://shop?handover=soon", "'handover' is no number of seconds"),
        ("memcached://a?tls=perhaps", "'tls' is 'perhaps'. Write true or false"),
        ("memcached://a?ca_file=/ca.pem", "names a ca_file, but asks for no TLS. Write rediss://"),
        ("redis://cache?ca_file=/ca.pem", "names a ca_file, but asks for no TLS"),
        ("rediss://cache?ca_file=", "an empty ca_file"),
        ("redis://", "names no host"),
        ("redis://:6379", "names no host"),
        ("redis://cache:port", "not a URL"),
        ("redis://cache:99999", "not a URL"),
        ("redis://[::1", "not a URL"),
        ("redis://cache/sessions", "names no database number"),
        ("redis://cache/3?cluster=true", "only database 0"),
        ("redis://cache?cluster=maybe", "Write true or false"),
        ("redis://cache?clutser=true", "unknown option 'clutser'.*Did you mean 'cluster'"),
        ("redis://cache?iam_user=app&iam_cache=shop", "IAM without TLS.*Write rediss://"),
        ("rediss://cache?iam_user=app", "not iam_cache. Add iam_cache=…: the name of the replication group"),
        ("rediss://cache?iam_cache=shop", "not iam_user. Add iam_user=…: the id"),
        ("rediss://cache?region=us-east-1", "not iam_user"),
        ("rediss://cache?serverless=true", "not iam_user"),
        ("rediss://u@cache?iam_user=app&iam_cache=shop", "Write one of them"),
        ("rediss://:swordfish@cache?iam_user=app&iam_cache=shop", "Write one of them"),
        ("rediss://cache?iam_user=a_b&iam_cache=shop", "'iam_user' is none that ElastiCache has"),
        ("rediss://cache?iam_user=app&iam_cache=", "'iam_cache' is none that.*replication group"),
        ("rediss://cache?iam_user=app&iam_cache=shop.use1", "'iam_cache' is none that"),
        ("rediss://cache?iam_user=app&iam_cache=shop&region=Ohio", "no AWS region.*us-east-1"),
        ("rediss://cache?iam_user=app&iam_cache=shop&serverless=2", "Write true or false"),
        ("elasticache://", "names no cache.*elasticache://my-cache"),
        ("elasticache://shop.abc.use1.cache.amazonaws.com", "names no cache"),
        ("elasticache://shop:6379", "names no cache"),
        ("elasticache://shop/0", "names no cache"),
        ("elasticache://shop--1", "names no cache"),
        ("elasticache://shop?cluster=true", "unknown option 'cluster'; allowed here: region, iam_user"),
        ("elasticache://shop?region=", "no AWS region"),
        ("elasticache://:swordfish@shop?iam_user=app", "Write one of them"),
        ("memory://?cluster=true", "unknown option 'cluster'; this kind of URL takes none"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Settings(url=url)


def test_a_missing_url_is_told_when_it_is_needed() -> None:
    with pytest.raises(ConfigurationError, match=f"{NAME}URL is not set.*rediss://.*memory://"):
        Settings().endpoint  # noqa: B018 - asking is what raises


def test_no_password_is_shown_or_repeated() -> None:
    settings = Settings(url="redis://user:swordfish@cache", owner_key=b"swordfish-swordfish")
    assert "swordfish" not in repr(settings)
    assert "swordfish" not in repr(settings.endpoint)
    for url in (
        "redis://u:swordfish@cache/x",
        "http://u:swordfish@cache",
        "redis://u:swordfish@cache?x=1",
        "rediss://u:swordfish@cache?iam_user=app&iam_cache=shop",
        "rediss://u:sword?region=fish@cache&iam_user=a&iam_cache=b",
        "rediss://u:sword?iam_user=fish@cache&iam_cache=b",
        "elasticache://u:swordfish@shop:1",
        "elasticache://u:sword/fish@shop",
        "elasticache://u:sword?region=fish@shop",
        "elasticache://u:sword?copies=fish@shop",
        "elasticache://u:sword?discovery_interval=fish@shop",
        "elasticache://u:sword?handover=fish@shop",
        "memcached://u:swordfish@cache",
        "memcached://u:sword?fish@cache",
        "memcached+discovery://u:swordfish@cache",
        "memcached://u:sword#fish@cache",
        "memcached://u:sword/fish@cache",
    ):
        with pytest.raises(ConfigurationError) as refused:
            Settings(url=url)
        assert "fish" not in str(refused.value)


@given(st.text())
def test_any_text_is_a_url_or_a_configuration_error(text: str) -> None:
    for url in (
        text,
        f"redis://{text}",
        f"redis://cache?{text}",
        f"elasticache://{text}",
        f"rediss://cache?iam_user=app&iam_cache={text}",
        f"redis://cache/{text}",
        f"memcached://{text}",
        f"memcached+discovery://{text}",
        f"memcached+discovery://cfg?discovery_interval={text}",
        f"memcached+discovery://cfg?handover={text}",
    ):
        with suppress(ConfigurationError):
            Settings(url=url)


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("timeout", "0.25", 0.25),
        ("timeout", timedelta(seconds=2), 2.0),
        ("connect_timeout", 3, 3),
        ("idle_timeout", timedelta(days=1), 86_400),
        ("idle_timeout", 0.2, 1),
        ("idle_timeout", "90", 90),
        ("idle_timeout", None, None),
        ("absolute_timeout", 90.5, 91),
        ("owner_key", "a-secret-of-16-b", b"a-secret-of-16-b"),
        ("on_outage", "anonymous", "anonymous"),
        ("max_connections", "8", 8),
        ("max_bytes", 5, 5),
        ("prefix", "shop:", "shop:"),
    ],
)
def test_a_setting_is_taken_as_what_it_means(name: str, value: Any, becomes: Any) -> None:
    assert getattr(Settings(**{name: value}), name) == becomes


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("url", b"redis://cache", "Write a str"),
        ("url", None, "Write a str"),
        ("prefix", 5, "Write a str"),
        ("timeout", "soon", "positive number of seconds"),
        ("timeout", 0, "positive number of seconds"),
        ("timeout", -1, "positive number of seconds"),
        ("timeout", True, "positive number of seconds"),
        ("timeout", float("inf"), "positive number of seconds"),
        ("timeout", float("nan"), "positive number of seconds"),
        ("timeout", None, "positive number of seconds"),
        ("idle_timeout", [], "positive number of seconds"),
        ("idle_timeout", 0, "positive number of seconds"),
        ("absolute_timeout", timedelta(0), "positive number of seconds"),
        ("owner_key", "short", "at least 16 bytes.*token_urlsafe"),
        ("owner_key", 5, "at least 16 bytes"),
        ("on_outage", "anonymus", r"'anonymus'. Did you mean 'anonymous'\? Write 'error'"),
        ("on_outage", "ignore", "'ignore'. Write 'error' .* or 'anonymous'"),
        ("on_outage", None, "Write 'error'"),
        ("max_connections", 0, "whole number of at least 1"),
        ("max_connections", "many", "whole number"),
        ("max_sessions_per_user", 2_001, "at most 2000"),
        ("max_sessions_per_user", 0, "whole number of at least 1"),
        ("max_bytes", 1.5, "whole number"),
        ("max_bytes", True, "whole number"),
    ],
)
def test_a_setting_of_a_wrong_type_is_refused_by_name(name: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{NAME}{name.upper()}.*{says}"):
        Settings(**{name: value})


def test_settings_come_from_the_frameworks_configuration_and_else_from_the_environment() -> None:
    environ = {f"{NAME}URL": "redis://from-environment", f"{NAME}TIMEOUT": "2", "PATH": "/bin"}
    environ[f"{NAME}ON_OUTAGE"] = "anonymous"
    config = {f"{NAME}URL": "redis://from-config", "SECRET_KEY": "x"}
    settings = Settings.from_mapping(config, environ)
    assert settings.endpoint.host == "from-config"
    assert (settings.timeout, settings.on_outage) == (2, "anonymous")


@pytest.mark.parametrize("place", ["config", "environ"])
def test_an_unknown_setting_is_refused_with_the_one_that_may_be_meant(place: str) -> None:
    wrong = {f"{NAME}IDLE_TIMOUT": "5"}
    with pytest.raises(
        ConfigurationError, match=f"{NAME}IDLE_TIMOUT is not a setting. Did you mean '{NAME}IDLE_TIMEOUT'"
    ):
        Settings.from_mapping(wrong if place == "config" else {}, wrong if place == "environ" else {})


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".org"])
def test_what_cannot_be_a_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="names no host"):
        Settings(url=f"redis://{host}:6379")


@pytest.mark.parametrize("password", ["sword/fish", "sword?fish", "sword#fish", "sword:1/fish"])
def test_a_password_that_takes_the_url_apart_is_not_repeated(password: str) -> None:
    with pytest.raises(ConfigurationError, match=r"urllib\.parse\.quote") as refused:
        Settings(url=f"redis://:{password}@cache:6379/0")
    assert "fish" not in str(refused.value)


def test_a_prefix_is_valid_unicode() -> None:
    with pytest.raises(ConfigurationError, match="PREFIX holds lone surrogates"):
        Settings(prefix="\ud800")


@pytest.mark.parametrize(
    "prefix", ["my sess:", "sess:\n", "\tsess", "sess\0", "sess\x7f", "s" * 208, "é" * 104]
)
def test_a_prefix_that_cannot_begin_a_key_of_memcached_is_refused_there_alone(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{NAME}PREFIX.*at most 207 bytes without white space"):
        Settings(url="memcached://cache", prefix=prefix)
    Settings(url="redis://cache", prefix=prefix)


@pytest.mark.parametrize("prefix", ["", "s" * 207, "é" * 103, "sess\u00a0:"])
def test_any_other_prefix_can(prefix: str, give_store: Callable[[str], Store]) -> None:
    manager = SessionManager.connect(Settings(url=give_store("memcached").url, prefix=prefix))
    session = Session()
    session.fields["a"] = 1
    manager.save(session)
    assert manager.load(session.id) is not None
    manager.close()
