"""How much is looked at before anything else gets its turn. Agents may say anything at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from unbroken.sessions.responder import (
    AsksApproval,
    Finish,
    FunctionCallPiece,
    Output,
    ReasoningPiece,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
)

__all__ = ["ACTS", "AT_ONCE", "portions", "size_of"]

AT_ONCE: Final = 512
"""Characters: one to three milliseconds of the filter, where they are numbers."""

ACTS: Final = (RunsTools, ToolEnded, AsksApproval, Finish)
"""What an answer does rather than say. One that is stopped no longer does."""


def portions(text: str) -> Iterator[str]:
    """Yield *text* in portions of :data:`AT_ONCE` characters; nothing is one, too."""
    if len(text) <= AT_ONCE:
        yield text
        return
    for begin in range(0, len(text), AT_ONCE):
        yield text[begin : begin + AT_ONCE]


def size_of(output: Output) -> int:
    """Return how many characters of *output* may have to be looked at."""
    match output:
        case str():
            return len(output)
        case ReasoningPiece():
            return len(output.text)
        case FunctionCallPiece():
            return len(output.arguments) + len(output.name) + len(output.call_id)
        case ToolCallPiece():
            return len(output.arguments)
        case AsksApproval():
            return len(output.head.arguments)
        case ToolEnded():
            return len(output.output or "") + (0 if output.error is None else len(output.error.message))
        case _:
            return 0
