"""One Django project a stack, each in a process of its own, as its settings are that of the process."""

from __future__ import annotations

from typing import Any, Final

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from . import django_async_views, django_views
from .asgi import AsgiAsked
from .browser import WsgiAsked
from .cases import Asked
from .sites import LIFETIME, Site

STOCK: Final = "django.contrib.sessions.middleware.SessionMiddleware"
OURS: Final = "elasticache_sessions.django.middleware.SessionMiddleware"
CACHES: Final = "django.core.cache.backends"


def _configure(site: Site, middleware: str | None, **more: Any) -> None:
    views = django_async_views if site.asynchronous else django_views
    settings.configure(
        SECRET_KEY="s" * 32,
        ALLOWED_HOSTS=["*"],
        DEBUG=False,
        LOGGING_CONFIG=None,
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        MIDDLEWARE=[middleware] if middleware else [],
        ROOT_URLCONF=views.WithSessions if middleware else views.WithoutSessions,
        SESSION_COOKIE_AGE=LIFETIME,
        **{"SESSION_SAVE_EVERY_REQUEST": site.sliding, **more},
    )
    django.setup()


def _served(site: Site) -> Asked:
    return AsgiAsked(ASGIHandler()) if site.asynchronous else WsgiAsked(WSGIHandler())


def plain(site: Site) -> Asked:
    """The project without sessions, whose cost is to be subtracted."""
    _configure(site, None)
    return _served(site)


def signed_cookies(site: Site) -> Asked:
    _configure(site, STOCK, SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
    return _served(site)


def least(site: Site) -> Asked:
    _configure(site, STOCK, SESSION_ENGINE="benchmarks.least", LEAST_PORT=site.valkey_port)
    return _served(site)


def redis_cache(site: Site) -> Asked:
    return _cache(site, f"{CACHES}.redis.RedisCache", site.url())


def django_redis(site: Site) -> Asked:
    return _cache(site, "django_redis.cache.RedisCache", site.url())


def pymemcache(site: Site) -> Asked:
    return _cache(site, f"{CACHES}.memcached.PyMemcacheCache", f"127.0.0.1:{site.memcached_port}")


def pylibmc(site: Site) -> Asked:
    return _cache(site, f"{CACHES}.memcached.PyLibMCCache", f"127.0.0.1:{site.memcached_port}")


def cached_db(site: Site) -> Asked:
    """Sessions in SQLite, here in memory, with RedisCache before it."""
    asked = _cache(site, f"{CACHES}.redis.RedisCache", site.url(), engine="cached_db")
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return asked


def _cache(site: Site, backend: str, location: str, engine: str = "cache") -> Asked:
    _configure(
        site,
        STOCK,
        INSTALLED_APPS=["django.contrib.sessions"],
        CACHES={"default": {"BACKEND": backend, "LOCATION": location}},
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
    )
    return _served(site)


def ours(site: Site, memcached: bool = False, by_idle_timeout: bool = False, **ours: Any) -> Asked:
    """`by_idle_timeout`: sessions slide as IDLE_TIMEOUT makes them, without SESSION_SAVE_EVERY_REQUEST."""
    more: dict[str, Any] = {f"ELASTICACHE_SESSIONS_{name}": value for name, value in ours.items()}
    if by_idle_timeout:
        more |= {"ELASTICACHE_SESSIONS_IDLE_TIMEOUT": LIFETIME, "SESSION_SAVE_EVERY_REQUEST": False}
    _configure(
        site,
        OURS,
        INSTALLED_APPS=["elasticache_sessions.django"],
        SESSION_ENGINE="elasticache_sessions.django",
        **site.settings(memcached),
        **more,
    )
    return _served(site)
