"""Any framework's stream as an agent: whatever has ``astream(messages)`` fits.

Put your own chain, graph or agent in place of ``chain``, with what builds it at
the module's top: it is imported once, before the first turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from unbroken.server.agents.base import AgentOutput, TurnInput, UpstreamUnavailable, Usage, Working


@dataclass
class Chunk:
    """What frameworks stream: a piece of the answer, and on the last one the bill."""

    content: str
    usage_metadata: dict[str, int] | None = None


class Chain:
    """Stands in for the framework's object, so that this example runs by itself."""

    async def astream(self, messages: list[tuple[str, str]]) -> AsyncGenerator[Chunk, None]:
        """Stream an answer to *messages*, which are pairs of role and text."""
        _, question = messages[-1]
        for word in ["Thinking", " about", f" {question!r}."]:
            await asyncio.sleep(0)
            yield Chunk(word)
        yield Chunk("", usage_metadata={"input_tokens": 5, "output_tokens": 3})


chain = Chain()


async def answer(turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
    """Answer *turn* with the chain's stream."""
    messages = [("system", turn.instructions)] if turn.instructions else []
    messages += [(message.role, message.text) for message in turn.messages]
    try:
        # Closed with the turn: a user who presses Stop stops the framework too.
        async with aclosing(chain.astream(messages)) as stream:
            async for chunk in stream:
                yield chunk.content if chunk.content else Working()  # tool calls and the like have no text
                if chunk.usage_metadata is not None:
                    yield Usage(
                        input_tokens=chunk.usage_metadata["input_tokens"],
                        output_tokens=chunk.usage_metadata["output_tokens"],
                    )
    except ConnectionError:
        # An error that users should hear of gets a type of its own; all others end the
        # turn as "The agent failed.", with the traceback in the server's log.
        raise UpstreamUnavailable from None
