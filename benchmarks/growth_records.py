"""What each stack stores for a session: its own code, with a store that only notes what it is to keep."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from elasticache_sessions import Session, SessionManager, Settings, flows
from elasticache_sessions.clients.base import Stored, Write
from elasticache_sessions.index import Origin
from elasticache_sessions.manager import rules_for
from elasticache_sessions.record import REVISION_BYTES, Header, Kind, Record, following, pack
from elasticache_sessions.session import Rules, new_id

LIFETIME: Final = 14 * 86_400
_ORIGIN: Final = Origin(
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "203.0.113.57",
)
"""What most browsers say of themselves, which the list of a user's sessions keeps."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store is to keep, and by which id the stack finds it."""

    session_id: str
    key: bytes
    value: bytes
    flags: int = 0
    """Memcached's, by which a client knows how to decode it."""


Make = Callable[[dict[str, Any]], Kept]
Load = Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Stack:
    name: str
    make: Make
    """What it keeps for that content."""
    loads: Callable[[str], Load]
    """What reads it by its id from the server at a URL."""


def ours(memcached: bool, **settings: Any) -> Stack:
    options = Settings(url="memory://", **settings)
    rules = rules_for(options, idle_timeout=LIFETIME)
    header = signed_in({"user_id": "1"}, rules).header

    def make(fields: dict[str, Any]) -> Kept:
        """What `signed_in` comes to, many times as fast."""
        session_id = new_id()
        mine = rules.fields()
        mine.update(fields)
        head = header._replace(owner=rules.owner_hash(fields["user_id"]), generation=0, revisions=())
        record = Record(following(head, secrets.token_bytes(REVISION_BYTES)), mine.encoded())
        return Kept(session_id, rules.key(session_id), bytes(pack(record, rules.seal(session_id))))

    def loads(url: str) -> Load:
        manager = SessionManager.connect(replace(options, url=url, timeout=5.0))

        def load(session_id: str) -> dict[str, Any]:
            session = manager.load(session_id)
            return {} if session is None else dict(session.fields)

        return load

    compressed = ", compressed" if options.compress_min_bytes is not None else ""
    return Stack(f"elasticache-sessions{compressed}", make, loads)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session that its user is signed in with, and the list of that user's sessions."""

    header: Header
    session: Write
    listed: Write


def signed_in(fields: dict[str, Any], rules: Rules) -> SignedIn:
    """By a store that holds nothing, and keeps everything."""
    session = Session(owner=fields["user_id"], origin=_ORIGIN)
    session.fields.update(fields)
    written: dict[bytes, Write] = {}
    flow = flows.commit(session, rules)
    asked: Any = next(flow)
    try:
        while True:
            if isinstance(asked, Write):
                written[asked.key] = asked
            asked = flow.send(Stored(asked.token) if isinstance(asked, Write) else None)
    except StopIteration:
        assert session.id is not None
        assert session.stored is not None
        record = written.pop(rules.key(session.id))
        (listed,) = written.values()
        return SignedIn(session.stored.header, record, listed)


def tombstone(signed: SignedIn) -> bytes:
    """What stays of a session that has ended, or got another id, for as long as it could have lived."""
    header = following(signed.header._replace(kind=Kind.TOMBSTONE), secrets.token_bytes(REVISION_BYTES))
    return bytes(pack(Record(header)))


class _Notes:
    """In the place of a client of Redis or Memcached."""

    key: Any
    value: Any
    flags = 0

    def set(self, name: Any, value: Any, *_: Any, **__: Any) -> bool:
        self.key, self.value = name, value
        return True


def flask_session(memcached: bool) -> Stack:
    import flask
    from flask_session.memcached import MemcachedSessionInterface
    from flask_session.redis import RedisSessionInterface
    from pymemcache.client.base import Client
    from redis import Redis

    app, notes = flask.Flask("growth"), _Notes()
    kind: Any = MemcachedSessionInterface if memcached else RedisSessionInterface

    def interface(client: Any) -> Any:
        # It makes sure that it is given a client of the right class, and else makes one, which connects to nobody here.
        made = kind(app, Client(("127.0.0.1", 1)) if memcached else Redis())
        made.client = client
        return made

    writer = interface(notes)

    def make(fields: dict[str, Any]) -> Kept:
        sid = writer._generate_sid(writer.sid_length)
        session = writer.session_class(fields, sid=sid, permanent=True)
        writer._upsert_session(app.permanent_session_lifetime, session, writer._get_store_id(sid))
        return Kept(sid, notes.key.encode(), bytes(notes.value))

    def loads(url: str) -> Load:
        port = int(url.rpartition(":")[2].partition("/")[0])
        reader = interface(Client(("127.0.0.1", port)) if memcached else Redis(port=port))

        def load(sid: str) -> dict[str, Any]:
            found = dict(reader._retrieve_session_data(reader._get_store_id(sid)) or {})
            found.pop("_permanent", None)
            return found

        return load

    return Stack("Flask-Session", make, loads)


def django_cache(memcached: bool) -> Stack:
    import django
    from django.conf import settings

    backend = "memcached.PyMemcacheCache" if memcached else "redis.RedisCache"
    settings.configure(
        CACHES={
            "default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "redis://127.0.0.1:1"}
        },
        SESSION_COOKIE_AGE=LIFETIME,
        SECRET_KEY="s" * 32,
    )
    django.setup()
    from django.contrib.sessions.backends.base import VALID_KEY_CHARS
    from django.contrib.sessions.backends.cache import SessionStore
    from django.core.cache import caches

    cache: Any = caches["default"]
    notes = _Notes()
    if memcached:
        cache.__dict__["_cache"] = _Pickling(notes, cache._options["serde"])
    else:
        cache._cache.get_client = lambda *_, **__: notes

    def make(fields: dict[str, Any]) -> Kept:
        key = "".join(random.choices(VALID_KEY_CHARS, k=32))
        session: Any = SessionStore(key)
        session._session_cache = fields
        session.save(must_create=True)
        return Kept(key, notes.key.encode(), bytes(notes.value), notes.flags)

    def loads(url: str) -> Load:
        reader = type(cache)(url.partition("//")[2] if memcached else url, {})

        def load(key: str) -> dict[str, Any]:
            session: Any = SessionStore(key)
            session._cache = reader
            return dict(session.items())

        return load

    return Stack("Django's cache engine", make, loads)


class _Pickling:
    """In the place of pymemcache's client, as Django uses it."""

    def __init__(self, notes: _Notes, serde: Any) -> None:
        self._notes, self._serde = notes, serde

    def add(self, key: str, value: Any, *_: Any) -> bool:
        data, self._notes.flags = self._serde.serialize(key, value)
        return self._notes.set(key, data)


STACKS: Final = (ours, flask_session, django_cache)
