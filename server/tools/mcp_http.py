"""The HTTP client that MCP servers are spoken to with."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httpx2

__all__ = ["McpHttp"]

_PIECE_SECONDS: Final = 60.0
"""For each piece of an answer. What a whole one may take, whoever asks says."""
_END_SECONDS: Final = 2.0
"""For a server to confirm that a session is over: meanwhile a process is to end, or to connect again."""


class McpHttp(httpx2.AsyncClient):
    """A client that waits for the answer to the last request of a session for so long, however it comes in.

    The package asks for a session's end when its own is settled, and then nobody stops it any more.
    """

    def __init__(self, key: str | None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # What is sent goes to the address that the operator gave, nowhere else.
        super().__init__(headers=headers, follow_redirects=False, timeout=_PIECE_SECONDS)

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """See :meth:`httpx2.AsyncClient.send`. Of the last answer, nobody needs the body.

        Raises:
            TimeoutError: It was the last request, and isn't answered.

        """
        if request.method != "DELETE":
            return await super().send(request, **options)
        async with asyncio.timeout(_END_SECONDS):
            answer = await super().send(request, **options)
            await answer.aclose()
        bare = httpx2.Response(answer.status_code, request=request)
        bare.next_request = answer.next_request
        return bare
