"""How many tokens something is, roughly, where nobody has counted yet: four bytes of UTF-8 each.

Right within a quarter or so for English, and for most scripts whose letters take three bytes. What a
provider tells takes its place when a turn is settled.
"""

from __future__ import annotations

from typing import Final

from unbroken.server.agents.base import TurnInput
from unbroken.sessions.items import (
    FunctionCall,
    Item,
    Message,
    Produced,
    Reasoning,
    ResponseRequest,
    ToolCall,
)
from unbroken.sessions.responder import FunctionCallPiece, Output, ReasoningPiece, ToolCallPiece
from unbroken.sessions.session import Session

__all__ = ["produced_bytes", "prompt_tokens", "request_tokens", "said_bytes", "tokens_of"]

_BYTES: Final = 4

_REFERENCE: Final = 1000
"""Tokens of an image or a file, whatever is in it."""


def tokens_of(size: int) -> int:
    """Return how many tokens so many bytes are, rounded up."""
    return -(-size // _BYTES)


def request_tokens(session: Session, request: ResponseRequest) -> int:
    """Return what a request would send to a model, as far as is known. O(1) for a conversation."""
    config = session.config
    size = session.conversation_bytes if request.input is None else sum(map(_size, request.input))
    instructions = config.instructions if request.instructions is None else request.instructions
    return tokens_of(size + len(instructions.encode("utf-8", "surrogatepass")))


def prompt_tokens(given: TurnInput) -> int:
    """Return what a turn sends to a model."""
    return tokens_of(sum(map(_size, given.items)) + len(given.instructions.encode("utf-8", "surrogatepass")))


def said_bytes(piece: Output) -> int:
    """Return how much a piece of an answer is."""
    match piece:
        case str() as text:
            pass
        case FunctionCallPiece(arguments=text) | ToolCallPiece(arguments=text) | ReasoningPiece(text=text):
            pass
        case _:
            return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def produced_bytes(item: Produced) -> int:
    """Return how much of an item its model has said."""
    match item:
        case Message(text=text) | Reasoning(text=text):
            pass
        case FunctionCall(arguments=text) | ToolCall(arguments=text):
            pass
        case _:
            return 0
    return len(text.encode("utf-8", "surrogatepass"))


def _size(item: Item) -> int:
    references = len(item.references) if isinstance(item, Message) else 0
    return item.size + references * _REFERENCE * _BYTES
