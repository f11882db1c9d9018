"""What `django.contrib.auth` does to users, and what becomes of their sessions then. `apps` connects it.

A user's password changes: the others of his sessions end. He is deactivated, or deleted: all do. That happens once the
transaction has been committed. Django refuses those sessions anyway, by the hash of the password or as their user is not
there or not active; here they end in the store as well, so that nothing brings them back.

Where the store fails then, the change stays, and the exception is raised: to whoever changed the user, a request or a
command. It is no success if somebody is still signed in, and a second try finds the store again.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import is_password_usable
from django.contrib.auth.signals import user_logged_in
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_save
from django.dispatch import receiver
from django.utils.module_loading import import_string

from ..exceptions import IndexLost, SessionError, TooManySessions
from ..session import OWNED_ABSOLUTE_TIMEOUT
from . import user_sessions
from .lazy import logger
from .store import SessionStore

# Set on a user between `pre_save` and `post_save`.
_DISABLED = "_elasticache_sessions_password_disabled"
# Seconds, and more than they should.
_CLOCKS_DIFFER = 600


# Connected when `apps` is imported, so before any app is ready, and called before receivers that write down who signed in:
# they are not to do so for somebody who was refused.
@receiver(user_logged_in, dispatch_uid="elasticache_sessions")
def signed_in(request: Any = None, **_: Any) -> None:
    """Raises TooManySessions: see `SessionStore.signed_in`."""
    session = getattr(request, "session", None)
    if not isinstance(session, SessionStore):
        return
    try:
        session.signed_in(request)
    except TooManySessions:
        _be_nobody(request)
        raise


def _be_nobody(request: Any) -> None:
    """Take back what `login` and `alogin` have said to the request already."""
    from django.contrib.auth.models import AnonymousUser  # once the apps are there

    async def auser() -> AnonymousUser:
        return AnonymousUser()

    if hasattr(request, "user"):
        request.user = AnonymousUser()
    if hasattr(request, "auser"):
        request.auser = auser


def connect() -> None:
    """For the user model, its proxies and children. Not for all models: one that is watched cannot be deleted fast."""
    try:
        user_model = get_user_model()
    except ImproperlyConfigured:  # a project without users
        return
    for model in apps.get_models():
        if issubclass(model, user_model):
            pre_save.connect(note_disabled_password, model, dispatch_uid="elasticache_sessions")
            post_save.connect(saved, model, dispatch_uid="elasticache_sessions")
            post_delete.connect(deleted, model, dispatch_uid="elasticache_sessions")


def note_disabled_password(
    instance: Any, raw: bool = False, using: str | None = None, update_fields: Any = None, **_: Any
) -> None:
    """`set_unusable_password` leaves no trace but in the database, so that is asked: only of users without a password."""
    password = getattr(instance, "password", None)
    if (
        raw
        or instance._state.adding
        or is_password_usable(password)
        or not _is_among(update_fields, "password")
    ):
        return
    stored = type(instance)._base_manager.using(using).filter(pk=instance.pk)
    known = stored.values_list("password", flat=True).first()
    setattr(instance, _DISABLED, known is not None and known != password)


def saved(
    instance: Any,
    created: bool = False,
    raw: bool = False,
    using: str | None = None,
    update_fields: Any = None,
    **_: Any,
) -> None:
    disabled = instance.__dict__.pop(_DISABLED, False)
    if created or raw:
        return
    if not getattr(instance, "is_active", True) and _is_among(update_fields, "is_active"):
        _end_after_commit(instance, using, "deactivated")
    # `set_password` keeps it until the user is saved; a hash that is only made anew by a better algorithm does not.
    elif disabled or (
        getattr(instance, "_password", None) is not None and _is_among(update_fields, "password")
    ):
        _end_after_commit(instance, using, "password_changed", keep_current=True)


def deleted(instance: Any, using: str | None = None, **_: Any) -> None:
    _end_after_commit(instance, using, "deleted")


def _is_among(update_fields: Any, name: str) -> bool:
    return update_fields is None or name in update_fields


def _end_after_commit(user: Model, using: str | None, reason: str, *, keep_current: bool = False) -> None:
    if _is_ours():
        label, owner = user._meta.label, user_sessions.owner_of(user)
        end = partial(_end, label, owner, reason, _last_login(user), keep_current=keep_current)
        transaction.on_commit(end, using=using)


def _is_ours() -> bool:
    """Whether the sessions are. The app may be there before SESSION_ENGINE is."""
    return issubclass(import_string(f"{settings.SESSION_ENGINE}.SessionStore"), SessionStore)


def _last_login(user: Model) -> float | None:
    """When the user last signed in, as far as the user object says so: 0.0 for never, None where it does not tell."""
    known = user.__dict__.get(
        "last_login", ...
    )  # what was deferred is not asked for: the user may be deleted by now
    if known is None:
        return 0.0
    return known.timestamp() if isinstance(known, datetime) else None


def _end(label: str, owner: str, reason: str, last_login: float | None, *, keep_current: bool) -> None:
    try:
        try:
            if _may_be_signed_in(owner, last_login):
                user_sessions.end_all(owner, keep_current=True, reason=reason)
        except IndexLost as error:
            # No second try would find more, and each that is left ends as soon as it is asked for.
            logger.warning("%s %s: %s, but %s", label, owner, reason, error)
        if not keep_current and (request := user_sessions.asking(owner)) is not None:
            request.session.flush()  # no sign-out by the user: nobody is told so
    except SessionError as error:
        logger.error("%s %s: %s, but sessions of theirs are left: %s", label, owner, reason, error)
        error.add_note(
            f"The change to {label} {owner} is in the database. End their sessions: do it again, or call "
            f"user_sessions.end_all({owner!r})."
        )
        raise


def _may_be_signed_in(owner: str, last_login: float | None) -> bool:
    """Where there is no list, the whole store would be searched, to no end for somebody who has not signed in for so long, as
    most have not who forgot their password. Where there is one, it counts: not every sign-in is written down.
    """
    rules = user_sessions.managers_of_engine().rules
    longest = (rules.absolute_timeout or OWNED_ABSOLUTE_TIMEOUT) + _CLOCKS_DIFFER
    if last_login is None or last_login > rules.now() - longest:
        return True
    return user_sessions.has_list(owner)
