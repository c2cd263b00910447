"""A peer: python-socketio on stock uvicorn, which sends the recorded events as its documentation does.

Like the bare peer, it keeps no session; it encodes each event, as its users' code would have it do.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import socketio  # type: ignore[import-untyped]

from tests.bench.bare import FRAMES_VARIABLE
from tests.bench.frames import Frames
from tests.bench.workload import Order

__all__ = ["create"]


def create() -> Any:
    """Return the application. For uvicorn's ``--factory``."""
    frames = Frames.load(Path(os.environ[FRAMES_VARIABLE]))
    opening, done = json.loads(frames.opening), json.loads(frames.done)
    deltas = [json.loads(frame) for frame in frames.deltas]
    server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], cors_allowed_origins="*")

    @server.event  # type: ignore[untyped-decorator]
    async def connect(sid: str, _environ: object) -> None:
        server.start_background_task(server.emit, "event", opening, to=sid)

    @server.event  # type: ignore[untyped-decorator]
    async def ask(sid: str, text: str) -> None:
        for delta in deltas[: Order.parse(text).count]:
            await server.emit("event", delta, to=sid)
            await asyncio.sleep(0)
        await server.emit("event", done, to=sid)

    return socketio.ASGIApp(server)
