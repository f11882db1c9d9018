"""What one request knows of its session, and what it asks of the store in Django's verbs: generators that decide and never
do I/O, so that one text serves `save` and `asave`, `flush` and `aflush` and all the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from django.contrib.sessions.backends.base import CreateError

from .. import flows
from ..exceptions import DecodeError, SessionEnded
from ..fields import Fields
from ..index import Origin
from ..opaque import OpaqueDict
from ..reading import heard_by
from ..session import Rules, Session, handle_of, new_id
from ..settle import Flow
from .content import BOOKKEEPING, EXPIRY, OWNER

T = TypeVar("T")


@dataclass(slots=True, weakref_slot=True)
class State:
    """A session by its key. `core` is None until it has been read, or begun."""

    key: str | None = field(default=None, repr=False)
    """What Django calls the session_key (a `SessionId`): where the id is to be cycled, the new one already."""
    core: Session | None = None
    unread: bool = False
    """Whether its content was replaced without looking at what is stored."""
    ended: bool = False
    """Whether it was ended: elsewhere before it was read (then there is no key), or by this request. So, too, where what
    is stored cannot be read: a newer version may be able to, and its cookie is left alone as well, but by a sign-out.
    """
    illegible: bool = False
    """Whether what is stored could not be read."""
    flushed: bool = False
    """Whether this request ended it by `flush`, or found it ended then."""
    ending: bool = False
    """Whether it is to be ended, and the store has not answered that it was."""
    declared: bool = False
    """Whether this request said that it modified the session."""
    dirty: bool = False
    """The same since the last save."""
    base: dict[str, object] | None = field(default=None, repr=False)
    """What counts as unmodified, if not what is stored."""
    without: bool = False
    """Whether the store failed to give it, and the request goes on with an empty one, which is never stored."""
    moved: bool = False
    """Whether this request gave it a new key at once, so that the browser must hear of it whatever fails afterwards."""
    just_read: bool = False
    """Whether nothing has been done since it was read."""
    origin: Callable[[], Origin] = Origin
    """Tells where the request comes from. Asked when the session is stored: by then any middleware has put that right."""

    @property
    def stored_key(self) -> str | None:
        """The key under which the store knows it."""
        known = None if self.core is None else self.core.id
        return known or self.key

    def begin(self, rules: Rules) -> Session:
        """Hold a new session, which the store does not know yet."""
        self.core = Session(fields=rules.fields())
        return self.core

    def begin_unread(self, rules: Rules) -> Session:
        """Hold what is to replace the content of the session with that key, which nobody has looked at."""
        self.unread = self.key is not None
        return self.begin(rules)

    def go_without(self, rules: Rules) -> None:
        """Hold an empty session in the place of the one that cannot be read."""
        self.begin(rules)
        self.without = True

    def clear(self, rules: Rules) -> None:
        (self.core or self.begin_unread(rules)).fields.clear()
        self.declare(True)

    def declare(self, modified: bool) -> None:
        self.declared = self.dirty = modified
        self.base = None if modified or self.core is None else self.core.fields.snapshot()

    def is_modified(self) -> bool:
        core = self.core
        if self.declared or core is None:
            return self.declared
        if self.base is not None:
            return core.fields.snapshot() != self.base
        return core.stored is not None and core.fields.changed()

    @property
    def decides(self) -> bool:
        """Whether what is to be stored signs somebody in or out, or may."""
        if self.ending or self.flushed or self.moved:
            return True
        core = self.core
        if core is None:
            return False
        return core.cycling or core.fields.cleared or bool(core.fields.taken_out() - BOOKKEEPING)

    @property
    def moved_to(self) -> str | None:
        """The key that a cycle has given it already."""
        return self.stored_key if self.moved and not self.ended else None

    # Reading.

    def read(self, rules: Rules) -> Flow[Session]:
        """Look it up, if that has not been done. One round trip."""
        if (core := self.core) is not None:
            return core
        if self.key is None:
            return self.begin(rules)
        found = yield from flows.look(self.key, rules)
        if (core := self.core) is not None:
            return core  # another task of this request was faster
        if isinstance(found, Session):
            self.core = found
            found.fields.on_unreadable = heard_by(self)
            for name in (
                OWNER,
                EXPIRY,
            ):  # what others ask for first: whether they can be read shows before somebody relies on it
                found.fields.get(name)
            return found
        self.key, self.ended = None, found is not None
        self.illegible = found == "unreadable"
        return self.begin(rules)

    def give_up(self, error: DecodeError) -> None:
        if self.core is not None:
            self.core.give_up(error)
        self.key, self.ended, self.illegible = None, True, True

    def load(self, rules: Rules) -> Flow[Fields]:
        """What the store holds now; {} and no key any more where there is no such session."""
        found = yield from flows.load(self.stored_key, rules)
        if found is not None:
            return found.fields
        self.key = None
        if self.core is not None:
            self.core.let_go()
        return rules.fields()

    def look(self, key: str | None, rules: Rules) -> Flow[bool]:
        """Whether there is a session with that key."""
        core = self.core
        if core is not None and core.cycling and key is not None and key in (self.key, core.id):
            yield from self.store(core, rules)  # what was put off until the save shows now
        return (yield from flows.load(key, replace(rules, sliding=False))) is not None

    # Storing.

    def create(self, rules: Rules) -> Flow[None]:
        """Store the content under a new key."""
        old, new = self.core, Session(fields=rules.fields(), origin=self.origin())
        if old is not None:
            new.fields.update(old.fields)
        self.core, self.unread, self.ended = new, False, False
        yield from flows.save(new, rules)
        self.take(new)
        self.declared = True
        if old is not None and old.cycling:
            yield from flows.end(old, rules, "replaced")  # as `cycle` promised

    def save(self, rules: Rules, must_create: bool = False) -> Flow[None]:
        """Store what changed; create what has no key; without changes, begin the idle time anew."""
        if self.ending:
            yield from self.flush(rules)
        cleared = self.unread
        if cleared:
            yield from self.catch_up(rules)
        content = self.core.fields if self.core else None
        if not content and cleared and self.key is None:
            raise SessionEnded("there is no such session, so there was nothing to clear")
        if self.ended and self.key is not None:
            raise SessionEnded("the session was ended, or got a new id, before this request could save it")
        if must_create and self.key is not None:
            if (yield from self.look(self.key, rules)):
                raise CreateError
            self.key = None
        just_read = self.core is None or self.just_read
        if self.key is not None:
            yield from self.read(rules)
        if self.key is None or self.core is None:
            yield from self.create(rules)
        else:
            yield from self.store(self.core, rules, just_read)

    def store(self, core: Session, rules: Rules, just_read: bool = False) -> Flow[None]:
        if self.unread:
            core = yield from self.catch_up(rules)
        core.forced = self.dirty
        if not (core.stored is None or core.cycling or self.dirty or core.fields.changed()):
            if rules.sliding:
                # Reading has begun the idle time anew. Its cookie is to be set again, so it must still be the one.
                if not just_read and (yield from flows.load(core.id, rules)) is None:
                    raise SessionEnded(f"session {core.handle} was ended while this request was using it")
                return
            core.forced = True
        core.origin = self.origin()
        yield from flows.commit(core, rules)
        self.take(core)

    def take(self, core: Session) -> None:
        """The store has it now."""
        core.fields.on_unreadable = heard_by(self)
        self.key, self.dirty = core.id, False

    def catch_up(self, rules: Rules) -> Flow[Session]:
        """Look at what is stored only now, to replace it by what was put in after `clear`."""
        content = OpaqueDict[object](self.core.fields if self.core else {})
        self.core, self.unread = None, False
        core = yield from self.read(rules)
        core.fields.clear()
        core.fields.update(content)
        return core

    def apply(self, change: Callable[[Fields], T], rules: Rules) -> Flow[T]:
        """Run `change` on the newest state and store it."""
        core = yield from self.open(rules)
        if self.unread or core.cycling:
            yield from self.store(core, rules)
            core = self.core or core
        known, core.origin = core.id, self.origin()
        result = yield from flows.apply(core, change, rules)
        self.take(core)
        if core.id != known:  # a session that began here needs its cookie, whatever became of the one before
            self.declared, self.ended = True, False
        return result

    def open(self, rules: Rules) -> Flow[Session]:
        """The session, for something that is to be done at once."""
        if self.ending:
            yield from self.flush(rules)
        if self.ended and self.key is not None:
            raise SessionEnded(
                f"session {handle_of(self.key)} was ended by this request; nothing can be stored in it any more"
            )
        return (yield from self.read(rules))

    # A new key, and the end.

    def cycle(self, rules: Rules) -> Flow[None]:
        """A new key: at once where a user is signed in, else with the next save."""
        if self.ended and self.key is not None:
            yield from self.create(rules)  # deleted by this request: what it held goes on under the new key
            return
        core = yield from self.open(rules)
        if self.unread:
            core = yield from self.catch_up(rules)
        self.renew(core)
        if core.stored is not None and core.fields.get(OWNER) is not None:
            yield from self.store(core, rules)
            self.moved = True

    def renew(self, core: Session) -> None:
        """It is to get a new key with the next save."""
        core.cycling, core.next_id = True, new_id()
        self.key, self.ended = core.next_id, False  # where it had ended before, this is one of its own
        self.declare(True)

    def want_flush(self, rules: Rules) -> None:
        """It is to end. Said before the store is asked, which may refuse to listen: until it has happened, a save tries."""
        if not self.ending:
            self.clear(rules)
            self.ending = True

    def flush(self, rules: Rules) -> Flow[None]:
        """End it. What is put in later begins a new one."""
        self.want_flush(rules)
        core, key = self.core, self.stored_key
        content = OpaqueDict[object](self.core.fields if self.core else {})
        by_delete = self.ended and self.key is not None
        elsewhere = self.ended and self.key is None and not self.illegible
        if core is None or core.stored is None:
            found = yield from flows.look(key, replace(rules, sliding=False))
            elsewhere = elsewhere or found == "ended"
            core = found if isinstance(found, Session) else None
        if core is not None:
            elsewhere = not (yield from flows.end(core, rules))
        self.begin(rules).fields.update(content)
        # One that ended elsewhere leaves the cookie alone, which may be a newer one by now.
        self.key, self.ended, self.flushed = None, elsewhere and not by_delete, True
        self.ending = self.unread = self.moved = False

    def delete(self, key: str | None, rules: Rules) -> Flow[None]:
        """End the session with that key, or this one."""
        own = key in (None, self.key, self.stored_key)
        yield from flows.end_id(self.stored_key if own else key, rules)
        if own and self.key is not None:
            self.ended = True
            if self.core is not None:
                self.core.cycling = False  # there is nothing left to get a new key
