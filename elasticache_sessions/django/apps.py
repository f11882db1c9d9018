"""The app for INSTALLED_APPS: its system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class ElastiCacheSessionsConfig(AppConfig):
    name = "elasticache_sessions.django"
    label = "elasticache_sessions"
    verbose_name = "Sessions in ElastiCache"

    def ready(self) -> None:
        from .checks import check_middleware, check_settings

        checks.register(check_settings)
        checks.register(check_middleware)
