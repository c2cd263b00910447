"""What goes over the wire: a client's frames, and the events of the Realtime protocol that the load needs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.bench.workload import Order

__all__ = [
    "ACCEPT",
    "API_KEY",
    "CREATED",
    "DOOR",
    "ITEM_DONE",
    "KEY",
    "REALTIME",
    "RESPONSE_DONE",
    "SOCKET_IO",
    "Dialect",
    "answer_request",
    "create_item",
    "create_message",
    "create_response",
    "frame",
    "request_of",
]

DOOR: Final = "/v1/realtime"
API_KEY: Final = "bench-key"

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What RFC 6455, 1.3 gives as the answer to that key."""

CREATED: Final = b'"session.created"'
ITEM_DONE: Final = b'"conversation.item.done"'
RESPONSE_DONE: Final = b'"response.done"'

_MASK: Final = b"\x5a\xc3\x11\x87"


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return a client's frame. The mask is constant: nothing on this path could be confused by content."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    else:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    mask = _MASK * (size // 4 + 1)
    masked = int.from_bytes(payload) ^ int.from_bytes(mask[:size])
    return head + _MASK + masked.to_bytes(size)


def create_item(order: Order) -> str:
    """Return the event that puts *order* into the conversation."""
    return create_message(order.text)


def create_message(text: str) -> str:
    """Return the event that puts a user's message into the conversation."""
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    return json.dumps({"type": "conversation.item.create", "item": item})


def create_response() -> str:
    """Return the event that asks for an answer."""
    return json.dumps({"type": "response.create"})


def request_of(events: Iterable[str]) -> bytes:
    """Return *events* as frames."""
    return b"".join(frame(event.encode()) for event in events)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a client of one kind of server comes in and asks. What it is told has the same words in each."""

    target: str
    greeting: bytes = b""
    """Sent once the connection stands."""
    is_socket_io: bool = False


REALTIME: Final = Dialect(DOOR)
SOCKET_IO: Final = Dialect("/socket.io/?EIO=4&transport=websocket", frame(b"40"), is_socket_io=True)
"""Socket.IO 5 on Engine.IO 4, without its first round by long polling."""


def answer_request(order: Order, dialect: Dialect = REALTIME) -> bytes:
    """Return the frames that ask for an answer."""
    if dialect.is_socket_io:
        return frame(b"42" + json.dumps(["ask", order.text]).encode())
    return request_of([create_item(order), create_response()])
