"""How a connection for GraphQL begins: by whoever says who they are with their handshake, or in a message."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Final

from starlette.types import Receive, Send
from uvicorn.protocols.utils import ClientDisconnected

from unbroken.server.errors import CloseCode
from unbroken.server.protocols.graphql.socket import (
    PONG,
    SUBPROTOCOL,
    GraphqlClose,
    Init,
    Ping,
    Pong,
    Said,
    close_reason,
    decode_message,
    key_of,
)
from unbroken.server.protocols.items import DecodeError
from unbroken.server.transports.handshake import Handshake
from unbroken.server.transports.refusal import Refused

__all__ = ["GraphqlGreeting"]

_CODES: Final = {
    400: GraphqlClose.BAD_REQUEST,
    401: GraphqlClose.UNAUTHORIZED,
    403: GraphqlClose.FORBIDDEN,
    408: GraphqlClose.INIT_TIMEOUT,
}
"""By what HTTP would say."""

_SIGNS_OF_LIFE: Final = 16
"""How many pings and pongs a client may send ahead of the message that it begins with."""


class GraphqlGreeting:
    """See :class:`~unbroken.server.transports.websocket_way.Greeting`.

    Whoever presents nothing with their handshake is let in to say who they are, in one message: pages can't
    set headers, and clients of this protocol know to send keys so.

    Args:
        receive: ASGI's.
        send: ASGI's.
        timeout: Seconds that a client has to say it.
        most_depth: How deeply a message may be nested.

    """

    def __init__(self, receive: Receive, send: Send, *, timeout: float, most_depth: int) -> None:
        self._receive = receive
        self._send = send
        self._timeout = timeout
        self._most_depth = most_depth
        self.is_accepted = False
        """See :attr:`Greeting.is_accepted`."""
        self.heard: list[str | bytes] = []
        """See :attr:`Greeting.heard`."""

    @property
    def subprotocol(self) -> str:
        """See :attr:`Greeting.subprotocol`."""
        return SUBPROTOCOL

    async def introduce(self, handshake: Handshake) -> Handshake:
        """See :meth:`Greeting.introduce`."""
        if handshake.subprotocol is None:
            raise Refused(400, "invalid_request", f"Offer the subprotocol {SUBPROTOCOL}.")
        presented = handshake.credentials
        if presented.key is not None or presented.ticket is not None:
            return handshake
        await self._accept()
        key = key_of(await self._begun())
        # From a page it is as if offered as a subprotocol: what is good for long doesn't belong there.
        is_offered = key is not None and presented.is_browser
        return replace(handshake, credentials=replace(presented, key=key, is_subprotocol=is_offered))

    async def _accept(self) -> None:
        if not self.is_accepted:
            self.is_accepted = True
            await self._send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})

    async def _begun(self) -> Init:
        """Return the message that connections begin with. Pings may come at any time, and are answered."""
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(_SIGNS_OF_LIFE + 1):
                    match await self._said():
                        case Init() as init:
                            return init
                        case Ping():
                            await self._send({"type": "websocket.send", "text": PONG.decode()})
                        case Pong():
                            pass
                        case _:
                            break
        except TimeoutError:
            raise Refused(408, "connection_init_missing", "Begin with `connection_init`.") from None
        raise Refused(401, "connection_init_missing", "Begin with `connection_init`.")

    async def _said(self) -> Said:
        message = await self._receive()
        if message["type"] != "websocket.receive":
            raise ClientDisconnected
        text: str | None = message.get("text")
        data: str | bytes = message.get("bytes") or b"" if text is None else text
        try:
            said = decode_message(data, max_depth=self._most_depth)
        except DecodeError as exc:
            raise Refused(400, exc.code, exc.message) from None
        if isinstance(said, Init):
            self.heard.append(data)
        return said

    async def dismiss(self, refused: Refused, handshake: Handshake) -> bool:
        """See :meth:`Greeting.dismiss`."""
        is_unread = handshake.is_browser and not refused.elsewhere and handshake.subprotocol is not None
        if not (self.is_accepted or is_unread):
            return False  # an HTTP status says it better
        code: int = _CODES.get(refused.status, refused.close)
        if refused.asks_to_wait and refused.close is CloseCode.POLICY:  # after which nobody comes back
            code = CloseCode.TRY_AGAIN
        reason = close_reason(refused.code, refused.message)
        # It may have left meanwhile: uvicorn calls that a RuntimeError, if it was before it was let in.
        with suppress(RuntimeError, OSError):
            await self._accept()
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        return True
