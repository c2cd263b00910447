"""Asks an ASGI application over HTTP, without a server between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import ASGIApp, Message

__all__ = ["Answer", "ask"]


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


async def ask(
    asgi: ASGIApp, path: str, *, method: str = "GET", headers: Sequence[tuple[bytes, bytes]] = ()
) -> Answer:
    """Send a request without a body, and return what is answered."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": list(headers),
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await asgi(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], body, names)
