"""The two drivers that run a generator: one for threads, one for event loops. They perform and never
decide.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from .exceptions import StoreUnavailable

T = TypeVar("T")
Q = TypeVar("Q")


def drive(flow: Generator[Q, Any, T], answer: Callable[[Q], object]) -> T:
    """Run `flow` to its end, answering what it yields. A failing store is raised where the flow asked."""
    try:
        question = next(flow)
        while True:
            try:
                reply = answer(question)
            except StoreUnavailable as error:
                question = flow.throw(error)
            else:
                question = flow.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # the generator's T


async def drive_async(flow: Generator[Q, Any, T], answer: Callable[[Q], Awaitable[object]]) -> T:
    """`drive`, where answers are awaited."""
    try:
        question = next(flow)
        while True:
            try:
                reply = await answer(question)
            except StoreUnavailable as error:
                question = flow.throw(error)
            else:
                question = flow.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # the generator's T
