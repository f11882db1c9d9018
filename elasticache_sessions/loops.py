"""A client of an event loop, which is closed before the loop ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from .clients.base import AsyncCacheClient


class LoopClient:
    """A client and the async generator that closes it: an event loop closes those that began on it before it ends."""

    def __init__(self, client: AsyncCacheClient, closes: bool, forget: Callable[[], object]) -> None:
        self.client = client
        self.lifetime = _lifetime(client, closes, forget)


async def _lifetime(
    client: AsyncCacheClient, closes: bool, forget: Callable[[], object]
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        forget()
        if closes:
            await client.aclose()
