"""Web sessions in Amazon ElastiCache: Valkey and Redis, for Flask and anything else.

Importing this imports neither a framework nor a driver. For Flask: `from elasticache_sessions.flask import
ElastiCacheSessions`.
"""

from __future__ import annotations

from .exceptions import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    MissingExtra,
    OutcomeUnknown,
    SessionEnded,
    SessionError,
    StoreUnavailable,
    ValueTooLarge,
)
from .fields import Fields
from .manager import AsyncSessionManager, SessionManager
from .session import Session
from .settings import Settings

__all__ = [
    "AsyncSessionManager",
    "ConfigurationError",
    "DecodeError",
    "EncodeError",
    "Fields",
    "MissingExtra",
    "OutcomeUnknown",
    "Session",
    "SessionEnded",
    "SessionError",
    "SessionManager",
    "Settings",
    "StoreUnavailable",
    "ValueTooLarge",
]
__version__ = "0.1.0"
