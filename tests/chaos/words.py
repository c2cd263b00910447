"""What is asked and answered: words that carry their turn, their number, and what was said before.

So none can be missed, and none can come from an agent that was told of another conversation. Among them
is something that the leak filter has to keep back, cut in two.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Final

from unbroken.server.agents.base import UpstreamReportedError

if TYPE_CHECKING:
    from unbroken.server.agents.base import AgentOutput, TurnInput

__all__ = [
    "JOURNAL",
    "SECRET",
    "answer",
    "answer_to",
    "digest",
    "digest_of",
    "fails",
    "key_of",
    "pause_of",
    "prompt",
    "restored",
    "words_of",
]

JOURNAL: Final = "CHAOS_JOURNAL"
"""Environment variable that names the file in which each answer that is begun gets a line."""


SECRET: Final = "ada@unbroken-chaos.org"
"""What agents say, and nobody is to be shown."""

_CUT: Final = 12
_PLACEHOLDER: Final = re.compile(r"\[email [a-z2-7]+\]")


_FAIL: Final = "and fail"


def prompt(key: str, count: int, pause: float, *, fails: bool = False) -> str:
    """Return what asks for *count* words, one each *pause* seconds, of an agent that then *fails* or is done.

    *key* names the turn, without blanks.
    """
    return f"say {key} {count} {pause}" + (f" {_FAIL}" if fails else "")


def fails(asked: str) -> bool:
    """Return whether the agent fails behind its words."""
    return asked.endswith(_FAIL)


def key_of(asked: str) -> str:
    """Return the turn's name."""
    return asked.split()[1]


def pause_of(asked: str) -> float:
    """Return the seconds between two words."""
    return float(asked.split()[3])


def digest(said: Iterable[tuple[str, str]]) -> str:
    """Return a digest of messages: of who says what, in order. What says nothing doesn't count."""
    known = hashlib.sha256()
    for role, text in said:
        if text:
            known.update(f"{role} {len(text)} {text}".encode())
    return known.hexdigest()[:8]


def words_of(asked: str, past: str) -> list[str]:
    """Return the pieces of the answer to what :func:`prompt` made.

    *past* is the digest of all messages up to that.
    """
    _, key, count, *_ = asked.split()
    words = [f"{key}.{number}.{past} " for number in range(int(count))]
    for number in range(4, len(words) - 1, 6):
        words[number] += SECRET[:_CUT]
        words[number + 1] = f"{SECRET[_CUT:]} {words[number + 1]}"
    return words


def answer_to(asked: str, past: str) -> str:
    """Return the whole answer."""
    return "".join(words_of(asked, past))


def restored(said: str) -> str:
    """Return what an agent said of which this was left, or is the beginning."""
    return _PLACEHOLDER.sub(SECRET, said)


def digest_of(said: str) -> str:
    """Return what an answer, or its beginning, knows of what was said before; empty: it doesn't say."""
    found = re.match(r"\S+?\.0\.([0-9a-f]{8}) ", said)
    return "" if found is None else found[1]


async def answer(turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
    """Answer, as an agent of a node's, having noted that it was asked to."""
    asked = turn.metadata["turn"]
    note(turn.response_id, key_of(asked))
    for word in words_of(asked, digest((message.role, message.text) for message in turn.messages)):
        await asyncio.sleep(pause_of(asked))
        yield word
    if fails(asked):
        raise UpstreamReportedError


def note(response_id: str, key: str) -> None:
    """Write a line into the journal: in one write, which no other process' cuts in two."""
    journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(journal, f"{response_id} {key}\n".encode())
    finally:
        os.close(journal)
