"""What clients make of turns, and what a server has heard."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, eventually
from unbroken.client import (
    Restarted,
    Turn,
)
from unbroken.server.agents.scripted import answer_to

SCRIPT = "/tokens 6"
ANSWER = answer_to(SCRIPT)
FRAMES = 18
"""Of a turn with that answer: more than there are."""


async def read(turn: Turn, text: str = "") -> tuple[str, int]:
    """Return what its reader, who has *text*, makes of a turn, and how often it had to begin anew."""
    restarts = 0
    async with asyncio.timeout(WAIT):
        async for piece in turn:
            if isinstance(piece, Restarted):
                text, restarts = piece.text, restarts + 1
            else:
                text += piece
    return text, restarts


async def until_said(turn: Turn, text: str) -> None:
    """Return when the answer has come so far."""
    await eventually(lambda: turn.text.endswith(text))


def users(server: Served[Any]) -> list[str]:
    """Return what was said in the server's only session."""
    (actor,) = server.app.node.hub
    return [item.text for item in actor.session.items() if getattr(item, "role", "") == "user"]
