"""The smallest agent. Its name in the settings, from this directory, is agent_echo:answer."""

from collections.abc import AsyncIterator

from unbroken.server.agents.base import TurnInput


async def answer(turn: TurnInput) -> AsyncIterator[str]:
    """Say the last message again, a word at a time."""
    said = turn.messages[-1].text if turn.messages else "nothing"
    for word in said.split():
        yield word + " "
