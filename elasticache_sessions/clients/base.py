"""What a cache client does. The comments here are the specification; `elasticache_sessions.testing` holds it
as a suite.

A client performs three commands. Keys are bytes. Values are bytes that begin with a record's header
(`record`), so that a store which runs scripts can read the revision and the lifetimes. TTLs are whole
seconds, at least 1, and may be longer than 30 days.

- A miss is a reply, never an exception. What the network or the server did wrong is `StoreUnavailable`;
  nothing else, and no
  driver's exception, leaves a client. `StoreUnavailable.retry` says that the same command may be sent again
  at once: every command may be, since a write recognises itself by its revision.
- A client sends a command once. Repeating is the manager's business, which tells the flow
  (`Conflict.resent`).
- A reply that does not fit the question closes its connection: what comes next on it would belong to somebody
  else.
- A client may be used by several threads (or tasks of its event loop) at once, and in a forked child.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

ABSENT: Final = b""
"""The token of a key that holds nothing: writing with it creates."""


@dataclass(frozen=True, slots=True)
class Read:
    """Reply: `Entry`, or None where nothing is.

    With `touch`, the same round trip sets the TTL anew to `touch` seconds, or to the record's own idle TTL
    where it has one: only for a live record, never past its `expires_at` by the clock `now` (seconds since
    1970), and only once the lesser of 60 s and a tenth of that TTL has passed since the last time, so that
    not every read is a replicated write.

    A store that cannot look (`CacheClient.blind_touch`) sets the TTL of whatever is there to `touch` seconds.
    There a record with an idle TTL of its own keeps the end of it itself (`record.Header.idle_end`).
    """

    key: bytes
    touch: int | None = None
    now: int = 0


@dataclass(frozen=True, slots=True)
class Write:
    """Store `value` for `ttl` seconds if the key still holds what `token` names; `ABSENT`: if it holds
    nothing.

    Reply: `Stored` or `Conflict`. Atomic. A value that is refused leaves the stored one as it was.

    `exactly_once`: whoever writes must know whether it was stored. A store that keeps several copies takes one more round
    trip then, in which one of them decides.
    """

    key: bytes
    value: bytes = field(repr=False)
    ttl: int
    token: bytes
    exactly_once: bool = False


@dataclass(frozen=True, slots=True)
class Replace:
    """Store `value` for `ttl` seconds, whatever is there, but only if something is. Reply: bool, whether
    something was.
    """

    key: bytes
    value: bytes = field(repr=False)
    ttl: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key holds. `token` names this very version; `ttl_left` is in seconds, None where the store did
    not say.
    """

    value: bytes = field(repr=False)
    token: bytes
    ttl_left: float | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """`token` names what was written; None where the store does not say (then only a read can tell)."""

    token: bytes | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was written; `entry` is what is there instead, None where nothing is.

    `resent`: the command was sent more than once, so that an earlier sending may have been carried out. Set
    by the manager; and by a client that writes to several nodes, where one of them took it.
    """

    entry: Entry | None
    resent: bool = False


Command = Read | Write | Replace
Reply = Entry | Stored | Conflict | bool | None


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of several records without opening them. Reply: a `Glance` or None for each key, in their order."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Glance:
    """`header`: how the value begins, `record.HEADER_BYTES` of it or more; `ttl_left` is in seconds, None where the store
    would keep it for ever.
    """

    header: bytes
    ttl_left: float | None


@dataclass(frozen=True, slots=True)
class Scan:
    """Some of the keys that begin with `prefix`, and where to go on. Reply: `Page`. Every key that is there from the first
    page to the last is on one of them at least; so a store whose nodes have changed in between begins anew.
    """

    prefix: bytes
    cursor: object = None
    """None: begin."""


@dataclass(frozen=True, slots=True)
class Page:
    keys: tuple[bytes, ...]
    cursor: object
    """None: that was all."""


class CacheClient(Protocol):
    """A store, for threads."""

    blind_touch: bool
    """Whether `Read.touch` sets the TTL without a look at what is there: see `Read`."""

    def perform(self, command: Command) -> Reply: ...

    def look(self, question: Look) -> tuple[Glance | None, ...]:
        """In one round trip, where the store can. Changes nothing, and slides nothing."""

    def close(self) -> None:
        """Close every connection. The client may be used again, and connects anew."""


class AsyncCacheClient(Protocol):
    """A store, for the tasks of one event loop."""

    blind_touch: bool

    def perform(self, command: Command) -> Awaitable[Reply]: ...

    async def look(self, question: Look) -> tuple[Glance | None, ...]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Scanning(Protocol):
    """A store that can be searched, for threads (or, as `async def scan`, for an event loop). Memcached cannot."""

    def scan(self, question: Scan) -> Page | Awaitable[Page]: ...


@runtime_checkable
class Noticing(Protocol):
    """A client, of either kind, that tells what happens in the store."""

    notice: Callable[[str], None]
    """Whom to tell: "alone", "repaired", "moved"."""


def unheard(_name: str, /) -> None:
    """`Noticing.notice` where nobody counts."""


def slides_to(touch: int, idle_ttl: int, expires_at: int, now: int, left: float) -> int | None:
    """The TTL that `Read.touch` sets; None where the one that is there stays. All in seconds."""
    ttl = idle_ttl or touch
    if expires_at:
        ttl = min(ttl, expires_at - now)
    if ttl < 1 or ttl - left < min(60.0, ttl / 10):
        return None
    return ttl
