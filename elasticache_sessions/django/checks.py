"""System checks: `manage.py check` says what is missing before a request does. They ask no store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning as Caution
from django.utils.module_loading import import_string

from ..exceptions import ConfigurationError
from ..settings import NAME
from .managers import package_settings
from .store import SessionStore

ENGINE: Final = "elasticache_sessions.django"
MIDDLEWARE: Final = "elasticache_sessions.django.middleware.SessionMiddleware"
# Settings of Django's own engines that mean nothing to this one, with their defaults.
_WITHOUT_EFFECT: Final = {"SESSION_CACHE_ALIAS": "default", "SESSION_FILE_PATH": None}


def check_settings(app_configs: Sequence[Any] | None, **options: Any) -> list[CheckMessage]:
    """E001: the settings do not name a store. W002, W003: what is set has no effect."""
    if not _is(f"{settings.SESSION_ENGINE}.SessionStore", SessionStore):
        return [
            Caution(
                f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}, so elasticache_sessions keeps no sessions.",
                hint=f"Set SESSION_ENGINE = {ENGINE!r}, or take {ENGINE!r} out of INSTALLED_APPS.",
                id="elasticache_sessions.W003",
            )
        ]
    found: list[CheckMessage] = []
    try:
        _ = package_settings().endpoint
    except ConfigurationError as error:
        found.append(
            Error(
                str(error),
                hint="Set it in the settings or in the environment.",
                id="elasticache_sessions.E001",
            )
        )
    for name, default in _WITHOUT_EFFECT.items():
        if getattr(settings, name, default) != default:
            found.append(
                Caution(
                    f"{name} has no effect on sessions in ElastiCache.",
                    hint="Remove it, or say where sessions are kept by ELASTICACHE_SESSIONS_URL.",
                    id="elasticache_sessions.W002",
                )
            )
    return found


def check_middleware(app_configs: Sequence[Any] | None, **options: Any) -> list[CheckMessage]:
    """W001: another session middleware than ours answers 500 in an outage, and saves in a thread under ASGI. W004: nor does it
    know what to do with a request that goes on without its session.
    """
    if not _is(f"{settings.SESSION_ENGINE}.SessionStore", SessionStore):
        return []
    from .middleware import SessionMiddleware

    if any(_is(path, SessionMiddleware) for path in settings.MIDDLEWARE):
        return []
    found: list[CheckMessage] = [
        Caution(
            f"MIDDLEWARE has no {MIDDLEWARE}: while the store is down requests are answered with 500 instead of 503, and "
            "under ASGI sessions are saved in a thread.",
            hint=f"Put {MIDDLEWARE!r} in the place of 'django.contrib.sessions.middleware.SessionMiddleware'.",
            id="elasticache_sessions.W001",
        )
    ]
    if _goes_without():
        found.append(
            Caution(
                f"{NAME}ON_OUTAGE = 'anonymous' has no effect without {MIDDLEWARE}: requests that need their session fail "
                "while the store is down.",
                hint="Do as W001 says, or set it to 'error'.",
                id="elasticache_sessions.W004",
            )
        )
    return found


def _goes_without() -> bool:
    try:
        return package_settings().on_outage == "anonymous"
    except ConfigurationError:
        return False  # E001 says so


def _is(path: str, kind: type) -> bool:
    try:
        found = import_string(path)
    except ImportError:
        return False  # Django says so itself
    return isinstance(found, type) and issubclass(found, kind)
