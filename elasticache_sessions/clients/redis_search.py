"""What is sent to Valkey and Redis to find all keys that begin alike, page by page, and what the replies mean. Pure; carried
by others.

SCAN promises that no key is missed, but only within one server: its cursor means nothing to another process, such as the
replica that has become the primary, or the same server that was started again; and a replica answers SCAN with what was
true once. So behind each SCAN, on the same connection, comes a little script. It has GETEX look for a key, which a replica
refuses (`redis_wire`); and nobody has brought it to a server but this search, on its first page there. Whoever does not know
it later is another server, and the search begins anew.

In cluster mode every primary is searched, one after the other. Whether the same nodes had the same slots all the while is
asked at the end. What this cannot see is a slot that is on its way from one node to the other, key by key, from before the
search begins until after it ends: a key may move then from where nobody has looked to where somebody has.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from ..exceptions import StoreUnavailable
from .base import Page, Scan
from .redis_survey import Flights
from .redis_wire import Refusal, Request, Script

# Keys that the server looks at for one page, of which those that begin otherwise are left out.
_LOOKED_AT: Final = 500
_SPECIAL: Final = re.compile(rb"[*?\[\]\\]")
# Servers keep a script for long, so there are not many; two searches that have the same meet it only by chance.
_SCRIPTS: Final = 64
# How often a search begins anew.
_ATTEMPTS: Final = 5
# Nodes that have a few slots take many tries.
_KEYS_TRIED: Final = 200_000

Slots = frozenset[tuple[int, int, bytes]]
"""The first slot, the last, and the id of the primary that has them."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a search is."""

    probes: tuple[bytes, ...]
    """For each server that is to be searched still, the one that is being searched first, a key that it would have."""
    script: int
    cursor: int = 0
    """What SCAN said."""
    slots: Slots | None = None
    """Of a cluster, when this began."""
    attempt: int = 1

    @classmethod
    def first(cls, probes: tuple[bytes, ...], before: Mark | None = None) -> Self:
        """Begin; anew, where somebody had begun `before`."""
        attempt = 1 if before is None else before.attempt + 1
        if attempt > _ATTEMPTS:
            raise StoreUnavailable(
                f"the store's nodes have changed {_ATTEMPTS} times while it was searched. Try again when they stay.",
                sent=False,
            )
        return cls(probes, random.randrange(_SCRIPTS), attempt=attempt)


def mark_of(question: Scan) -> Mark | None:
    mark = question.cursor
    if mark is not None and not isinstance(mark, Mark):
        raise TypeError(f"a cursor is what a page of this store gave, not a {type(mark).__name__}")
    return mark


def search(
    prefix: bytes,
    mark: Mark,
    probes: Callable[[], tuple[bytes, ...]],
    knows: Callable[[Slots], bool] | None = None,
) -> Flights[Page]:
    """One page, in one flight. `probes`: those of now. `knows`: in cluster mode, whether they are of the nodes that have such
    slots; two flights more then, the first time and at the end.
    """
    probe = mark.probes[0]
    if knows is not None and mark.slots is None:
        slots = yield from _slots(probe)
        if not knows(slots):
            raise StoreUnavailable(_OTHERS, retry=True, sent=False)
        mark = replace(mark, slots=slots)
    scan = ("SCAN", mark.cursor, "MATCH", _SPECIAL.sub(rb"\\\g<0>", prefix) + b"*", "COUNT", _LOOKED_AT)
    script = _script(mark.script)
    run = ("EVALSHA", script.sha) if mark.cursor else ("EVAL", script.text)
    page: Any
    page, same = yield [Request(probe, scan, _is_page), Request(probe, (*run, 1, probe), _is_one)]
    if same is Refusal.NO_SCRIPT:
        return Page((), Mark.first(probes(), mark))
    cursor, keys = int(page[0]), tuple(page[1])
    if cursor:
        return Page(keys, replace(mark, cursor=cursor))
    if len(mark.probes) > 1:
        return Page(keys, replace(mark, probes=mark.probes[1:], cursor=0))
    if knows is not None and (yield from _slots(probe)) != mark.slots:
        return Page(keys, Mark.first(probes(), mark))
    return Page(keys, None)


def _slots(probe: bytes) -> Flights[Slots]:
    reply: Any
    (reply,) = yield [Request(probe, ("CLUSTER", "SLOTS"), _is_map)]
    return frozenset((first, last, served[2]) for first, last, served, *_ in reply)


def probes_of(prefix: bytes, nodes: frozenset[str], node_of: Callable[[bytes], str]) -> tuple[bytes, ...]:
    """A key for each of `nodes`, which begins with `prefix`, as others may not be asked for. Of those alone that can have such
    keys: with a {hash tag} in the prefix, that is one.
    """
    found: dict[str, bytes] = {}
    tag = prefix.find(b"{")
    tagged = tag >= 0 and prefix.find(b"}", tag) > tag + 1
    for number in range(_KEYS_TRIED):
        key = b"%b%d" % (prefix, number)
        found.setdefault(node_of(key), key)
        if tagged or found.keys() >= nodes:
            return tuple(found.values())
    raise StoreUnavailable(_OTHERS, retry=True, sent=False)


def is_map_of(slots: Slots, served: Mapping[int, Sequence[Any]]) -> bool:
    """Whether each node that has such slots is one in a driver's map of slots, and the other way round."""
    pairs = {
        (name, served[slot][0].name if slot in served else "")
        for first, last, name in slots
        for slot in range(first, last + 1)
    }
    return len(pairs) == len({name for name, _ in pairs}) == len({other for _, other in pairs})


_OTHERS: Final = "the cluster's nodes are changing just now"


def _script(number: int) -> Script:
    return Script(f"redis.call('GETEX', KEYS[1]) return 1 -- {number}")


def _is_one(reply: object) -> bool:
    return reply == 1


def _is_page(reply: object) -> bool:
    return (
        type(reply) is list
        and len(reply) == 2
        and type(reply[0]) is bytes
        and reply[0].isdigit()
        and type(reply[1]) is list
        and all(type(key) is bytes for key in reply[1])
    )


def _is_map(reply: object) -> bool:
    return type(reply) is list and all(
        type(each) is list
        and len(each) >= 3
        and type(each[0]) is type(each[1]) is int
        and type(each[2]) is list
        and len(each[2]) >= 3
        and type(each[2][2]) is bytes
        for each in reply
    )
