"""What is asked and answered: words that carry their turn and their number, so that none can be missed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from unbroken.server.agents.base import AgentOutput, TurnInput

__all__ = ["JOURNAL", "answer", "answer_to", "key_of", "pause_of", "prompt", "words_of"]

JOURNAL: Final = "CHAOS_JOURNAL"
"""Environment variable that names the file in which each answer that is begun gets a line."""


def prompt(key: str, count: int, pause: float) -> str:
    """Return what asks for *count* words, one each *pause* seconds. *key* names the turn, without blanks."""
    return f"say {key} {count} {pause}"


def key_of(asked: str) -> str:
    """Return the turn's name."""
    return asked.split()[1]


def pause_of(asked: str) -> float:
    """Return the seconds between two words."""
    return float(asked.split()[3])


def words_of(asked: str) -> list[str]:
    """Return the pieces of the answer to what :func:`prompt` made."""
    _, key, count, _ = asked.split()
    return [f"{key}.{number} " for number in range(int(count))]


def answer_to(asked: str) -> str:
    """Return the whole answer."""
    return "".join(words_of(asked))


async def answer(turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
    """Answer, as an agent of a node's, having noted that it was asked to."""
    asked = turn.metadata["turn"]
    note(turn.response_id, key_of(asked))
    for word in words_of(asked):
        await asyncio.sleep(pause_of(asked))
        yield word


def note(response_id: str, key: str) -> None:
    """Write a line into the journal: in one write, which no other process' cuts in two."""
    journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(journal, f"{response_id} {key}\n".encode())
    finally:
        os.close(journal)
