"""Fits a conversation into a model's window.

What doesn't fit leaves from the front, in whole turns: a question never loses
its answer, nor an answer its question, nor a function call its output. Only the
prompt is shortened; the session keeps everything.

This module is pure: the same conversation and budget give the same prompt, on
any node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_letters, whitespace
from typing import Final, Generic, TypeVar

from unbroken.server.agents.base import ContextTooLong, Prompted
from unbroken.sessions.items import FunctionCall, Image, Message, Reference

__all__ = ["MESSAGE_OVERHEAD_TOKENS", "CountTokens", "ItemT", "Window", "estimate_tokens", "fit"]

ItemT = TypeVar("ItemT", bound=Prompted)
"""What a conversation is made of: messages alone, or any items."""

CountTokens = Callable[[str], int]
"""How many tokens a text has, in the model's own vocabulary or by estimate."""

MESSAGE_OVERHEAD_TOKENS: Final = 8
"""Tokens around each message: its role and delimiters. ChatML and Llama 3's template need five."""

# Measured with SmolLM2's vocabulary (49,000 tokens), which is smaller than most and
# splits every number into digits: prose 4.4 bytes to a token, German 2.5, Python 3.8,
# JSON 1.5, Chinese 1.5, Russian 2.2. Larger vocabularies need fewer tokens.
_LETTER_BYTES_PER_TOKEN: Final = 3
# Of OpenAI's models, by their documents: 85 for an image in low detail, up to 1,536 patches in high.
_LOW_IMAGE_TOKENS: Final = 100
_IMAGE_TOKENS: Final = 1600
# A page of PDF is given as its text and as an image: some 2,000 tokens to 40 KB and more.
_DOCUMENT_BYTES_PER_TOKEN: Final = 20
_LETTERS: Final = (ascii_letters + whitespace).encode()
_NOT_ASCII: Final = bytes(range(0x80, 0x100))


@dataclass(frozen=True, slots=True)
class Window(Generic[ItemT]):
    """The part of a conversation that fits."""

    messages: tuple[ItemT, ...]
    """Oldest first."""
    tokens: int
    """What *messages* and the instructions come to, by the counter that was used."""
    dropped: int
    """How many messages had to leave."""


def estimate_tokens(text: str) -> int:
    """Return about how many tokens *text* has, rather too many than too few.

    It holds for what people and programs write. Long runs of random letters,
    such as base64, have more.
    """
    encoded = text.encode(errors="surrogatepass")
    rest = encoded.translate(None, _LETTERS)
    signs = len(rest.translate(None, _NOT_ASCII))  # digits and punctuation: up to a token each
    letters = len(encoded) - len(rest)
    # Characters outside ASCII have 2 to 4 bytes: two tokens to three bytes.
    return -(-letters // _LETTER_BYTES_PER_TOKEN) + signs - (-2 * (len(rest) - signs) // 3)


def fit(
    messages: Sequence[ItemT],
    *,
    instructions: str = "",
    budget_tokens: int,
    count: CountTokens = estimate_tokens,
) -> Window[ItemT]:
    """Return the newest turns of *messages* that fit into *budget_tokens*.

    *messages* may hold function calls too, each with its output behind it, as
    :func:`~unbroken.server.agents.calls.answered` arranges them.

    A turn is a user message and what follows it until the next one. The last
    turn always stays, and so do system messages ahead of the first user
    message: they are instructions. Whatever else stands ahead of it, such as a
    greeting, leaves first. Turns are never skipped: all that stay are
    consecutive.

    Only messages that stay, and one turn more, are counted: a long session
    costs no more than a full window.

    Args:
        messages: The conversation, oldest first.
        instructions: The system prompt, which always stays.
        budget_tokens: What the prompt may have: the model's window less the
            room for its answer.
        count: An exact counter, where there is one.

    Raises:
        ContextTooLong: When the last turn and the instructions don't fit by themselves.

    """
    leading = 0
    while leading < len(messages) and _role_of(messages[leading]) == "system":
        leading += 1
    tokens = sum(_tokens_of(message, count) for message in messages[:leading])
    if instructions:
        tokens += count(instructions) + MESSAGE_OVERHEAD_TOKENS

    start = len(messages)
    for first, end in _turns_newest_first(messages, leading):
        turn_tokens = sum(_tokens_of(message, count) for message in messages[first:end])
        is_last_turn = end == len(messages)
        if tokens + turn_tokens > budget_tokens and not is_last_turn:
            break
        tokens += turn_tokens
        start = first
        if tokens > budget_tokens:
            break
    if tokens > budget_tokens:
        raise ContextTooLong
    return Window(
        messages=(*messages[:leading], *messages[start:]),
        tokens=tokens,
        dropped=start - leading,
    )


def _tokens_of(item: Prompted, count: CountTokens) -> int:
    text = item.name + item.arguments if isinstance(item, FunctionCall) else item.text
    references = item.references if isinstance(item, Message) else ()
    return count(text) + sum(map(_tokens_of_reference, references)) + MESSAGE_OVERHEAD_TOKENS


def _tokens_of_reference(part: Reference) -> int:
    """Return about how many tokens an image or a file comes to: nobody looks into it here."""
    if isinstance(part, Image):
        return _LOW_IMAGE_TOKENS if part.detail == "low" else _IMAGE_TOKENS
    if part.media_type.startswith("text/"):
        return part.bytes // _LETTER_BYTES_PER_TOKEN
    return max(_IMAGE_TOKENS, part.bytes // _DOCUMENT_BYTES_PER_TOKEN)


def _role_of(item: Prompted) -> str | None:
    return item.role if isinstance(item, Message) else None


def _turns_newest_first(messages: Sequence[Prompted], leading: int) -> list[tuple[int, int]]:
    """Return the half-open ranges of the turns after the *leading* system messages, newest first."""
    starts = [index for index in range(leading, len(messages)) if _role_of(messages[index]) == "user"]
    if leading < len(messages) and (not starts or starts[0] != leading):
        starts.insert(0, leading)  # what comes ahead of the first user message
    ends = [*starts[1:], len(messages)]
    return list(zip(starts, ends, strict=True))[::-1] if starts else []
