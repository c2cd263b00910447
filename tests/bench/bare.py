"""The peer that everything is compared with: a bare endpoint, as Starlette's documentation writes one.

It runs on stock uvicorn and sends ready-made frames, recorded from the server
under measurement. It keeps no session and encodes nothing: what it costs is
the transport alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.bench.frames import Frames
from tests.bench.wire import DOOR
from tests.bench.workload import Order, stamped

__all__ = ["FRAMES_VARIABLE", "create"]

FRAMES_VARIABLE = "BENCH_FRAMES"
"""Environment variable: the file with the frames."""


def create() -> Starlette:
    """Return the application. For uvicorn's ``--factory``."""
    frames = Frames.load(Path(os.environ[FRAMES_VARIABLE]))

    async def door(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(frames.opening)
        order: Order | None = None
        try:
            async for text in socket.iter_text():
                if '"conversation.item.create"' in text:
                    order = Order.parse(json.loads(text)["item"]["content"][0]["text"])
                    await socket.send_text(frames.item_done)
                elif order is not None:
                    await (_paced if order.kind == "paced" else _burst)(socket, frames, order)
        except WebSocketDisconnect:
            pass

    return Starlette(routes=[WebSocketRoute(DOOR, door)])


async def _burst(socket: WebSocket, frames: Frames, order: Order) -> None:
    left = rate = order.rate or order.count
    for frame in frames.deltas[: order.count]:
        await socket.send_text(frame)
        left -= 1
        if not left:
            left = rate
            await asyncio.sleep(0)
    await socket.send_text(frames.done)


async def _paced(socket: WebSocket, frames: Frames, order: Order) -> None:
    before, after = frames.around(0)
    parts: list[str] = []
    due = time.monotonic()
    for number in range(order.count):
        text = stamped(number, time.monotonic_ns())
        await socket.send_text(f"{before}{text}{after}")
        parts.append(text)
        due += 1 / order.rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await socket.send_text(frames.done_with("".join(parts)))
