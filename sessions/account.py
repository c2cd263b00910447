"""How many bytes of memory a session takes, roughly: what a node's bound is kept by.

A log counts each entry for itself, as if it were written to a disk. In memory
the text of an item is one object, however many entries and items hold it. So
what is counted more than once is noted here, for as long as the log holds it.

No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec
from msgspec import UNSET

from unbroken.sessions.entries import Entry, ItemAdded, ResponseDone, ResponseQueued, ResponseStarted
from unbroken.sessions.items import Item, Produced, Reasoning, SessionConfig, ToolCall

__all__ = ["KEY_COST", "REFUSAL_COST", "SESSION_COST", "Account", "config_bytes"]

SESSION_COST: Final = 4800
"""Bytes of a session that holds nothing: its objects here, in the node and in the store."""

KEY_COST: Final = 250
"""Bytes that a store in memory needs to recognise one input again, beside its name."""

REFUSAL_COST: Final = 500
"""Bytes of a refusal that is kept."""

_ITEM_COST: Final = 320
"""Bytes of an item beside its text."""

_LEAST: Final = 256
"""Bytes below which nothing is noted: noting would cost as much."""


class Account:
    """What a session's log counts more often than it is in memory."""

    __slots__ = ("_noted", "repeated")

    def __init__(self) -> None:
        self.repeated = 0
        """Bytes to subtract from what the log says."""
        self._noted: deque[tuple[int, int]] | None = None  # by sequence number; most sessions have none

    def note(self, entry: Entry, shrunk: int) -> None:
        """Take in an entry that was applied; *shrunk*: by how many bytes the conversation is smaller for it.

        What left the conversation is still held by the log, if that holds the item.
        """
        body = entry.body
        match body:
            case ItemAdded():
                repeated = 2 * _text_bytes(body.item)  # here and in the input: the conversation counts it
            case ResponseDone():
                repeated = sum(_repeated(item, in_conversation=body.in_conversation) for item in body.output)
            case ResponseQueued() | ResponseStarted():
                repeated = sum(map(_text_bytes, body.request.input or ()))  # the input counts it
            case _:
                repeated = -max(shrunk - _ITEM_COST, 0)
        if abs(repeated) >= _LEAST:
            if self._noted is None:
                self._noted = deque()
            self._noted.append((entry.seq, repeated))
            self.repeated += repeated

    def forget(self, floor: int) -> None:
        """Note that the log holds nothing up to *floor* any more."""
        noted = self._noted
        while noted and noted[0][0] <= floor:
            self.repeated -= noted.popleft()[1]


def config_bytes(config: SessionConfig) -> int:
    """Return the bytes that a session's configuration takes."""
    tools = 0 if config.tools is UNSET else len(msgspec.json.encode(config.tools))
    notes = 0 if config.metadata is UNSET else len(msgspec.json.encode(config.metadata))
    return len(config.instructions.encode()) + 2 * (tools + notes)


def _repeated(item: Produced, *, in_conversation: bool) -> int:
    """Return what is counted too often of an output whose response has ended."""
    # In the entries that end the output and the whole; in the pieces, which are counted where
    # the conversation doesn't.
    times = 3 if in_conversation and not isinstance(item, Reasoning) else 2
    repeated = times * _text_bytes(item)
    # What came of a tool's call was in no piece.
    return repeated - len(item.result.encode()) if isinstance(item, ToolCall) else repeated


def _text_bytes(item: Item | Produced) -> int:
    return max(item.size - _ITEM_COST, 0)
