"""Who is asked: each stack by its name, what it is called for people, and how a worker builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

from .cases import CHANGE, READ, UNTOUCHED, Asked, Case
from .payloads import LARGE
from .sites import Site

Kind = Literal["plain", "ours", "peer", "least", "floor", "layer"]
"""The app without sessions; ours, others', and the least there could be, which it is subtracted from; a bare client; this package
without a framework.
"""
PLAIN: Final = "plain"


@dataclass(frozen=True, slots=True)
class Stack:
    name: str
    title: str
    kind: Kind
    build: Callable[[Site], Asked]
    tree: str = ""
    """The checkout whose package it uses, where that is another one."""

    def in_tree(self, tree: str) -> Stack:
        """The same with the package as it is in another checkout, to measure what a change of it brings."""
        return replace(self, name=f"{self.name}@", title=f"{self.title}, there", tree=tree)

    @property
    def has_an_app(self) -> bool:
        """Whose cost without sessions is to be subtracted."""
        return self.kind in ("ours", "peer", "least")

    @property
    def on_memcached(self) -> bool:
        return "memcache" in self.name or "pylibmc" in self.name

    def can(self, case: Case, size: int) -> bool:
        if self.kind in ("floor", "layer"):
            return case in (READ, CHANGE)
        if self.kind == "least":
            return case in (UNTOUCHED, READ, CHANGE)
        return size < LARGE or "cookie" not in self.name  # which browsers would not keep


def _flask(function: str, **options: object) -> Callable[[Site], Asked]:
    return partial(_build, "flask_stacks", function, options)


def _django(function: str, **options: object) -> Callable[[Site], Asked]:
    return partial(_build, "django_stacks", function, options)


def _floor(function: str) -> Callable[[Site], Asked]:
    return partial(_build, "floor", function, {})


def _layer(function: str, **options: object) -> Callable[[Site], Asked]:
    return partial(_build, "layers", function, options)


def _async(function: str, **options: object) -> Callable[[Site], Asked]:
    return partial(_build, "async_layers", function, options)


def _build(module: str, function: str, options: dict[str, object], site: Site) -> Asked:
    """In a worker, which is to import no more than its own stack needs."""
    from importlib import import_module

    asked: Asked = getattr(import_module(f"benchmarks.{module}"), function)(site, **options)
    return asked


KEYS: Final = ["benchmarks-benchmarks-benchmarks-1"]

FLOOR: Final = (
    Stack("redis-py", "bare redis-py", "floor", _floor("redis_py")),
    Stack("valkey-py", "bare valkey-py + libvalkey", "floor", _floor("valkey_py")),
    Stack("pymemcache", "bare pymemcache", "floor", _floor("pymemcache")),
    Stack("hiredis", "socket and hiredis", "floor", _floor("hiredis_socket")),
    Stack("socket", "raw socket to Valkey", "floor", _floor("raw_socket")),
    Stack("socket-memcached", "raw socket to Memcached", "floor", _floor("raw_memcached")),
)
LAYERS: Final = (
    Stack("our-client", "our client, Valkey", "layer", _layer("client")),
    Stack("our-client-libvalkey", "our client, libvalkey", "layer", _layer("client", libvalkey=True)),
    Stack("our-manager", "our manager, Valkey", "layer", _layer("manager")),
    Stack("our-client-memcached", "our client, Memcached", "layer", _layer("client", memcached=True)),
    Stack("our-manager-memcached", "our manager, Memcached", "layer", _layer("manager", memcached=True)),
)
ASYNC: Final = (
    Stack("our-async-manager", "our manager alone, Valkey", "layer", _async("manager")),
    Stack(
        "our-async-manager-memcached",
        "our manager alone, Memcached",
        "layer",
        _async("manager", memcached=True),
    ),
    Stack("redis-asyncio", "bare redis.asyncio", "floor", _async("redis_asyncio")),
)
FLASK: Final = (
    Stack(PLAIN, "Flask without sessions", "plain", _flask("plain")),
    Stack("ours", "ours, Valkey", "ours", _flask("ours")),
    Stack("ours-libvalkey", "ours, Valkey, libvalkey", "ours", _flask("ours", libvalkey=True)),
    Stack("ours-encrypted", "ours, Valkey, encrypted", "ours", _flask("ours", ENCRYPTION_KEYS=KEYS)),
    Stack("ours-memcached", "ours, Memcached", "ours", _flask("ours", memcached=True)),
    Stack("flask-session", "Flask-Session, Redis", "peer", _flask("flask_session")),
    Stack(
        "flask-session-still",
        "Flask-Session, Redis, refresh off",
        "peer",
        _flask("flask_session", refresh=False),
    ),
    Stack("flask-session-memcached", "Flask-Session, Memcached", "peer", _flask("flask_session_memcached")),
    Stack("least", "the least, by a raw socket", "least", _flask("least")),
    Stack("signed-cookie", "Flask's signed cookie", "peer", _flask("signed_cookie")),
)
DJANGO: Final = (
    Stack(PLAIN, "Django without sessions", "plain", _django("plain")),
    Stack("ours", "ours, Valkey", "ours", _django("ours")),
    Stack("ours-encrypted", "ours, Valkey, encrypted", "ours", _django("ours", ENCRYPTION_KEYS=KEYS)),
    Stack("ours-memcached", "ours, Memcached", "ours", _django("ours", memcached=True)),
    Stack("redis-cache", "cache, RedisCache", "peer", _django("redis_cache")),
    Stack("django-redis", "cache, django-redis", "peer", _django("django_redis")),
    Stack("pymemcache-cache", "cache, PyMemcacheCache", "peer", _django("pymemcache")),
    Stack("pylibmc-cache", "cache, PyLibMCCache", "peer", _django("pylibmc")),
    Stack("cached-db", "cached_db, RedisCache", "peer", _django("cached_db")),
    Stack("least", "the least, by a raw socket", "least", _django("least")),
    Stack("signed-cookies", "signed_cookies", "peer", _django("signed_cookies")),
)
BY_IDLE_TIMEOUT: Final = Stack(
    "ours-idle", "ours, Valkey, by IDLE_TIMEOUT", "ours", _django("ours", by_idle_timeout=True)
)
