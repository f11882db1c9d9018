"""What Django keeps among a session's fields that says how long it lives and whose it is, and how values are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.utils.module_loading import import_string

from .. import codec
from ..exceptions import DecodeError, EncodeError
from ..fields import Fields
from ..record import Header
from ..session import FOREVER, Rules, whole

OWNER: Final = SESSION_KEY
"""Where `django.contrib.auth` keeps whose session it is."""
SIGN_IN: Final = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)
"""All that it puts in when somebody signs in."""
EXPIRY: Final = "_session_expiry"
"""Where `set_expiry` keeps what it was given."""
BOOKKEEPING: Final = frozenset({EXPIRY, "_messages"})
"""What Django itself takes out of a session while it serves a page. To take out anything else may be to sign somebody out."""
JSON: Final = "django.contrib.sessions.serializers.JSONSerializer"
"""Django's default, whose place our own encoding takes: it keeps exact types."""


def follow(header: Header, fields: Mapping[str, bytes], rules: Rules) -> Header | None:
    """`header` with the lifetime that `set_expiry` gave, and with the user who signed in; None: it has expired."""
    expiry = _value(fields, EXPIRY, rules)
    idle_ttl, expires_at = _lifetime(expiry)
    if idle_ttl < 0:
        return None
    if (header.idle_ttl, header.expires_at) != (idle_ttl, expires_at):
        header = header._replace(idle_ttl=idle_ttl, expires_at=expires_at)
    user = _value(fields, OWNER, rules)
    if user is not None and header.owner != (owner := rules.owner_hash(str(user))):
        header = header._replace(owner=owner, authenticated_at=rules.now())
    return header


def _value(fields: Mapping[str, bytes], name: str, rules: Rules) -> Any:
    try:
        return rules.fields.from_bytes(fields[name]) if name in fields else None
    except DecodeError:
        return None  # whoever asks for it finds out; until then it stays as it is


def _lifetime(expiry: Any) -> tuple[int, int]:
    """An idle timeout of its own in seconds (0: none, below: over), and an end of its own since 1970 (0: none)."""
    if isinstance(expiry, str):
        try:
            expiry = datetime.fromisoformat(expiry)
        except ValueError:
            return 0, 0
    if isinstance(expiry, datetime):
        # Its end alone decides: however long it is not used until then.
        return FOREVER, max(1, whole(expiry.timestamp()))
    if isinstance(expiry, int | float):
        return (whole(expiry), 0) if expiry >= 0 else (-1, 0)
    return 0, 0


def fields_of(serializer: str) -> type[Fields]:
    """The class of a session's fields for a SESSION_SERIALIZER.

    In the place of Django's default, values keep their exact types; what has none of ours but can be JSON (a member of
    TextChoices, an OrderedDict) comes back as it would from Django.

    Another than Django's default is honoured, field by field: each value goes through it in a dict of its own,
    `{"value": …}`, as a serializer may take nothing but dicts. Values that were stored without it can still be read.
    """
    if serializer == JSON:
        return _ExactFields
    kind = import_string(serializer)

    def to_bytes(value: Any) -> bytes:
        try:
            return codec.encode_foreign(kind().dumps({"value": value}))
        except Exception as error:  # noqa: BLE001 - it may be any, and say what the value is
            raise EncodeError(f"{serializer} cannot store it: {_in_short(error)}") from None

    def from_bytes(data: bytes) -> Any:
        foreign = codec.decode_foreign(data)
        if foreign is None:
            return codec.decode(data)
        try:
            return kind().loads(foreign)["value"]
        except Exception as error:  # noqa: BLE001 - it may be any, and say what the bytes say
            raise DecodeError(f"{serializer} cannot read it: {type(error).__name__}") from None

    return type(
        "SerializedFields",
        (_SerializedFields,),
        {"to_bytes": staticmethod(to_bytes), "from_bytes": staticmethod(from_bytes)},
    )


def _in_short(error: Exception) -> str:
    """What a serializer says of a value: of its type. What it says else may be the value."""
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, TypeError | AttributeError) else kind


def _exact_or_json(value: Any) -> bytes:
    try:
        return codec.encode(value)
    except EncodeError:
        try:
            plain = json.loads(json.dumps(value))
        except (TypeError, ValueError, RecursionError):
            plain = None
        if plain is None:
            raise
        return codec.encode(plain)


class _ExactFields(Fields):
    to_bytes = staticmethod(_exact_or_json)


class _SerializedFields(Fields):
    def form(self, value: Any, before: bytes | None) -> bytes:
        """What was stored without the serializer stays so until it changes: reading it is no change. Nor is it where the
        serializer gives other bytes each time, as one that encrypts does.
        """
        if before is None:
            return self.to_bytes(value)
        if codec.decode_foreign(before) is None:
            with suppress(EncodeError):
                if codec.encode(value) == before:
                    return before
        made = self.to_bytes(value)
        if made == before or made == self.to_bytes(value):
            return made
        with suppress(DecodeError):
            if self.from_bytes(before) == self.from_bytes(made):
                return before
        return made
