"""Listens to all that nodes tell each other over the store, so that it can be said again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

__all__ = ["overheard"]

_CHANNELS = "unbroken:*"


@asynccontextmanager
async def overheard(port: int) -> AsyncIterator[list[tuple[str, str]]]:
    """Yield a list that grows by each message, with its channel. It ends where the store does."""
    said: list[tuple[str, str]] = []
    client: Any = Redis(port=port, decode_responses=True, socket_timeout=None, socket_connect_timeout=2)
    task = asyncio.create_task(_listen(client, said))
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await client.aclose()


async def _listen(client: Any, said: list[tuple[str, str]]) -> None:
    with contextlib.suppress(RedisError, OSError):
        pubsub = client.pubsub()
        try:
            await pubsub.psubscribe(_CHANNELS)
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
                if message is not None:
                    said.append((message["channel"], message["data"]))
        finally:
            await pubsub.aclose()
