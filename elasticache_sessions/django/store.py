"""The object behind `request.session`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase

from ..exceptions import StoreUnavailable
from ..fields import Fields
from ..session import Rules, new_id
from ..settle import Flow
from .asking import Asking
from .managers import Managers, managers
from .state import State

logger: Final = logging.getLogger("elasticache_sessions.django")

# What a Flask app that shares the session puts behind the id (a permanent session, see `flask`).
_FLASKS_MARK: Final = ".p"

T = TypeVar("T")


class SessionStore(SessionBase):
    """A session as Django documents it, sync and async. Asks the store when it is first touched.

    Whatever asks the store raises StoreUnavailable; what writes raises SessionGone (an UpdateError), EncodeError and
    ValueTooLarge as well.
    """

    managers: Callable[[], Managers] = staticmethod(managers)
    """Where its sessions are kept: what the settings say. A subclass may keep its own elsewhere."""

    def __init__(self, session_key: str | None = None) -> None:
        self._state = State()
        self._asking = Asking(self._state)
        super().__init__(session_key)

    @property
    def failure(self) -> StoreUnavailable | None:
        """What the store failed with when it was last asked: nothing is known of the session then."""
        return self._asking.failure

    @property
    def store_seconds(self) -> float:
        """How long this object has waited for the store, in seconds."""
        return self._asking.seconds

    @property
    def handle(self) -> str | None:
        """The session's public name, for logs and lists; None while it is not stored. Tells nobody its id."""
        self._get_session()
        return None if self._state.core is None else self._state.core.handle

    # Asking the store.

    @property
    def _rules(self) -> Rules:
        try:
            return self.managers().rules
        except StoreUnavailable as error:  # AWS did not say where the store is
            with self._asking.question():
                raise error

    def _run(self, flow: Flow[T], *, decisive: bool = False) -> T:
        with self._asking.question(decisive=decisive):
            return self.managers().sync.run(flow)

    async def _arun(self, flow: Flow[T], *, decisive: bool = False) -> T:
        async with self._asking.turn():
            with self._asking.question(decisive=decisive):
                return await self.managers().asynchronous.run(flow)

    # The key and the content, where Django's own methods look for them.

    def _get_session_key(self) -> str | None:
        return self._state.key

    def _set_session_key(self, value: object) -> None:
        key = value.removesuffix(_FLASKS_MARK) if isinstance(value, str) else None
        valid = key is not None and self._validate_session_key(key)  # type: ignore[attr-defined]  # the stubs forgot it
        self._state.key = key if valid else None

    session_key = property(_get_session_key)
    _session_key = property(_get_session_key, _set_session_key)

    @property
    def _session_cache(self) -> Fields:
        if self._state.core is None:
            raise AttributeError("the session has not been read yet")
        return self._state.core.fields

    @_session_cache.setter
    def _session_cache(self, content: dict[str, Any]) -> None:
        fields = (self._state.core or self._state.begin_unread(self._rules)).fields
        if content is not fields:
            fields.clear()
            fields.update(content)

    @_session_cache.deleter
    def _session_cache(self) -> None:
        """Read it anew when it is next touched."""
        if self._state.core is None:
            raise AttributeError("the session has not been read yet")
        self._state.core, self._state.unread = None, False

    def _get_session(self, no_load: bool = False) -> Fields:
        self.accessed, self._state.just_read = True, False
        if self._state.core is None:
            if self.session_key is None or no_load:
                self._state.begin_unread(self._rules)
            else:
                self._run(self._state.read(self._rules))
        return self._session_cache

    async def _aget_session(self, no_load: bool = False) -> Fields:
        self.accessed = True
        async with self._asking.turn():
            if self._state.core is None and self.session_key is not None and not no_load:
                with self._asking.question():
                    await self.managers().asynchronous.run(self._state.read(self._rules))
            return self._get_session(no_load)

    _session = property(_get_session)

    @property
    def modified(self) -> bool:
        """Whether this request changed the session, in place too. Setting it to False takes what is there now as
        unmodified.
        """
        return self._state.is_modified()

    @modified.setter
    def modified(self, value: bool) -> None:
        self._state.declare(bool(value))

    def is_empty(self) -> bool:
        """Whether there is neither a key nor content, so that the cookie can be deleted.

        Not while the store fails, and not for a session that ended, or got another id, elsewhere just now: the cookie
        that the browser holds by then may be a newer one. (Under SESSION_SAVE_EVERY_REQUEST Django's own middleware would
        begin a new session instead; it is better to delete the cookie. Ours leaves it alone.)
        """
        newer = self._state.ended and not self._state.flushed and not settings.SESSION_SAVE_EVERY_REQUEST
        return self.failure is None and not newer and self.is_blank

    @property
    def is_blank(self) -> bool:
        """Whether there is neither a key nor content."""
        return bool(super().is_empty())

    @property
    def ended_elsewhere(self) -> bool:
        """Whether this request found that the session had ended, or got another id. It is nobody's business to delete
        the cookie then, not even for a sign-out.
        """
        return self._state.ended

    def clear(self) -> None:
        """Forget the content; the session stays, under its key. Asks the store nothing."""
        self._state.clear(self._rules)
        self.accessed = True

    # Django's verbs, and their twins for event loops.

    def load(self) -> Fields:
        """What the store holds now. One round trip. Where there is no such session: {}, and there is no key any more."""
        return self._run(self._state.load(self._rules))

    async def aload(self) -> Fields:
        """As `load`."""
        return await self._arun(self._state.load(self._rules))

    def exists(self, session_key: str | None) -> bool:
        """Whether there is a session with that key. One round trip; none for what cannot be a key."""
        return self._run(self._state.look(session_key, self._rules))

    async def aexists(self, session_key: str | None) -> bool:
        """As `exists`."""
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
        return self._run(self._state.apply(change, self._rules))

    async def aapply(self, change: Callable[[Fields], T]) -> T:
        """As `apply`; `change` is a plain function."""
        self.accessed = True
        return await self._arun(self._state.apply(change, self._rules))

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
        self._run(self._state.delete(session_key, self._rules), decisive=True)

    async def adelete(self, session_key: str | None = None) -> None:
        """As `delete`."""
        await self._arun(self._state.delete(session_key, self._rules), decisive=True)

    # What Django's middleware asks before it saves: where that reads the session, the save need not look again.

    @contextmanager
    def _for_expiry(self) -> Iterator[None]:
        just_read = self._state.core is None or self._state.just_read
        yield
        self._state.just_read = just_read

    def get_expire_at_browser_close(self) -> bool:
        with self._for_expiry():
            return bool(super().get_expire_at_browser_close())

    async def aget_expire_at_browser_close(self) -> bool:
        with self._for_expiry():
            return bool(await super().aget_expire_at_browser_close())

    def get_expiry_age(self, **known: Any) -> int:
        with self._for_expiry():
            return int(super().get_expiry_age(**known))

    async def aget_expiry_age(self, **known: Any) -> int:
        with self._for_expiry():
            return int(await super().aget_expiry_age(**known))

    # A random key is free, and the store forgets by itself: neither needs to be asked.

    def _get_new_session_key(self) -> str:
        return new_id()

    async def _aget_new_session_key(self) -> str:
        return new_id()

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing to do: the store drops what has expired."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """As `clear_expired`."""
