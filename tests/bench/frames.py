"""Frames of the server under measurement, recorded so that the bare peer can send the very same bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from tests.bench.wire import API_KEY, DOOR, create_item, create_response
from tests.bench.workload import Order, answer_text, stamped, word

__all__ = ["Frames", "record"]

_RECEIVE_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Frames:
    """What a server says, as JSON texts."""

    opening: str
    item_done: str
    deltas: list[str]
    """Of a burst answer, a frame for each word."""
    done: str

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))

    def around(self, number: int) -> tuple[str, str]:
        """Return what stands before and after the text in the frame of that word."""
        before, text, after = self.deltas[number].rpartition(json.dumps(word(number))[1:-1])
        assert text, "a recorded frame holds its word"
        return before, after

    def done_with(self, text: str) -> str:
        """Return the last frame of an answer whose text is *text*."""
        return self.done.replace(answer_text(len(self.deltas)).decode(), text)


def record(port: int, count: int) -> Frames:
    """Have one answer of *count* words from the server on *port*, through another WebSocket client than ours.

    Raises:
        RuntimeError: It doesn't answer as it should.

    """
    url = f"ws://127.0.0.1:{port}{DOOR}"
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with connect(url, additional_headers=headers, compression=None, proxy=None) as socket:
        opening = _next(socket, "session.created")
        # Slowly, so that no two words share a frame.
        socket.send(create_item(Order("spread", 150, count)))
        item_done = _next(socket, "conversation.item.done")
        socket.send(create_response())
        deltas: list[str] = []
        while True:
            text = _receive(socket)
            event = json.loads(text)
            if event["type"] == "response.output_text.delta":
                deltas.append(text)
            elif event["type"] == "response.done":
                break
    if [json.loads(delta)["delta"] for delta in deltas] != [word(number) for number in range(count)]:
        raise RuntimeError(f"recorded {len(deltas)} frames for {count} words, or other words")
    frames = Frames(opening, item_done, deltas, text)
    if stamped(0, 0) not in frames.done_with(stamped(0, 0)):
        raise RuntimeError("the recorded response.done doesn't hold the answer's text")
    return frames


def _next(socket: ClientConnection, kind: str) -> str:
    while True:
        text = _receive(socket)
        event: dict[str, Any] = json.loads(text)
        if event["type"] == kind:
            return text
        if event["type"] == "error":
            raise RuntimeError(f"the server refused: {text}")


def _receive(socket: ClientConnection) -> str:
    message = socket.recv(_RECEIVE_TIMEOUT)
    if not isinstance(message, str):
        raise RuntimeError("the server sent a binary frame")
    return message
