"""What is at somebody else's address, within a time that holds for all of it.

A client's own time-outs are for each piece: whoever always sends one more byte in time is never cut off.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import httpx2

if TYPE_CHECKING:
    from httpcore2 import AsyncNetworkStream

__all__ = ["NotDownloaded", "download"]

# Bytes are taken as they come: they may be many more when they are unpacked.
_HEADERS: Final = {"Accept-Encoding": "identity"}


class NotDownloaded(Exception):
    """It can't be had. The text says why, in a few words."""


async def download(address: str, *, most: int, within: float) -> bytes:
    """Return what is at *address*, and there only: no redirection is followed.

    Proxies are asked as the environment says. Of what is longer than *most* bytes, so many are returned and
    some more. However it ends, nothing of it goes on; but a name that is being resolved keeps a thread until
    the resolver gives up.

    Args:
        address: By HTTP or HTTPS.
        most: Bytes.
        within: Seconds, from resolving the name to the last byte.

    Raises:
        NotDownloaded: It isn't there, or not in time.

    """
    connected: list[AsyncNetworkStream] = []

    async def note(event: str, about: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            connected.append(about["return_value"])

    try:
        async with asyncio.timeout(within):
            # Authorities' certificates are read from the disk.
            trusted = await asyncio.to_thread(ssl.create_default_context)
            async with (
                httpx2.AsyncClient(verify=trusted, timeout=None, follow_redirects=False) as client,
                client.stream("GET", address, headers=_HEADERS, extensions={"trace": note}) as answer,
            ):
                if not answer.is_success:
                    raise NotDownloaded(f"it answers with HTTP status {answer.status_code}")
                content = b""
                async for piece in answer.aiter_raw():
                    content += piece
                    if len(content) > most:
                        break
                return content
    except TimeoutError:
        raise NotDownloaded("it takes too long") from None
    # Some come from the variables that httpx2 reads: a proxy's address.
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, ImportError) as exc:
        raise NotDownloaded(_reason(exc)) from None
    finally:
        # Cancelled within a TLS handshake, the client forgets what is below it.
        for stream in connected:
            await stream.aclose()


def _reason(failure: Exception) -> str:
    """Return what the system says, where that is at the bottom of it: what is raised for it says less."""
    found: BaseException = failure
    each: BaseException | None = failure
    while each is not None:
        if isinstance(each, BaseExceptionGroup):  # one for each address that the name has
            each = each.exceptions[0]
        if isinstance(each, OSError):
            found = each
        each = each.__cause__ or each.__context__
    return str(found) or type(found).__name__
