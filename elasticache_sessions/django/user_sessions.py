"""The sessions that a user is signed in with: a list of them, an end of one, an end of all.

    from elasticache_sessions.django import user_sessions

    user_sessions.for_user(request.user)
    user_sessions.end(request.user, handle)
    user_sessions.end_all(request.user)  # but this one; keep_current=False ends it, too

`user` is a user, or a primary key. Which session is the one that asks is known from `request`; without it, from the request
that our SessionMiddleware is serving. What is ended is gone at its very next request.

Each raises StoreUnavailable, and IndexLost where the store has lost the list and cannot be searched for it; our middleware
answers 503 to either. After an end that failed for want of the store it does so also if the view catches that.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import alogout, get_user_model, logout
from django.db.models import Model
from django.http import HttpRequest

from ..exceptions import ConfigurationError
from ..index import SessionInfo
from ..owner_list import read
from ..seen import SIGNED_OUT
from ..session import Session
from .current import request_now
from .managers import Managers
from .store import SessionStore


def for_user(user: Any, request: HttpRequest | None = None) -> list[SessionInfo]:
    """The sessions that `user` is signed in with, the one that asks first, then the last used first.

    One that this request signs in is among them once the session is saved.
    """
    owner = owner_of(user)
    return managers_of_engine().sync.for_user(owner, _core(asking(owner, request, decisive=False)))


async def afor_user(user: Any, request: HttpRequest | None = None) -> list[SessionInfo]:
    """As `for_user`."""
    owner = owner_of(user)
    return await managers_of_engine().asynchronous.for_user(
        owner, _core(await aasking(owner, request, decisive=False))
    )


def end(user: Any, handle: str, request: HttpRequest | None = None) -> bool:
    """End the session of `user` that has this handle. Returns whether there was one.

    The one that asks ends as by `django.contrib.auth.logout`, so that its cookie is deleted.
    """
    owner = owner_of(user)
    mine = asking(owner, request)
    if mine is not None and _session(mine).handle == handle:
        logout(mine)
        return True
    with _decisive(request):
        return managers_of_engine().sync.end_of_user(owner, handle, SIGNED_OUT)


async def aend(user: Any, handle: str, request: HttpRequest | None = None) -> bool:
    """As `end`."""
    owner = owner_of(user)
    mine = await aasking(owner, request)
    if mine is not None and _session(mine).handle == handle:
        await alogout(mine)
        return True
    with _decisive(request):
        return await managers_of_engine().asynchronous.end_of_user(owner, handle, SIGNED_OUT)


def end_all(
    user: Any, keep_current: bool = True, request: HttpRequest | None = None, reason: str = SIGNED_OUT
) -> int:
    """End all sessions of `user`. Returns how many.

    `keep_current`: but for the one that asks, if it is that user's. `reason`: for the events that tell of it.
    """
    owner = owner_of(user)
    mine = asking(owner, request)
    with _decisive(request):
        ended = managers_of_engine().sync.end_all(owner, _core(mine), reason)
    if mine is None or keep_current:
        return ended
    # Last, so that where the store failed before, whoever asked is still there to ask again.
    logout(mine)
    return ended + 1


async def aend_all(
    user: Any, keep_current: bool = True, request: HttpRequest | None = None, reason: str = SIGNED_OUT
) -> int:
    """As `end_all`."""
    owner = owner_of(user)
    mine = await aasking(owner, request)
    with _decisive(request):
        ended = await managers_of_engine().asynchronous.end_all(owner, _core(mine), reason)
    if mine is None or keep_current:
        return ended
    await alogout(mine)
    return ended + 1


def has_list(owner: str) -> bool:
    """Whether the store has a list of that owner's sessions. One round trip; nothing is searched."""
    managers = managers_of_engine()
    with _decisive(None):
        found = managers.sync.run(read(managers.rules.owner_hash(owner), managers.rules))
    return found.header is not None


def owner_of(user: Any) -> str:
    """What `django.contrib.auth` puts in the session of `user`, a user or a primary key.

    Raises:
        ValueError: that is nobody.
    """
    if not isinstance(user, Model):
        model = get_user_model()
        key = None if user is None else model._meta.pk.to_python(getattr(user, "pk", user))
        user = model(**{model._meta.pk.attname: key})
    if user.pk is None:
        raise ValueError(
            "that is nobody who could have sessions: pass a user who was saved, or a primary key"
        )
    return str(user._meta.pk.value_to_string(user))


def managers_of_engine() -> Managers:
    """Those of SESSION_ENGINE.

    Raises:
        ConfigurationError: it is not ours.
    """
    engine = import_module(settings.SESSION_ENGINE).SessionStore
    if not issubclass(engine, SessionStore):
        raise ConfigurationError(
            f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}, so nothing is known of a user's sessions. Set "
            "SESSION_ENGINE = 'elasticache_sessions.django'."
        )
    found: Managers = engine.managers()
    return found


def asking(owner: str, request: HttpRequest | None = None, *, decisive: bool = True) -> HttpRequest | None:
    """The request that asks, if its session is that owner's. Reads the session, if that has not been done.

    `decisive`: see `_decisive`.
    """
    if (request := request_now(request)) is not None:
        _session(request)._get_session(decisive=decisive)
    return request if _is_of(request, owner) else None


async def aasking(
    owner: str, request: HttpRequest | None = None, *, decisive: bool = True
) -> HttpRequest | None:
    """As `asking`."""
    if (request := request_now(request)) is not None:
        await _session(request)._aget_session(decisive=decisive)
    return request if _is_of(request, owner) else None


def _is_of(request: HttpRequest | None, owner: str) -> bool:
    return request is not None and _session(request).owner == owner


def _session(request: HttpRequest) -> SessionStore:
    return request.session  # type: ignore[return-value]  # `request_now` looked


def _decisive(request: HttpRequest | None) -> AbstractContextManager[None]:
    """Where the block fails, the request fails, too, also if its view catches that: nobody is told that a session ended which
    did not.
    """
    request = request_now(request)
    return nullcontext() if request is None else _session(request)._asking.question(decisive=True)


def _core(request: HttpRequest | None) -> Session | None:
    return None if request is None else _session(request)._state.core
