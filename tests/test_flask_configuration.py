"""What `ElastiCacheSessions` takes: settings that are wrong say what to write instead, and one store serves several apps."""

# What a view does is written as one expression, whatever its parts return:
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
import redis
import redis.asyncio
import valkey
from flask import Flask, session

from elasticache_sessions.exceptions import ConfigurationError
from elasticache_sessions.flask import ElastiCacheSessions
from tests.support.servers import Server


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELASTICACHE_SESSIONS_URL", raising=False)


def app_with(**config: object) -> Flask:
    app = Flask("configured")
    app.config.update(config)
    app.add_url_rule("/", "count", lambda: str(session.setdefault("count", 0)))
    app.add_url_rule("/add", "add", lambda: str(session.update(count=session.get("count", 0) + 1)))
    return app


WRONG: list[tuple[dict[str, object], str]] = [
    ({}, "ELASTICACHE_SESSIONS_URL is not set. Set it to"),
    ({"URL": ""}, "ELASTICACHE_SESSIONS_URL is not set. Set it to"),
    ({"URL": "postgres://db"}, "begins with 'postgres://'; known are redis://, rediss://, valkey://"),
    ({"URL": "localhost:6379"}, "ELASTICACHE_SESSIONS_URL begins with"),
    ({"URL": "redis://"}, "names no host"),
    ({"URL": "redis://host/one"}, "names no database number"),
    ({"URL": "redis://host/1?cluster=true"}, "cluster mode has only database 0"),
    (
        {"URL": "redis://host?clusters=true"},
        "unknown option 'clusters'; allowed here: cluster, ca_file, iam_user, iam_cache, region, serverless. Did you mean 'cl",
    ),
    (
        {"URL": "memcached://shop.abc.cfg.use1.cache.amazonaws.com:11211"},
        "Write 'memcached+discovery://shop",
    ),
    ({"URL": "memory://?cluster=true"}, "unknown option 'cluster'; this kind of URL takes none"),
    ({"URL": b"memory://"}, "ELASTICACHE_SESSIONS_URL is of type bytes. Write a str."),
    (
        {"URLL": "memory://"},
        "ELASTICACHE_SESSIONS_URLL is not a setting. Did you mean 'ELASTICACHE_SESSIONS_URL'?",
    ),
    (
        {"URL": "memory://", "TIMEOUT": "soon"},
        "ELASTICACHE_SESSIONS_TIMEOUT is 'soon'. Write a positive number",
    ),
    ({"URL": "memory://", "TIMEOUT": 0}, "ELASTICACHE_SESSIONS_TIMEOUT is 0. Write a positive number"),
    (
        {"URL": "memory://", "ABSOLUTE_TIMEOUT": -1},
        "ABSOLUTE_TIMEOUT is -1. Write a positive number of seconds",
    ),
    ({"URL": "memory://", "MAX_BYTES": 0.5}, "MAX_BYTES is 0.5. Write a whole number of at least 1"),
    ({"URL": "memory://", "PREFIX": None}, "ELASTICACHE_SESSIONS_PREFIX is of type NoneType. Write a str."),
    (
        {"URL": "memory://", "OWNER_KEY": "short"},
        "OWNER_KEY is no secret of at least 16 bytes. Make one: python",
    ),
]


@pytest.mark.parametrize(
    ("config", "says"), WRONG, ids=[" and ".join(config) or "nothing" for config, _ in WRONG]
)
def test_a_wrong_setting_says_what_to_write_instead(config: dict[str, object], says: str) -> None:
    app = app_with(**{f"ELASTICACHE_SESSIONS_{name}": value for name, value in config.items()})
    before = app.session_interface
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        ElastiCacheSessions(app)
    assert app.session_interface is before
    assert "elasticache_sessions" not in app.extensions


def test_a_password_is_in_no_message() -> None:
    for url in (
        "redis://user:hunter2@host?clusters=1",
        "http://user:hunter2@host",
        "redis://:hunter2@host:port",
    ):
        with pytest.raises(ConfigurationError) as raised:
            ElastiCacheSessions(app_with(ELASTICACHE_SESSIONS_URL=url))
        assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("client", "says"),
    [
        (redis.Redis(decode_responses=True), "Make one with decode_responses=False"),
        (valkey.Valkey(decode_responses=True), "Make one with decode_responses=False"),
        (redis.asyncio.Redis(), "is a redis.asyncio.client.Redis. Pass one of redis."),
        (valkey.asyncio.Valkey(), "Pass one of valkey."),
        ("redis://localhost", "is a builtins.str. Pass a redis.Redis, redis.RedisCluster, valkey.Valkey"),
        (redis.ConnectionPool(), "is a redis.connection.ConnectionPool. Pass a redis.Redis"),
    ],
    ids=["decodes", "valkey decodes", "asyncio", "valkey asyncio", "URL", "pool"],
)
def test_a_wrong_client_object_says_what_to_pass_instead(client: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        ElastiCacheSessions(app_with(), client=client)


@pytest.mark.parametrize("kind", [redis.Redis, valkey.Valkey])
def test_a_client_object_needs_no_url(own_server: Server, kind: Any) -> None:
    client = kind(port=own_server.port)
    app = app_with()
    ElastiCacheSessions(app, client=client)
    browser = app.test_client()
    browser.get("/add")
    assert browser.get("/").text == "1"
    assert own_server.command("DBSIZE") == 1
    client.close()


def test_settings_come_from_the_environment_where_the_app_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTICACHE_SESSIONS_URL", "postgres://db")
    with pytest.raises(ConfigurationError, match="postgres"):
        ElastiCacheSessions(app_with())
    ElastiCacheSessions(app_with(ELASTICACHE_SESSIONS_URL="memory://"))


def test_the_extension_can_be_found_from_the_app() -> None:
    app = app_with(ELASTICACHE_SESSIONS_URL="memory://")
    sessions = ElastiCacheSessions()
    sessions.init_app(app)
    assert app.extensions["elasticache_sessions"] is sessions


@pytest.mark.parametrize("shared", [True, False], ids=["one name", "two names"])
def test_two_apps_share_their_sessions_if_their_memory_has_one_name(shared: bool) -> None:
    names = [uuid.uuid4().hex] * 2 if shared else [uuid.uuid4().hex, uuid.uuid4().hex]
    sessions = ElastiCacheSessions()
    first, second = (app_with(ELASTICACHE_SESSIONS_URL=f"memory://{name}") for name in names)
    sessions.init_app(first)
    sessions.init_app(second)
    browser, other = first.test_client(), second.test_client()
    browser.get("/add")
    cookie = browser.get_cookie("session")
    assert cookie is not None
    other.set_cookie("session", cookie.value)
    assert other.get("/").text == ("1" if shared else "0")


def test_one_extension_serves_two_apps_each_with_its_own_settings() -> None:
    sessions = ElastiCacheSessions()
    apps = [
        app_with(ELASTICACHE_SESSIONS_URL=f"memory://{uuid.uuid4().hex}", PERMANENT_SESSION_LIFETIME=lifetime)
        for lifetime in (0, 100)
    ]
    for app in apps:
        app.add_url_rule(
            "/apply", "apply", lambda: str(sessions.apply(lambda fields: fields.setdefault("count", 7)))
        )
        app.add_url_rule("/logout", "logout", lambda: str(sessions.logout()))
        sessions.init_app(app)
    browsers = [app.test_client() for app in apps]
    assert [browser.get("/apply").text for browser in browsers] == ["7", "7"]
    assert [browser.get_cookie("session") is not None for browser in browsers] == [False, True]
    assert browsers[1].get("/").text == "7"
    browsers[1].get("/logout")
    assert browsers[1].get_cookie("session") is None


def test_prefixes_keep_two_apps_apart_in_one_store() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    apps = [
        app_with(ELASTICACHE_SESSIONS_URL=url, ELASTICACHE_SESSIONS_PREFIX=prefix) for prefix in ("a:", "b:")
    ]
    for app in apps:
        ElastiCacheSessions(app)
    browser, other = (app.test_client() for app in apps)
    browser.get("/add")
    cookie = browser.get_cookie("session")
    assert cookie is not None
    other.set_cookie("session", cookie.value)
    assert (browser.get("/").text, other.get("/").text) == ("1", "0")
