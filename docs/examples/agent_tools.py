"""An agent that calls the client's functions, and answers with what they returned.

A turn's ``tools`` are the functions that the client can run; its ``items`` are
the conversation with the calls, and what they returned, among the messages.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from unbroken.server.agents.base import AgentOutput, FunctionCallPiece, FunctionOutput, TurnInput


async def answer(turn: TurnInput) -> AsyncIterator[AgentOutput]:
    """Call every function there is with the last message; then say what came of it."""
    last = turn.items[-1] if turn.items else None
    if isinstance(last, FunctionOutput):
        yield f"The function says: {last.output}"
        return
    if not turn.tools or turn.tool_choice == "none":
        yield "There is nothing to call."
        return
    arguments = json.dumps({"text": turn.messages[-1].text if turn.messages else ""})
    for index, tool in enumerate(turn.tools):
        # The first piece of a call says its name; the arguments may follow in any number of pieces.
        yield FunctionCallPiece(index, name=tool.name)
        yield FunctionCallPiece(index, arguments)
