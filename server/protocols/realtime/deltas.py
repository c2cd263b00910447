"""The frames that there are most of: pieces of an answer.

All that differs from one to the next is its place and its text. So what
stands around them is encoded once for each output; and a frame that several
connections of a session are sent is encoded for the first of them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from msgspec import UNSET

from unbroken.server.protocols.realtime.tools import Frame
from unbroken.sessions.entries import DeltaKind, Deltas
from unbroken.sessions.event_log import Slice

__all__ = ["DeltaEncoder", "delta_frame"]

_KINDS: Final[dict[DeltaKind, str]] = {
    "reasoning": "unbroken.reasoning.delta",
    "tool_call": "response.mcp_call_arguments.delta",
}

_MERGED_CHARACTERS: Final = 4096
"""How much text one frame holds when a connection catches up."""

_SHARED_PIECES: Final = 4
"""Up to so many pieces are kept for the next connection: those of an answer as it is being said."""

_SHARED_BYTES: Final = 2048
"""What is larger isn't kept, roughly."""


class DeltaEncoder:
    """Encodes the pieces in one session's log, for all connections that see it alike.

    Args:
        incarnation: The log's.
        merge_above: With more consecutive pieces than this in one go, a connection is
            behind, and they are merged into fewer, larger deltas.

    """

    __slots__ = ("_after", "_before", "_content_index", "_item_id", "_known", "_merge_above", "_shared")

    def __init__(self, incarnation: str, *, merge_above: int) -> None:
        self._merge_above = merge_above
        self._known = f'","event_id":"event_{incarnation}.'.encode()
        self._item_id = ""  # the output that is being encoded
        self._content_index = 0
        self._before = b""  # what stands before the place in its frames,
        self._after = b""  # and between the place and the text
        # The latest: place, its nonces, frames. A log that lost its tail has other pieces in the same places.
        self._shared: tuple[int, Sequence[int], list[bytes]] | None = None

    def encode(self, piece: Slice) -> list[bytes]:
        """Return the frames of *piece*: one for each part, or fewer where there are many."""
        shared, seq, count = self._shared, piece.seq, len(piece.parts)
        if shared is not None and shared[0] == seq and shared[1] == piece.nonces:
            return shared[2]
        if self._item_id != piece.item_id or self._content_index != piece.content_index:
            self._turn_to(piece)
        before, after = self._before, self._after
        if count == 1:  # the usual case
            place = b"%d.%x" % (seq, piece.nonces[0])
            frames = [b"".join((before, place, after, orjson.dumps(piece.parts[0]), b"}"))]
        else:
            frames = [
                b"".join((before, b"%d.%x" % (seq, nonce), after, orjson.dumps(text), b"}"))
                for seq, nonce, text in self._merged(piece)
            ]
        is_small = count <= _SHARED_PIECES and len(frames[0]) * count <= _SHARED_BYTES
        self._shared = (seq, piece.nonces, frames) if is_small else None
        return frames

    def _turn_to(self, piece: Slice) -> None:
        """Encode what all frames of an output have in common."""
        frame = delta_frame(piece)
        kind = frame.pop("type").encode()
        common = orjson.dumps(frame)
        self._item_id, self._content_index = piece.item_id, piece.content_index
        self._before = b'{"type":"' + kind + self._known
        self._after = b'.0",' + common[1:-1] + b',"delta":'

    def _merged(self, piece: Slice) -> list[tuple[int, int, str]]:
        """Return the deltas to send, each with the place it leads up to."""
        count = len(piece.parts)
        if count <= self._merge_above:
            return list(zip(range(piece.seq, piece.seq + count), piece.nonces, piece.parts, strict=True))
        if sum(map(len, piece.parts)) <= _MERGED_CHARACTERS:
            return [(piece.last, piece.nonces[-1], "".join(piece.parts))]
        merged: list[tuple[int, int, str]] = []
        held: list[str] = []
        size = 0
        for index, part in enumerate(piece.parts):
            held.append(part)
            size += len(part)
            if size >= _MERGED_CHARACTERS or index == count - 1:
                merged.append((piece.seq + index, piece.nonces[index], "".join(held)))
                held.clear()
                size = 0
        return merged


def delta_frame(piece: Slice | Deltas) -> Frame:
    """Return what all frames with pieces of one output have in common: everything but place and text."""
    frame: Frame = {
        "type": "response.output_text.delta",
        "response_id": piece.response_id,
        "item_id": piece.item_id,
        "output_index": piece.output_index,
    }
    if piece.call_id is not UNSET:
        frame["type"] = "response.function_call_arguments.delta"
        frame["call_id"] = piece.call_id
    elif piece.kind is not UNSET:
        frame["type"] = _KINDS[piece.kind]
        if piece.kind == "tool_call":
            frame["obfuscation"] = ""  # optional, but @openai/agents-realtime takes no such event without it
    else:
        frame["content_index"] = piece.content_index
    return frame
