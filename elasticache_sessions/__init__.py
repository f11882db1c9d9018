"""Web sessions in Amazon ElastiCache (Valkey, Redis OSS, Memcached), for Flask, Django and anything else.

Importing this imports neither a framework nor a driver. For Flask: `from elasticache_sessions.flask import
ElastiCacheSessions`; for Django: `SESSION_ENGINE = "elasticache_sessions.django"`.
"""

from __future__ import annotations

from .exceptions import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    IndexLost,
    MissingExtra,
    OutcomeUnknown,
    SessionEnded,
    SessionError,
    StoreUnavailable,
    TooManySessions,
    ValueTooLarge,
)
from .fields import Fields
from .index import Origin, SessionInfo
from .manager import AsyncSessionManager, SessionManager
from .session import Session
from .settings import Settings

__all__ = [
    "AsyncSessionManager",
    "ConfigurationError",
    "DecodeError",
    "EncodeError",
    "Fields",
    "IndexLost",
    "MissingExtra",
    "Origin",
    "OutcomeUnknown",
    "Session",
    "SessionEnded",
    "SessionError",
    "SessionInfo",
    "SessionManager",
    "Settings",
    "StoreUnavailable",
    "TooManySessions",
    "ValueTooLarge",
]
__version__ = "0.1.0"
