"""Django: `SESSION_ENGINE = "elasticache_sessions.django"`, and the same in INSTALLED_APPS.

    MIDDLEWARE: "elasticache_sessions.django.middleware.SessionMiddleware" in the place of Django's own.

`request.session` works as Django documents it, sync and async. What comes on top: concurrent requests lose no
change, `request.session.apply(fn)` is exact, and an outage of the store logs nobody out.
"""

from __future__ import annotations

from ..exceptions import MissingExtra

try:
    import django as _  # noqa: F401 - to say what to install where it is missing
except ImportError as missing:
    raise MissingExtra("Django is not installed: pip install 'elasticache-sessions[django]'") from missing

from .asking import SessionGone
from .store import SessionStore

__all__ = ["SessionGone", "SessionStore"]
