"""The body of an upstream's answer that is an error: read whole ahead of anything else, and so within bounds.

The client's package reads it to its end, whatever there is, for what it says of the error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import httpx2

__all__ = ["ErrorBody", "bound_error"]

_MOST_BYTES: Final = 64 * 1024
_SECONDS: Final = 5.0


async def bound_error(response: httpx2.Response) -> None:
    """Have the body of *response*, if that is an error, be read within bounds. A hook of the HTTP client's.

    The rest is dropped, and one that is packed, which wasn't asked for. What doesn't come, or isn't what
    it is said to be, doesn't hide the status.
    """
    if not response.is_error or not isinstance(response.stream, httpx2.AsyncByteStream):
        return
    is_packed = response.headers.pop("content-encoding", "identity") != "identity"
    response.stream = ErrorBody(response.stream, most_bytes=0 if is_packed else _MOST_BYTES)
    # The name of a text's encoding is the upstream's to say; JSON's is known, and nobody reads another text.
    if "content-type" in response.headers:
        response.headers["content-type"] = response.headers["content-type"].partition(";")[0]


class ErrorBody(httpx2.AsyncByteStream):
    """The beginning of a body, as it comes over the wire.

    Args:
        stream: All of it.
        most_bytes: How much is read.
        seconds: For how long.

    """

    def __init__(
        self, stream: httpx2.AsyncByteStream, *, most_bytes: int = _MOST_BYTES, seconds: float = _SECONDS
    ) -> None:
        self._stream = stream
        self._most_bytes = most_bytes
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield it once. It ends early where the stream breaks."""
        yield await self._beginning()

    async def _beginning(self) -> bytes:
        read = bytearray()
        stream = aiter(self._stream)
        try:
            async with asyncio.timeout(self._seconds):
                while len(read) < self._most_bytes:
                    read += await anext(stream)
        except (StopAsyncIteration, TimeoutError, httpx2.HTTPError):
            pass  # what has come by then may say enough
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
        return bytes(read[: self._most_bytes])

    async def aclose(self) -> None:
        """Close the stream, and with it a connection on which more would come."""
        await self._stream.aclose()
