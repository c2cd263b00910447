"""Reads the body of a request that is short: no more than may be, and no longer than it may take.

Files are read elsewhere, piece by piece: see :mod:`unbroken.server.transports.upload`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from starlette.requests import Request

from unbroken.server.transports.http_way import HttpRefusal

__all__ = ["TIMEOUT", "read_body"]

TIMEOUT: Final = 30.0
"""Seconds from the end of the header to that of the body."""


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of *request*.

    Raises:
        HttpRefusal: It is packed, has more than *most* bytes, or isn't whole in time.
        ClientDisconnect: The client has gone.

    """
    if (encoding := request.headers.get("content-encoding", "identity").lower()) not in ("", "identity"):
        # Packed, a short body may be a long one: nothing is unpacked for anybody.
        message = (
            f"The body has the encoding {encoding[:32]!r}. Send it as it is, without `Content-Encoding`."
        )
        raise HttpRefusal(415, "invalid_request", message)
    body = bytearray()
    try:
        async with asyncio.timeout(TIMEOUT), aclosing(request.stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > most:
                    message = f"The body may have up to {most >> 10} KiB. Shorten what it says."
                    raise HttpRefusal(413, "body_too_large", message)
    except TimeoutError:
        raise HttpRefusal(408, "body_stalled", "The body came too slowly. Send the request again.") from None
    return bytes(body)
