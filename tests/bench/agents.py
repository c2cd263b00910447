"""The agent that the server under measurement runs: ``UNBROKEN_PYTHON_AGENT=tests.bench.agents:answer``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from tests.bench.workload import Order, stamped, word
from unbroken.server.agents.base import TurnInput

__all__ = ["answer"]


async def answer(turn: TurnInput) -> AsyncGenerator[str, None]:
    """Answer as the last message orders."""
    order = Order.parse(turn.messages[-1].text)
    if order.kind == "paced":
        due = time.monotonic()
        for number in range(order.count):
            yield stamped(number, time.monotonic_ns())
            due += 1 / order.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        return
    if order.kind == "spread":
        for number in range(order.count):
            yield word(number)
            await asyncio.sleep(1 / order.rate)
        return
    left = rate = order.rate or order.count
    for number in range(order.count):
        yield word(number)
        left -= 1
        if not left:
            left = rate
            await asyncio.sleep(0)
