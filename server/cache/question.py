"""From a turn to the question it asks: whether it may be answered from the cache, and under which names.

The names are SHA-256 digests of MessagePack, in which no two different lists of values look the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from unbroken.server.agents.base import Message, TurnInput
from unbroken.server.cache.base import Slot
from unbroken.server.cache.personal import is_passing, is_personal

__all__ = ["Asker", "Question", "Unfit", "question_of", "tenant_digest"]

Unfit: TypeAlias = Literal["tools", "content", "reasoning", "personal", "passing", "empty"]
"""Why a turn is no question for the cache: tools may be called; there is more than text; reasoning is
shown; somebody's data, or something of today, is in it; or nothing was asked."""

_LAYOUT: Final = 1
"""Goes up when keys are made, or questions judged, otherwise: what was kept before is no longer found."""

_LONGEST_MESSAGE: Final = 400
"""Characters of a message that is compared with others by meaning."""

_SPACES: Final = re.compile(r"[ \t\u00a0]+")


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


def question_of(turn: TurnInput, asker: Asker, version: str, *, may_use_tools: bool) -> Question | Unfit:
    """Return what *turn* asks, or why it is nothing for the cache.

    *may_use_tools*: whether an answer to it may call any. *version* is the operator's.
    """
    if may_use_tools:
        return "tools"
    if turn.shows_reasoning:
        return "reasoning"
    said: list[tuple[str, str, str]] = []
    for item in turn.items:
        if not isinstance(item, Message):
            return "tools"
        if item.references:
            return "content"
        said.append((item.role, item.status, _normal(item.text)))
    if not said or said[-1][0] != "user" or not said[-1][2]:
        return "empty"
    for role, _, text in said:
        if is_personal(text):
            return "personal"
        if role == "user" and is_passing(text):
            return "passing"
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
        sorted(turn.metadata.items()),
    )
    slot = Slot(place, _digest(place, before, said[-1]), tenant_digest(asker.tenant))
    stands_alone = not before and len(message) <= _LONGEST_MESSAGE
    return Question(slot, message if stands_alone else None)


def tenant_digest(tenant: str) -> str:
    """Return the name under which slots have a tenant."""
    return _digest(tenant)


def _normal(text: str) -> str:
    """Return *text* without what nobody means to say: other ways to write a letter, spaces at ends of lines.

    Upper and lower case, and spaces at the beginning of a line, may mean something.
    """
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").strip()
    if "\n" in text:
        return "\n".join(line.rstrip() for line in text.split("\n"))
    return _SPACES.sub(" ", text)


def _digest(*values: object) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(values)).hexdigest()[:40]
