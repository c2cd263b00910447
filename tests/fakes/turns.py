"""How often a piece of work lets others have their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["turns_given"]


async def turns_given(work: Coroutine[Any, Any, object]) -> int:
    """Return how often another task had its turn meanwhile."""
    count = 0

    async def other() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0)
            count += 1

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    await work
    task.cancel()
    return count
