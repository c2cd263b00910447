"""From a turn to the question it asks: whether it may be answered from the cache, and under which names.

The names are SHA-256 digests of MessagePack, in which no two different lists of values look the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from unbroken.server.agents.base import Message, TurnInput
from unbroken.server.cache.base import Slot
from unbroken.server.cache.first_person import speaks_of_the_asker
from unbroken.server.cache.personal import AT_ONCE, is_passing, is_personal, parts_of

__all__ = ["Asker", "Question", "Unfit", "question_of", "tenant_digest"]

Unfit: TypeAlias = Literal["tools", "content", "reasoning", "long", "personal", "passing", "empty"]
"""Why a turn is no question for the cache: tools may be called; there is more than text; reasoning is
shown; there is too much of it to look at each time; somebody's data, or something of today, is in it; or
nothing was asked."""

_LAYOUT: Final = 3
"""Goes up when keys are made, or questions judged, otherwise: what was kept before is no longer found."""

_LONGEST_MESSAGE: Final = 160
"""Characters of a message that is compared with others by meaning. That costs a model time for each, and
long ones hardly find their like: of what a forum's users ask twice, one in a hundred is longer."""

_MOST_TEXT: Final = 65_536
"""Characters of a conversation. All of it is looked at in each turn; longer ones are hardly ever the same."""

_NORMALISED: Final = 256
"""Characters that are normalised at once: steps grow with the square of the accents in a row."""

_SPACES: Final = re.compile(r"[ \t\u00a0]{2,}|[\t\u00a0]")
"""What isn't one plain space."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: for whom an answer is good."""

    scope: str
    """``user`` or ``tenant``."""
    name: str
    """Of the user or the tenant, whichever the scope says."""
    tenant: str
    """Empty: it isn't known."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a turn asks."""

    slot: Slot
    message: str | None
    """The message, where it stands by itself: the first of its conversation, and short. Else None."""


async def question_of(
    turn: TurnInput, asker: Asker, version: str, *, may_use_tools: bool
) -> Question | Unfit:
    """Return what *turn* asks, or why it is nothing for the cache.

    *may_use_tools*: whether an answer to it may call any. *version* is the operator's. Others have
    their turn after every few thousand characters.
    """
    if may_use_tools:
        return "tools"
    if turn.shows_reasoning:
        return "reasoning"
    conversation: list[tuple[str, str, str]] = []
    size = 0
    for item in turn.items:
        if not isinstance(item, Message):
            return "tools"
        if item.references:
            return "content"
        conversation.append((item.role, item.status, item.text))
        size += len(item.text)
        if size > _MOST_TEXT:
            return "long"
    turns = _Turns()
    said = [(role, status, await _normal(text, turns)) for role, status, text in conversation]
    if not said or said[-1][0] != "user" or not said[-1][2]:
        return "empty"
    is_shared = asker.scope != "user"
    for role, _, text in said:
        for part in parts_of(text):
            if is_personal(part) or (is_shared and role == "user" and speaks_of_the_asker(part)):
                return "personal"
            if role == "user" and is_passing(part):
                return "passing"
            await turns.spend(len(part.text))
    *before, (_, _, message) = said
    place = _digest(
        _LAYOUT,
        version,
        (asker.scope, asker.name),
        turn.model,
        turn.instructions,
        turn.tools,
        turn.tool_choice,
        turn.parallel_tool_calls,
        turn.max_output_tokens,
        turn.parameters,
        sorted(turn.metadata.items()),
    )
    slot = Slot(place, _digest(place, before, said[-1]), tenant_digest(asker.tenant))
    stands_alone = not before and len(message) <= _LONGEST_MESSAGE
    return Question(slot, message if stands_alone else None)


def tenant_digest(tenant: str) -> str:
    """Return the name under which slots have a tenant."""
    return _digest(tenant)


class _Turns:
    """Gives others their turn when enough has been looked at."""

    def __init__(self) -> None:
        self._spent = 0

    async def spend(self, characters: int) -> None:
        """Note that so many have been looked at."""
        self._spent += characters
        if self._spent >= AT_ONCE:
            self._spent = 0
            await asyncio.sleep(0)


async def _normal(text: str, turns: _Turns) -> str:
    """Return *text* without what nobody means to say: other ways to write a letter, spaces at ends of lines.

    Upper and lower case, and spaces at the beginning of a line, may mean something.
    """
    await turns.spend(len(text))
    text = (text if text.isascii() else await _composed(text, turns)).replace("\r\n", "\n").strip()
    if "\n" in text:
        return "\n".join(line.rstrip() for line in text.split("\n"))
    return _SPACES.sub(" ", text)


async def _composed(text: str, turns: _Turns) -> str:
    """Return *text* in NFC; of a word of hundreds of characters, perhaps in another form for each part."""
    parts: list[str] = []
    begin = 0
    while begin < len(text):
        end = begin + _NORMALISED
        if end < len(text):
            end = max(text.rfind(" ", begin + 1, end), text.rfind("\n", begin + 1, end)) % (end + 1)
        parts.append(unicodedata.normalize("NFC", text[begin:end]))
        begin = end
        await turns.spend(_NORMALISED)
    return "".join(parts)


def _digest(*values: object) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(values)).hexdigest()[:40]
