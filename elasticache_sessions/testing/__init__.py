"""The contract of a cache client as a suite: run it over every client, yours too.

Each check is a generator that yields commands and looks at the replies, so that one text holds for sync and
async clients:

    checks = contract(blind_touch=MyClient.blind_touch, can_scan=issubclass(MyClient, Scanning))

    @pytest.mark.parametrize("check", checks, ids=lambda check: check.__name__)
    def test_my_client(check):
        hold(check, MyClient(...))                    # or: await hold_async(check, MyAsyncClient(...))

Every check uses keys of its own, so that the store need not be empty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from ..clients.base import AsyncCacheClient, CacheClient
from ..drive import drive, drive_async
from ..operation import put
from ..settle import Sleep
from .checks import Check, Question
from .commands import ANY, BLIND, BY_HEADER
from .surveys import LOOK, SCAN

__all__ = ["Check", "contract", "hold", "hold_async"]


def hold(check: Check, client: CacheClient) -> None:
    """Run one check. Raises AssertionError where `client` breaks the contract."""

    def answer(question: Question) -> object:
        if isinstance(question, Sleep):
            time.sleep(question.seconds)
            return None
        return put(client, question)

    drive(check(), answer)


async def hold_async(check: Check, client: AsyncCacheClient) -> None:
    """Run one check. Raises AssertionError where `client` breaks the contract."""

    def answer(question: Question) -> Awaitable[Any]:
        if isinstance(question, Sleep):
            return asyncio.sleep(question.seconds)
        asked: Awaitable[Any] = put(client, question)
        return asked

    await drive_async(check(), answer)


def contract(*, blind_touch: bool, can_scan: bool) -> tuple[Check, ...]:
    """Every check that holds for a client. `blind_touch`: what the client says it is; `can_scan`: whether it has `scan`
    (`clients.base.Scanning`).
    """
    return (*ANY, *(BLIND if blind_touch else BY_HEADER), *LOOK, *(SCAN if can_scan else ()))
