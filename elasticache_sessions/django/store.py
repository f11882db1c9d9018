"""The object behind `request.session`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.http import HttpRequest

from ..exceptions import TooManySessions
from ..fields import Fields
from ..session import SessionId, new_id
from .lazy import LazySession
from .signing_in import sign_in, take_back
from .state import State

T = TypeVar("T")


class SessionStore(LazySession):
    """A session as Django documents it, sync and async. Asks the store when it is first touched.

    Whatever asks the store raises StoreUnavailable; what writes raises SessionGone (an UpdateError), EncodeError and
    ValueTooLarge as well.
    """

    # Django's verbs, and their twins for event loops.

    def load(self) -> Fields:
        """What the store holds now. One round trip. Where there is no such session: {}, and there is no key any more."""
        return self._run(self._state.load(self._rules))

    async def aload(self) -> Fields:
        """As `load`."""
        return await self._arun(self._state.load(self._rules))

    def exists(self, session_key: str | None) -> bool:
        """Whether there is a session with that key. One round trip; none for what cannot be a key."""
        session_key = secret(session_key)
        return self._run(self._state.look(session_key, self._rules))

    async def aexists(self, session_key: str | None) -> bool:
        """As `exists`."""
        session_key = secret(session_key)
        return await self._arun(self._state.look(session_key, self._rules))

    def create(self) -> None:
        """Store the content under a new key, at once. What is stored under the old one stays there."""
        self.accessed = True
        self._run(self._state.create(self._rules))

    async def acreate(self) -> None:
        """As `create`."""
        self.accessed = True
        await self._arun(self._state.create(self._rules))

    def save(self, must_create: bool = False) -> None:
        """Store what changed, merged with what other requests changed meanwhile; create the session if it has no key.

        Without changes, the session's idle time begins anew. With `must_create`, raises CreateError where it is there.
        """
        self.accessed = True
        self._run(self._state.save(self._rules, must_create))

    async def asave(self, must_create: bool = False) -> None:
        """As `save`."""
        self.accessed = True
        await self._arun(self._state.save(self._rules, must_create))

    def apply(self, change: Callable[[Fields], T]) -> T:
        """Run `change(fields)` on the newest state, store it at once, and return what it returned.

        Exact under concurrency, for counters and the like: `change` runs again when another request was faster, so it
        should only compute.

        Raises:
            SessionGone: the session was ended meanwhile; nothing was stored.
            OutcomeUnknown: nobody can tell whether it was stored.
            StoreUnavailable, EncodeError, ValueTooLarge
        """
        self.accessed = True
        return self._run(self._state.apply(change, self._rules), decisive=self.anonymous)

    async def aapply(self, change: Callable[[Fields], T]) -> T:
        """As `apply`; `change` is a plain function."""
        self.accessed = True
        return await self._arun(self._state.apply(change, self._rules), decisive=self.anonymous)

    def cycle_key(self) -> None:
        """Give the session a new key, same content; the old one ends.

        At once where a user is signed in. Else with the next save, together with what the sign-in stores, so that an
        outage in between leaves everything as it was. `session_key` is the new one from now on.
        """
        self.accessed = True
        self._run(self._state.cycle(self._rules), decisive=True)

    async def acycle_key(self) -> None:
        """As `cycle_key`."""
        self.accessed = True
        await self._arun(self._state.cycle(self._rules), decisive=True)

    def flush(self) -> None:
        """End the session, at once and for every copy of its cookie. What is put in later begins a new one."""
        self.accessed = True
        self._state.want_flush(self._rules)
        self._run(self._state.flush(self._rules))

    async def aflush(self) -> None:
        """As `flush`."""
        self.accessed = True
        self._state.want_flush(self._rules)
        await self._arun(self._state.flush(self._rules))

    def delete(self, session_key: str | None = None) -> None:
        """End the session with that key, or this one. Nothing happens where there is none."""
        session_key = secret(session_key)
        self._run(self._state.delete(session_key, self._rules), decisive=True)

    async def adelete(self, session_key: str | None = None) -> None:
        """As `delete`."""
        session_key = secret(session_key)
        await self._arun(self._state.delete(session_key, self._rules), decisive=True)

    # Whose it is.

    def fresh(self, seconds: float) -> bool:
        """Whether its user signed in less than so many seconds ago: else ask for the password again (and call
        `django.contrib.auth.login` with it) before anything that matters. At most one round trip.
        """
        self._get_session()
        return self._is_fresh(seconds)

    async def afresh(self, seconds: float) -> bool:
        """As `fresh`."""
        await self._aget_session()
        return self._is_fresh(seconds)

    def _is_fresh(self, seconds: float) -> bool:
        core = self._state.core
        return core is not None and core.fresh(seconds, self._rules)

    def signed_in(self, request: HttpRequest) -> None:
        """`django.contrib.auth` has just signed somebody in: the time since then begins anew, and the key is a new one after the
        save, also where it was the same user who was signed in already.

        Raises:
            TooManySessions: ON_LIMIT is "refuse", and the user has as many as may be; the session is as it was before.
            SessionGone, StoreUnavailable: the same setting has it saved at once.
        """
        self.comes_with(request)
        if not sign_in(self._state):
            return  # to something else, an API say
        if self._rules.max_sessions is None or self._rules.on_limit != "refuse":
            return
        try:
            self._run(self._state.save(self._rules), decisive=True)
        except TooManySessions:
            take_back(self._state)
            raise
        # It counts already, so the browser must hear of it, whatever becomes of the request.
        self._state.moved = True

    # What Django's middleware asks before it saves.

    def get_expire_at_browser_close(self) -> bool:
        with _Aside(self._state):
            return bool(super().get_expire_at_browser_close())

    async def aget_expire_at_browser_close(self) -> bool:
        with _Aside(self._state):
            return bool(await super().aget_expire_at_browser_close())

    def get_expiry_age(self, **known: Any) -> int:
        with _Aside(self._state):
            return int(super().get_expiry_age(**known))

    async def aget_expiry_age(self, **known: Any) -> int:
        with _Aside(self._state):
            return int(await super().aget_expiry_age(**known))

    # A random key is free, and the store forgets by itself: neither needs to be asked.

    def _get_new_session_key(self) -> str:
        return str(new_id())

    async def _aget_new_session_key(self) -> str:
        return str(new_id())

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing to do: the store drops what has expired."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """As `clear_expired`."""


class _Aside:
    """The block is no use of the session: where it reads it, the save that follows need not look again."""

    __slots__ = ("_just_read", "_state")

    def __init__(self, state: State) -> None:
        self._state, self._just_read = state, state.core is None or state.just_read

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._state.just_read = self._just_read


def secret(session_key: str | None) -> SessionId | None:
    """A key that whoever calls has given as a plain str."""
    return None if session_key is None else SessionId(session_key)
