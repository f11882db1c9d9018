"""System checks: `manage.py check` says what is missing before a request does. They ask no store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
from django.core.checks import CheckMessage, Error, Warning as Caution
from django.core.signing import JSONSerializer
from django.utils.module_loading import import_string

from ..exceptions import ConfigurationError
from ..hardening import CookieFacts, Finding, findings, warning
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
        return list(_of_the_order())
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


def _of_the_order() -> Iterator[CheckMessage]:
    """W005: two middlewares of sessions, the outer of which saves what the inner has ended, and sets its cookie. W006: who is
    signed in is asked before there is a session.
    """
    ours = [path for path in settings.MIDDLEWARE if _is(path, DjangosMiddleware)]
    if len(ours) > 1:
        yield Caution(
            f"MIDDLEWARE has more than one middleware of sessions: {', '.join(ours)}. Each makes a session of its own.",
            hint=f"Leave only {MIDDLEWARE!r}.",
            id="elasticache_sessions.W005",
        )
    if not apps.is_installed("django.contrib.auth"):
        return
    from django.contrib.auth.middleware import AuthenticationMiddleware

    first = settings.MIDDLEWARE.index(ours[0])
    for path in settings.MIDDLEWARE[:first]:
        if _is(path, AuthenticationMiddleware):
            yield Caution(
                f"MIDDLEWARE has {path} before {ours[0]}, so that nobody is ever signed in.",
                hint=f"Put {ours[0]!r} before it.",
                id="elasticache_sessions.W006",
            )


def check_hardening(app_configs: Sequence[Any] | None, **options: Any) -> list[CheckMessage]:
    """`manage.py check --deploy`: what weakens sessions, `hardening.findings` and W050: a serializer that does."""
    if not _is(f"{settings.SESSION_ENGINE}.SessionStore", SessionStore):
        return []
    try:
        found = findings(package_settings(), _cookie())
    except ConfigurationError:
        return []  # E001 says so
    return [Caution(each.message, hint=each.hint, id=each.id) for each in (*found, *_of_the_serializer())]


def _cookie() -> CookieFacts:
    return CookieFacts(
        name=settings.SESSION_COOKIE_NAME,
        secure=bool(settings.SESSION_COOKIE_SECURE),
        http_only=bool(settings.SESSION_COOKIE_HTTPONLY),
        same_site=settings.SESSION_COOKIE_SAMESITE or None,
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
    )


def _of_the_serializer() -> Iterator[Finding]:
    serializer = settings.SESSION_SERIALIZER
    if _is(serializer, JSONSerializer):
        return
    runs = "pickle" in serializer.lower()
    yield warning(
        50,
        f"SESSION_SERIALIZER is {serializer}: {_CODE if runs else _UNKNOWN}",
        "Remove it: without one, values keep their types, tuples and datetimes among them, and nothing stored is ever run.",
    )


_CODE: Final = "whoever can write to the store can run code here."
_UNKNOWN: Final = "nobody can tell what it makes of bytes that somebody else put into the store."


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
