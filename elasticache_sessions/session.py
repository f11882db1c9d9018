"""The session as one request knows it, the rules it lives by, its names and its lifetimes. Pure: no I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from .exceptions import DecodeError
from .fields import Fields
from .index import CLOCKS_APART, UNKNOWN_ORIGIN, Origin
from .record import NO_OWNER, OWNER_BYTES, Header, Record
from .sealing import Box, Seal

logger: Final = logging.getLogger("elasticache_sessions")

OWNED_ABSOLUTE_TIMEOUT: Final = 30 * 86_400
"""Seconds after signing in when an owned session ends though no absolute timeout is set (NIST SP 800-63B-4,
AAL1).
"""

UNREADABLE: Final = "session %s cannot be read and counts as none: %s"
FOREVER: Final = 2**32 - 1
"""The latest time, and the longest lifetime, that a header has room for."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{40}", re.ASCII)
_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class SessionId(str):
    """An id as everything here holds it: a str that shows as the session's handle, so that a traceback with variables, as
    Sentry and Django's page for errors have them, shows no id. `str(session_id)` is a plain one.
    """

    __slots__ = ("_handle",)
    _handle: str

    def __repr__(self) -> str:
        return f"<session {self.handle}>"

    @property
    def handle(self) -> str:
        """Worked out once: a request asks for it several times."""
        try:
            return self._handle
        except AttributeError:
            self._handle = _hashed(self)
            return self._handle


@dataclass(frozen=True, slots=True)
class Rules:
    """What a flow must know beside the session. Lifetimes in seconds."""

    prefix: str
    idle_timeout: int
    absolute_timeout: int | None = None
    sliding: bool = True
    owner_key: bytes | None = field(default=None, repr=False)
    max_bytes: int = 1_000_000
    box: Box | None = field(default=None, repr=False)
    """How records are encrypted and compressed; None: not at all, and what is encrypted cannot be read."""
    clock: Callable[[], float] = time.time
    blind_touch: bool = False
    """The client's: whether a read that slides sets the TTL without a look at the record."""
    can_scan: bool = True
    """The client's: whether the store can be searched for sessions."""
    max_sessions: int | None = None
    """How many sessions a user may be signed in with at once."""
    on_limit: str = "end_oldest"
    """What becomes of one more: "end_oldest", or "refuse"."""
    anonymous_idle_timeout: int | None = None
    """The idle timeout of sessions that are nobody's; None: that of all."""
    node_of: Callable[[bytes], str] | None = None
    """The client's: the name of the node that has a key, where each of several fails alone and for its own keys."""
    keeps_empty: bool = False
    """Whether a session that holds nothing is kept all the same, as Django does."""
    fields: type[Fields] = Fields
    """What a session's fields are, and so how their values are stored."""
    derive: Callable[[Header, Mapping[str, bytes], Rules], Header | None] | None = None
    """What the header has to be for such fields, where an adapter keeps a session's lifetime or owner among them; None:
    the session ends. Asked with each write, so that the header follows what a merge came to."""

    def now(self) -> int:
        return int(self.clock())

    def key(self, session_id: str) -> bytes:
        return f"{self.prefix}{handle_of(session_id)}".encode()

    def index_key(self, owner: bytes) -> bytes:
        """Where the list of an owner's sessions is, by `owner_hash`. No handle is as short."""
        return f"{self.prefix}{index_name(owner)}".encode()

    def seal(self, session_id: str) -> Seal | None:
        """What a session's record is packed and unpacked with."""
        return None if self.box is None else self.box.of_session(session_id, handle_of(session_id))

    def owner_seal(self, owner: bytes) -> Seal | None:
        """The same for the list of an owner's sessions, by `owner_hash`."""
        return None if self.box is None else self.box.of_owner(owner, index_name(owner))

    def owner_hash(self, owner: str) -> bytes:
        key = self.owner_key or f"elasticache-sessions:{self.prefix}".encode()
        return hmac.digest(key, owner.encode("utf-8", "surrogatepass"), hashlib.sha256)[:OWNER_BYTES]


@dataclass(slots=True, weakref_slot=True)
class Session:
    """One session as one request knows it. `fields` may be changed at will; nothing is stored before it is
    saved.
    """

    id: str | None = field(default=None, repr=False)
    """The secret that the cookie carries (a `SessionId`); None until the session is stored."""
    fields: Fields = field(default_factory=Fields, repr=False)
    stored: Record | None = field(default=None, repr=False)
    """The record as this request last saw it: the base of a merge."""
    token: bytes | None = None
    """What a compare-and-set compares with; None where only a read can tell."""
    ttl_left: float | None = None
    """Seconds the store would have kept the record when it was read; None where it did not say."""

    # What the request wishes for, until it is saved.
    idle_ttl: float | None = None
    """An idle timeout in seconds of this session's own. 0 or less ends the session, a part of a second is a whole one."""
    expires_at: float | None = None
    """An end of this session's own, in seconds since 1970."""
    owner: str | None = field(default=None, repr=False)
    """Whose session it is to be: gets a new id."""
    signing_in: bool = False
    """Whether its owner signs in anew: the absolute timeout begins again. Setting `owner` does so, too."""
    cycling: bool = False
    """Whether it is to get a new id."""
    next_id: str | None = field(default=None, repr=False)
    """The id that it will have once it is stored under a new one; None: any."""
    origin: Origin = field(default=UNKNOWN_ORIGIN, repr=False)
    """Where it is signed in from: for the list of its owner's sessions."""
    ending: bool = False
    """Whether it is to end; what `fields` holds then belongs to a new session."""
    forced: bool = False
    """Whether it is to be written although nothing changed."""

    @property
    def handle(self) -> str | None:
        """The public name: tells nobody the id."""
        return None if self.id is None else handle_of(self.id)

    @property
    def leaves_its_owner(self) -> bool:
        """Whether this request signs its owner out by hand: clears it, and puts nothing back of what was there, though perhaps
        something new, such as a message for the next page.
        """
        stored = self.stored
        return (
            stored is not None
            and self.fields.cleared
            and not any(name in self.fields for name in stored.fields)
        )

    def fresh(self, seconds: float, rules: Rules) -> bool:
        """Whether its user signed in less than so many seconds ago, or does with this request."""
        if self.owner is not None:
            return True
        if self.ending:
            return False
        if self.signing_in:
            return True
        if self.stored is None or not self.stored.header.owned or self.leaves_its_owner:
            return False
        # Another instance's clock may be ahead of this one's.
        return -CLOCKS_APART <= rules.now() - self.stored.header.authenticated_at < seconds

    def hold(self, session_id: str, record: Record, token: bytes | None) -> None:
        """The store has `record` now, under that id: the wishes about its content and lifetime are fulfilled."""
        self.id, self.stored, self.token = session_id, record, token
        self.idle_ttl = self.expires_at = self.next_id = None
        self.forced = self.signing_in = False
        self.fields.rebase(record.fields)

    def give_up(self, error: DecodeError) -> None:
        """What was read cannot be decoded: it counts as no session, and stays in the store as it is."""
        logger.warning(UNREADABLE, self.handle, error)
        self.let_go()

    def let_go(self) -> None:
        """The store has nothing of this session any more."""
        self.id = self.stored = self.token = None
        self.ending = self.forced = self.signing_in = False


def new_id() -> SessionId:
    return SessionId(secrets.token_urlsafe(30))


def is_id(text: object) -> bool:
    """Whether `text` can be a session id. What cannot costs no round trip."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def as_id(text: object) -> SessionId | None:
    """`text` as an id; None where it cannot be one."""
    if not is_id(text):
        return None
    return text if isinstance(text, SessionId) else SessionId(text)


def handle_of(session_id: str) -> str:
    """The session's storage key without the prefix: from it nobody gets back to the id."""
    return session_id.handle if isinstance(session_id, SessionId) else _hashed(session_id)


def _hashed(session_id: str) -> str:
    digest = hashlib.sha256(session_id.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def is_handle(text: object) -> bool:
    """Whether `text` can be a session's public name."""
    return isinstance(text, str) and _HANDLE.fullmatch(text) is not None


def index_name(owner: bytes) -> str:
    """The public name of the list of an owner's sessions, as `handle_of` is that of a session."""
    return f"o.{base64.urlsafe_b64encode(owner).rstrip(b'=').decode()}"


def fixed_end_of(header: Header, rules: Rules) -> int:
    """When a session ends however much it is used, in seconds since 1970; 0: never."""
    absolute = rules.absolute_timeout
    start = header.created
    if header.owned:
        absolute = absolute or OWNED_ABSOLUTE_TIMEOUT
        start = header.authenticated_at
    if not absolute:
        return header.expires_at
    end = start + absolute
    return min(header.expires_at, end) if header.expires_at else end


def end_of(header: Header, rules: Rules) -> int:
    """When a session ends if nothing is written any more, in seconds since 1970; 0: when its TTL does."""
    fixed_end = fixed_end_of(header, rules)
    return min(fixed_end, header.idle_end) if fixed_end and header.idle_end else fixed_end or header.idle_end


def ttl_of(header: Header, rules: Rules) -> int:
    """Seconds that a record lives from now when it is written now; 0 or less: it has ended."""
    ttl = header.idle_ttl or rules.idle_timeout
    end = fixed_end_of(header, rules)
    return min(ttl, end - rules.now()) if end else ttl


def whole(seconds: float) -> int:
    """Seconds as a header holds them: a part of one is a whole one."""
    return FOREVER if seconds >= FOREVER else ceil(seconds)


def with_wishes(session: Session, before: Header, fields: Mapping[str, bytes], rules: Rules) -> Header | None:
    """`before` with what the request decided about the lifetime of a session that holds `fields`; None: that
    it ends, or has ended.
    """
    header = before if rules.derive is None else rules.derive(before, fields, rules)
    if header is None:
        return None
    if header.owner != before.owner and (since := _signed_in_before(session, header.owner, rules)):
        header = header._replace(authenticated_at=since)
    if session.signing_in and header.owned:
        own_end = 0 if rules.derive is None else header.expires_at
        header = header._replace(authenticated_at=rules.now(), expires_at=own_end)
    header = _short_while_anonymous(header, rules)
    if session.idle_ttl is not None:
        if session.idle_ttl <= 0:
            return None
        header = header._replace(idle_ttl=whole(session.idle_ttl))
    if session.expires_at is not None:
        header = header._replace(expires_at=max(1, whole(session.expires_at)))
    if (end := fixed_end_of(header, rules)) != header.expires_at:
        header = header._replace(expires_at=end)
    return header if ttl_of(header, rules) >= 1 else None


def nobodys(header: Header) -> Header:
    """`header` of a session whose owner is signed out of it."""
    return header._replace(owner=NO_OWNER, authenticated_at=0)


def _signed_in_before(session: Session, owner: bytes, rules: Rules) -> int:
    """Since when the session has been that owner's, by its content; 0: it was not. If so, OWNER_KEY is another, or it was cleared
    but for who is signed in: nobody has signed in anew.
    """
    stored = session.stored
    if stored is None or rules.derive is None or not stored.header.owned:
        return 0
    then = rules.derive(stored.header, stored.fields, rules)
    return stored.header.authenticated_at if then is not None and then.owner == owner else 0


def _short_while_anonymous(header: Header, rules: Rules) -> Header:
    """Nobody's session lives shorter where the rules say so, until somebody signs in."""
    if rules.anonymous_idle_timeout is None:
        return header
    short = min(rules.anonymous_idle_timeout, rules.idle_timeout)
    if not header.owned and not header.idle_ttl:
        return header._replace(idle_ttl=short)
    if header.owned and header.idle_ttl == short and rules.derive is None:
        return header._replace(idle_ttl=0)
    return header
