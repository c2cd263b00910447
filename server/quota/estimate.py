"""How many tokens something is, roughly, where nobody has counted yet: four bytes of UTF-8 each.

Right within a quarter or so for English, and for most scripts whose letters take three bytes. Text files are
text. Of pictures and PDF providers count pixels and pages, which nobody has looked for here: their bytes
say roughly how many there are. What a provider tells takes the place of it all when a turn is settled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from unbroken.server.agents.base import TurnInput
from unbroken.server.files.kinds import TEXT
from unbroken.sessions.items import (
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Image,
    Item,
    Message,
    Parameters,
    Produced,
    Reasoning,
    Reference,
    ResponseRequest,
    Text,
    ToolCall,
)
from unbroken.sessions.responder import FunctionCallPiece, Output, ReasoningPiece, ToolCallPiece, Working
from unbroken.sessions.session import Session

__all__ = [
    "bytes_of",
    "item_bytes",
    "produced_bytes",
    "prompt_tokens",
    "request_tokens",
    "said_bytes",
    "tokens_of",
]

_BYTES: Final = 4

_REFERENCE: Final = 1000
"""Tokens of an image or a document, at least."""

_IMAGE_BYTES: Final = 250
"""Bytes of an image for a token."""

_IMAGE_MOST: Final = 2500
"""Tokens of an image, at most: providers scale large ones down."""

_DOCUMENT_BYTES: Final = 20
"""Bytes of a PDF for a token: text is compressed there, and fonts and pictures come with it."""

_DOCUMENT_MOST: Final = 200_000
"""Tokens of a PDF, at most: providers take about a hundred pages."""

_NAMED: Final = len("[File : ]\n\n[End of file ]") + 2 * 16
"""Bytes around the text of a file, beside its name: with a mark of sixteen, twice."""

_FRAME: Final = 4
"""Tokens that say whose a message is, and where it ends."""


def tokens_of(size: int) -> int:
    """Return how many tokens so many bytes are, rounded up."""
    return -(-size // _BYTES)


def bytes_of(tokens: int) -> int:
    """Return how many bytes so many tokens are."""
    return tokens * _BYTES


def request_tokens(session: Session, request: ResponseRequest, said: Iterable[Item] = ()) -> int:
    """Return what a request would send to a model that comes with items, as far as is known.

    The conversation isn't looked through: its items were measured by :func:`item_bytes` as they came.
    """
    config = request.config_in(session.config)
    instructions = config.instructions if request.instructions is None else request.instructions
    items = session.weight if request.input is None else sum(map(item_bytes, request.input))
    items += sum(map(item_bytes, said))
    return tokens_of(items + _told(instructions, request.tools_with(config), request.parameters))


def prompt_tokens(given: TurnInput) -> int:
    """Return what a turn sends to a model."""
    return tokens_of(
        sum(map(item_bytes, given.items)) + _told(given.instructions, given.tools, given.parameters)
    )


def said_bytes(piece: Output) -> int:
    """Return how much a piece of an answer is."""
    match piece:
        case str() as text:
            return _bytes(text)
        case FunctionCallPiece(arguments=text) | ToolCallPiece(arguments=text) | ReasoningPiece(text=text):
            return _bytes(text)
        case Working(thought=size):
            return size
        case _:
            return 0


def produced_bytes(item: Produced) -> int:
    """Return how much of an item its model has said."""
    match item:
        case Message(text=text) | Reasoning(text=text):
            return _bytes(text)
        case FunctionCall(arguments=text) | ToolCall(arguments=text):
            return _bytes(text)
        case _:
            return 0


def item_bytes(item: object) -> int:
    """Return how many bytes of text an item is to a model, or takes as many tokens as."""
    size = _FRAME * _BYTES
    match item:
        case Message(content=parts):
            for part in parts:
                size += _bytes(part.text) if isinstance(part, Text) else _referred(part)
        case FunctionCall():
            size += _bytes(item.name) + _bytes(item.arguments)
        case FunctionOutput():
            size += _bytes(item.output)
        case ToolCall():
            size += _bytes(item.name) + _bytes(item.arguments) + _bytes(item.result)
        case _:
            return 0  # no model is shown it
    return size


def _told(instructions: str, tools: Iterable[FunctionTool], parameters: Parameters | None) -> int:
    size = _bytes(instructions) + sum(len(msgspec.json.encode(tool)) for tool in tools)
    if parameters is not None and parameters.format is not None:  # models are shown the schema
        size += len(msgspec.json.encode(parameters.format))
    return size


def _referred(part: Reference) -> int:
    """Return how many bytes of text a model would be given, as far as it takes the same tokens."""
    if part.media_type == TEXT:
        return part.bytes + _bytes(part.name) + _NAMED
    is_image = isinstance(part, Image)
    tokens = part.bytes // (_IMAGE_BYTES if is_image else _DOCUMENT_BYTES)
    return bytes_of(min(max(tokens, _REFERENCE), _IMAGE_MOST if is_image else _DOCUMENT_MOST))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
