"""Asks an ASGI application over HTTP, without a server between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import ASGIApp, Message

__all__ = ["Answer", "ask"]


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


async def ask(
    asgi: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes | None = b"",
    client: str = "127.0.0.1",
) -> Answer:
    """Send a request, and return what is answered. *path* may have a query; a *body* of None never comes."""
    sent: list[Message] = []

    async def receive() -> Message:
        if body is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": list(headers),
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "client": (client, 1),
        "server": ("127.0.0.1", 8000),
    }
    await asgi(scope, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], answer, names)
