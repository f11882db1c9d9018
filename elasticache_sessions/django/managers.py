"""The managers of this process, made of Django's settings when they are first needed, and anew when a test changes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from ..manager import AsyncSessionManager, SessionManager, rules_for
from ..session import Rules
from ..settings import NAME, Settings
from .content import fields_of, follow
from .signals import announce


@dataclass(frozen=True, slots=True)
class Managers:
    """One for threads, one for event loops, with the same rules."""

    sync: SessionManager
    asynchronous: AsyncSessionManager
    rules: Rules
    anonymous: bool = False
    """Whether a request may go on with an empty session while the store is down."""


def package_settings() -> Settings:
    """What Django's settings say under `ELASTICACHE_SESSIONS_*`, else the environment.

    Raises:
        ConfigurationError: says what to set.
    """
    return Settings.from_mapping(
        {name: getattr(settings, name) for name in dir(settings) if name.startswith(NAME)}
    )


@cache
def managers() -> Managers:
    """What Django's settings say, connected on first use."""
    return connect(package_settings())


def connect(ours: Settings) -> Managers:
    """Managers for what `ours` name. Sessions slide where Django's settings or ours say so (`rules`)."""
    rules = rules_for(
        ours,
        idle_timeout=ceil(settings.SESSION_COOKIE_AGE),
        sliding=settings.SESSION_SAVE_EVERY_REQUEST or ours.idle_timeout is not None,
    )
    rules = replace(rules, keeps_empty=True, fields=fields_of(settings.SESSION_SERIALIZER), derive=follow)
    sync = SessionManager.connect(ours, rules=rules)
    asynchronous = AsyncSessionManager.connect(ours, rules=rules)
    for manager in (sync, asynchronous):
        manager.on_event(announce)
    return Managers(sync, asynchronous, sync.rules, ours.on_outage == "anonymous")


@receiver(setting_changed)
def _forget(*, setting: str, **_: Any) -> None:
    if setting.startswith((NAME, "SESSION_")):
        managers.cache_clear()
