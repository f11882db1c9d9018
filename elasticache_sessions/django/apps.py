"""The app for INSTALLED_APPS: its system checks, and what it does when users change."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from . import receivers


class ElastiCacheSessionsConfig(AppConfig):
    name = "elasticache_sessions.django"
    label = "elasticache_sessions"
    verbose_name = "Sessions in ElastiCache"

    def ready(self) -> None:
        from .checks import check_hardening, check_middleware, check_settings

        checks.register(check_settings)
        checks.register(check_middleware)
        checks.register(check_hardening, checks.Tags.security, deploy=True)
        receivers.connect()
