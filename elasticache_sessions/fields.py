"""The lazy session content: a dict whose values are decoded when they are asked for, and that knows what
changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Final, NoReturn, Self, SupportsIndex

from . import codec
from .exceptions import DecodeError, EncodeError
from .opaque import Discreet, OpaqueDict
from .scalars import IMMUTABLE

# Stands in the dict for a value that is still encoded. Every way in is overridden, so nobody sees it.
_ENCODED: Final = object()
_decoding: Final = threading.Lock()


class Fields(Discreet, dict[str, Any]):
    """Top-level fields of a session, name to value. Behaves as a plain dict in everything, `json.dumps`
    included.

    Values are decoded one by one, on first use. `encoded()` gives the stored form; a value that was handed
    out and can change in place is encoded again there, so `fields["cart"].append(x)` is noticed.

    Copies (`copy`, `|`, `copy.copy`, pickle) are plain dicts.
    """

    # How one value is stored. A subclass may know another way; it raises EncodeError and DecodeError, nothing else.
    to_bytes: Callable[[Any], bytes] = staticmethod(codec.encode)
    from_bytes: Callable[[bytes], Any] = staticmethod(codec.decode)

    def __init__(self, stored: Mapping[str, bytes] | None = None) -> None:
        stored = {} if stored is None else stored
        super().__init__(dict.fromkeys(stored, _ENCODED))
        self.on_unreadable: Callable[[DecodeError], None] | None = None
        self._begin(stored)

    def _take(self, stored: Mapping[str, bytes]) -> None:
        """Become what is stored: nothing decoded, nothing changed."""
        super().clear()
        super().update(dict.fromkeys(stored, _ENCODED))
        self._begin(stored)

    def _begin(self, stored: Mapping[str, bytes]) -> None:
        self._stored = stored
        # Assigned, or handed out and able to change in place: to be encoded again.
        self._open_ended: set[str] = set()
        self.cleared = False
        """Whether `clear()` was called: the save replaces, and takes nothing from concurrent writers."""

    def form(self, value: Any, before: bytes | None) -> bytes:
        """How `value` is stored. A subclass that reads more than one form may keep the one it had, `before`, where that
        still says the same.
        """
        return self.to_bytes(value)

    def _load(self) -> None:
        """Runs before every access. A subclass that loads on first use overrides it."""

    def _changing(self) -> None:
        """Runs before every change. A subclass that is not to be changed any more overrides it."""

    # What the flows ask.

    def encoded(self) -> dict[str, bytes]:
        """Every field in its stored form.

        Raises:
            EncodeError: a value cannot be stored; names the field and the type.
        """
        self._load()
        encoded = OpaqueDict[bytes]()
        # Copies, since another thread with the same context may be changing the session.
        open_ended = self._open_ended.copy()
        for name, value in list(super().items()):
            if value is _ENCODED:
                encoded[name] = self._stored[name]
            elif name in open_ended or name not in self._stored:
                try:
                    encoded[name] = self.form(value, self._stored.get(name))
                except EncodeError as error:
                    del value  # a traceback may show variables
                    raise EncodeError(error.reason, name) from None
            else:
                encoded[name] = self._stored[name]
        return encoded

    def changed(self) -> bool:
        """Whether saving would store anything else than what was read. What cannot be encoded has changed."""
        self._load()
        stored = self._stored
        if stored.keys() != super().keys():
            return True
        for name in self._open_ended.copy():
            value, before = super().get(name, _ENCODED), stored.get(name)
            try:
                if value is not _ENCODED and self.form(value, before) != before:
                    return True
            except EncodeError:
                return True
        return False

    def taken_out(self) -> set[str]:
        """The names of the fields that were read and are no more."""
        return self._stored.keys() - super().keys()

    def snapshot(self) -> dict[str, object]:
        """What the fields hold now, to be compared with later: each in its stored form, or as the object it is where it
        has none.
        """
        self._load()
        taken = OpaqueDict[object]()
        for name, value in list(super().items()):
            try:
                before = self._stored.get(name)
                taken[name] = before if value is _ENCODED else self.form(value, before)
            except EncodeError:
                taken[name] = value
        return taken

    def rebase(self, stored: Mapping[str, bytes]) -> None:
        """Take over what is stored now. Values that are the same stay the same objects, for whoever holds
        them.
        """
        kept = {}
        for name, value in list(super().items()):
            if value is _ENCODED or name not in stored:
                continue
            same = name not in self._open_ended and stored[name] == self._stored.get(name)
            try:
                if same or self.form(value, stored[name]) == stored[name]:
                    kept[name] = value
            except EncodeError:
                pass
        self._take(stored)
        for name, value in kept.items():
            self._put(name, value)

    # What a dict does.

    def __getitem__(self, name: str) -> Any:
        self._load()
        value = super().__getitem__(name)
        return self._decode(name) if value is _ENCODED else value

    def __setitem__(self, name: str, value: Any) -> None:
        self._load()
        self._changing()
        name = codec.field_name(name)
        self._open_ended.add(name)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._changing()
        super().__delitem__(name)
        self._open_ended.discard(name)

    def __contains__(self, name: object) -> bool:
        self._load()
        return super().__contains__(name)

    def __len__(self) -> int:
        self._load()
        return super().__len__()

    # Overridden, it also keeps dict(fields), {**fields} and PyDict_Merge from looking past __getitem__.
    def __iter__(self) -> Iterator[str]:
        self._decode_all()
        return super().__iter__()

    def __reversed__(self) -> Iterator[str]:
        self._decode_all()
        return super().__reversed__()

    def __eq__(self, other: object) -> bool:
        self._decode_all()
        if isinstance(other, Fields):
            other._decode_all()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # as dict's own

    def __repr__(self) -> str:
        self._decode_all()
        return super().__repr__()

    # The overloads of dict's | are about other key types; here keys are str.
    def __or__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        if not isinstance(other, dict):
            return NotImplemented
        return {**self, **other}

    def __ror__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        if not isinstance(other, dict):
            return NotImplemented
        return {**other, **self}

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]  # as above
        self.update(other)
        return self

    def get(self, name: str, default: Any = None, /) -> Any:
        self._load()
        value = super().get(name, default)
        try:
            return self._decode(name) if value is _ENCODED else value
        except KeyError:
            return default

    def keys(self) -> Any:
        self._decode_all()
        return super().keys()

    def values(self) -> Any:
        self._decode_all()
        return super().values()

    def items(self) -> Any:
        self._decode_all()
        return super().items()

    def pop(self, name: str, *default: Any) -> Any:
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {len(default) + 1}")
        try:
            value = self[name]
        except KeyError:
            if default:
                return default[0]
            raise
        self._changing()
        super().pop(name, None)  # another thread may have been faster
        self._open_ended.discard(name)
        return value

    def popitem(self) -> tuple[str, Any]:
        self._decode_all()
        self._changing()
        name, value = super().popitem()
        self._open_ended.discard(name)
        return name, value

    def setdefault(self, name: str, default: Any = None, /) -> Any:
        try:
            return self[name]
        except KeyError:
            self[name] = default
            return default

    def update(self, *others: Any, **named: Any) -> None:
        self._load()
        for name, value in dict(*others, **named).items():
            self[name] = value

    def clear(self) -> None:
        self._load()
        self._changing()
        super().clear()
        self._open_ended.clear()
        self.cleared = True

    def copy(self) -> dict[str, Any]:
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return deepcopy(dict(self), memo)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    @classmethod
    def fromkeys(cls, names: Iterable[Any], value: Any = None, /) -> Any:
        return dict.fromkeys(names, value)

    # Decoding.

    def _decode(self, name: str) -> Any:
        try:
            value = self.from_bytes(self._stored[name])
        except DecodeError as error:
            self._give_up(name, error.with_traceback(None))  # which would show the bytes
        with _decoding:
            # Another thread may have been faster; whoever asks must get the same object.
            if (there := super().get(name, _ENCODED)) is not _ENCODED:
                return there
            self._put(name, value)
        return value

    def _decode_all(self) -> None:
        self._load()
        for name, value in list(super().items()):
            if value is _ENCODED:
                try:
                    self._decode(name)
                except KeyError:  # unreadable: there is no session, and nothing left to decode
                    return

    def _put(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if type(value) not in IMMUTABLE:
            self._open_ended.add(name)

    def _give_up(self, name: str, error: DecodeError) -> NoReturn:
        """One field cannot be read: the whole record counts as no session."""
        self._take({})
        if self.on_unreadable is not None:
            self.on_unreadable(error)
        raise KeyError(name) from error
