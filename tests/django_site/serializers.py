"""Values of SESSION_SERIALIZER for the tests."""

from __future__ import annotations

import json
import secrets
from decimal import Decimal
from typing import Any


class Rich:
    """JSON that knows Decimal too."""

    def dumps(self, content: Any) -> bytes:
        return json.dumps(content, default=self._unknown).encode()

    def _unknown(self, value: Any) -> Any:
        if isinstance(value, Decimal):
            return {"decimal": str(value)}
        raise TypeError(f"{type(value).__name__} is not known")

    def loads(self, data: bytes) -> Any:
        return json.loads(
            data, object_hook=lambda found: Decimal(found["decimal"]) if "decimal" in found else found
        )


class OnlyDicts(Rich):
    """Takes nothing but dicts, as a session's content always was one."""

    def dumps(self, content: Any) -> bytes:
        if type(content) is not dict:
            raise TypeError("a session's content is a dict")
        return super().dumps(content)

    def loads(self, data: bytes) -> Any:
        content = super().loads(data)
        if type(content) is not dict:
            raise TypeError("a session's content is a dict")
        return content


class Stumbling(Rich):
    """Has a mistake in it: some values make it raise AttributeError."""

    def dumps(self, content: Any) -> bytes:
        if "stumble" in content["value"]:
            return None.dumps()  # type: ignore[attr-defined, no-any-return]  # the mistake
        return super().dumps(content)


class Salted:
    """Never gives the same bytes twice."""

    def dumps(self, obj: Any) -> bytes:
        return secrets.token_hex(4).encode() + json.dumps(obj).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data[8:])
