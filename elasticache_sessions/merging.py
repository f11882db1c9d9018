"""What holds when two requests wrote the same session at once. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping

from .opaque import OpaqueDict
from .record import Record, comes_from


def merge(
    base: Mapping[str, bytes],
    mine: Mapping[str, bytes],
    theirs: Mapping[str, bytes],
    *,
    from_base: bool = True,
) -> dict[str, bytes]:
    """What holds when `mine` and `theirs` both came from `base`, and mine is the later write.

    Changes to different fields both hold. Of two changes to one field the later holds, but a delete beats a
    change. Not if theirs was not made of base (`from_base`), as the store has lost that: then what is missing may not have
    been deleted.
    """
    merged = OpaqueDict(theirs)
    for name in base.keys() - mine.keys():
        merged.pop(name, None)
    for name, value in mine.items():
        before = base.get(name)
        if value == before:
            continue
        if before is not None and name not in theirs and from_base:
            continue  # they deleted what I changed
        merged[name] = value
    return merged


def merge_into(theirs: Record, base: Record, mine: Mapping[str, bytes]) -> dict[str, bytes]:
    """What holds when a request that read `base` writes `mine`, and `theirs` is there now."""
    if theirs is base:
        return OpaqueDict(mine)  # nobody else has written
    return merge(base.fields, mine, theirs.fields, from_base=comes_from(theirs.header, base.header))
