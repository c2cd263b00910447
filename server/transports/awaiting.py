"""Waits for a response on behalf of a client that wants it as a whole, for as long as it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request

from unbroken.server.transports.exchange import Exchange
from unbroken.sessions.event_log import Record

__all__ = ["left", "read_whole", "until_ended"]


async def read_whole(exchange: Exchange, request: Request, feed: Callable[[list[Record]], bool]) -> None:
    """Return when *feed*, which is given what the log says, one piece after another, has returned True.

    Raises:
        ClientDisconnect: The client has left. The response goes on.
        SessionError: Nothing more comes.

    """
    woken = asyncio.Event()
    leaving = asyncio.create_task(left(request))
    leaving.add_done_callback(lambda _: woken.set())
    exchange.listen(woken.set)
    try:
        while True:
            woken.clear()
            if records := exchange.take():
                if feed(records):
                    return
            elif leaving.done():
                raise ClientDisconnect
            else:
                await woken.wait()
    finally:
        exchange.listen(None)
        leaving.cancel()
        await asyncio.wait((leaving,))


async def until_ended(exchange: Exchange, most: float) -> None:
    """Wait until a response, or the attempt that stands for it, has ended, or for *most* seconds.

    What comes of it meanwhile is passed over.
    """
    woken = asyncio.Event()
    exchange.listen(woken.set)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(most):
                while exchange.is_answering:
                    woken.clear()
                    if not exchange.take():
                        await woken.wait()
    finally:
        exchange.listen(None)


async def left(request: Request) -> None:
    """Return when the client has left; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
