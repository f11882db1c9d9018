"""The least that a session can be under Flask and under Django: opened when it is touched, one `GET`, one `SET`, by a raw socket.
It loses changes of concurrent requests, brings ended sessions back, and fails with the store: nobody should use it. It is the
frameworks' own floor.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Final

import ormsgpack
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin

from .floor import Floor, raw_socket
from .sites import Site

PREFIX: Final = "least:"


class LeastSession(SessionMixin):
    def __init__(self, store: Floor, session_id: str | None) -> None:
        self.id = session_id
        self.accessed = self.modified = False
        self._store = store
        self._found: dict[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        self.accessed = True
        if self._found is None:
            self._found = ormsgpack.unpackb(self._store.get(PREFIX + self.id)) if self.id else {}
        return self._found

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.fields[key] = value
        self.modified = True

    def __delitem__(self, key: str) -> None:
        del self.fields[key]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


class LeastInterface(SessionInterface):
    def __init__(self, site: Site) -> None:
        self._store = raw_socket(site)

    def open_session(self, app: Flask, request: Request) -> LeastSession:
        return LeastSession(self._store, request.cookies.get(self.get_cookie_name(app)))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        assert isinstance(session, LeastSession)
        if session.accessed:
            response.vary.add("Cookie")
        if session.modified:
            if session.id is None:
                session.id = secrets.token_urlsafe(30)
                response.set_cookie(self.get_cookie_name(app), session.id, httponly=True)
            self._store.put(PREFIX + session.id, ormsgpack.packb(session.fields))


class SessionStore(SessionBase):
    """The engine, as SESSION_ENGINE finds it."""

    _store: Floor | None = None

    @classmethod
    def store(cls) -> Floor:
        if cls._store is None:
            cls._store = raw_socket(Site(settings.LEAST_PORT, 0))
        return cls._store

    def load(self) -> dict[str, Any]:
        fields: dict[str, Any] = ormsgpack.unpackb(self.store().get(PREFIX + str(self.session_key)))
        return fields

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            self._session_key = secrets.token_hex(16)
        self.store().put(PREFIX + str(self.session_key), ormsgpack.packb(dict(self.items())))

    def exists(self, session_key: str) -> bool:
        return bool(self.store().get(PREFIX + session_key))
