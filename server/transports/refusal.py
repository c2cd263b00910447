"""How a connection that can't be had is refused: to the client, in the way that it can read, and in the log.

::

    Exception
    +-- Refused     the connection can't be had: status, error code and close code say so to the client
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Final, Protocol

import orjson
import structlog
from starlette.types import Send

from unbroken.server.errors import CLOSE_REASONS, CloseCode
from unbroken.server.throttle import Throttle
from unbroken.server.transports.handshake import Handshake
from unbroken.sessions.clock import Clock
from unbroken.sessions.errors import NodeOverloaded

__all__ = [
    "TOO_NEW",
    "RefusalLog",
    "Refused",
    "SayAlone",
    "error_type",
    "overloaded",
    "refuse",
    "spread_wait",
]

TOO_NEW: Final = (
    "A later version of the server has written the session, and this node can't read it. "
    "Try again in a moment: other nodes go on with it, and it stays as it is."
)
"""What is said of a session that a node of the next release has written."""

_RETRY_AFTER: Final = 2
"""Seconds after which to come back, at the earliest."""

_RETRY_SPREAD: Final = 8
"""Seconds over which those are spread whom a node sends away that has too much to do, or ends."""

_REFUSALS_LOGGED: Final = 10
"""Refused connections that are logged in a minute, of each error code."""


class Refused(Exception):
    """The connection can't be had.

    Args:
        status: HTTP's; 101 where everybody is told in frames.
        code: The error's.
        message: What to do.
        close: For those who are told in frames.
        retry_after: Seconds; sent with 429 and 503, to browsers in the frame.
        elsewhere: Whether another node would do it: browsers too get the status then, which they can't
            read, but the balancer before them, which asks the other one.

    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        close: CloseCode = CloseCode.POLICY,
        *,
        retry_after: int = _RETRY_AFTER,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.close = close
        self.retry_after = retry_after
        self.elsewhere = elsewhere

    @property
    def asks_to_wait(self) -> bool:
        """Whether the same may be had later."""
        return self.status in (429, 503)


def spread_wait(over: int | None = None) -> int:
    """Return seconds to wait, not the same for all who are refused at once: they would come back at once.

    *over*: the seconds that lie between the first and the last of them; None: several.
    """
    return _RETRY_AFTER + secrets.randbelow(_RETRY_SPREAD if over is None else over + 1)


def overloaded() -> Refused:
    """Return the refusal of a node that has too much to do."""
    return Refused(
        503,
        "server_overloaded",
        str(NodeOverloaded()),
        CloseCode.TRY_AGAIN,
        retry_after=spread_wait(),
    )


class RefusalLog:
    """Tells the operator who was refused: so many lines in a minute, however many there are."""

    def __init__(self, clock: Clock) -> None:
        self._throttle = Throttle(clock, lines=_REFUSALS_LOGGED)

    def note(self, refused: Refused, peer: str | None) -> None:
        """Log that *peer* was refused, unless that is said too often."""
        unsaid = self._throttle.admit(refused.code)
        if unsaid is not None:
            structlog.get_logger().info(
                "connection refused",
                code=refused.code,
                status=refused.status,
                address=peer,
                unsaid=unsaid,
            )


class SayAlone(Protocol):
    """Returns an error as a frame of a protocol, for a client that has nothing else."""

    def __call__(self, code: str, message: str, *, status: int, retry_after: int | None = None) -> bytes:
        """Return the frame, as UTF-8. *status*: what it would be over HTTP, for protocols that say so."""


async def refuse(refused: Refused, handshake: Handshake, send: Send, say: SayAlone) -> None:
    """Say why there is no connection, in the way that the client can read: if that is a frame, by *say*."""
    if (handshake.is_browser and not refused.elsewhere) or refused.status == 101:
        await send({"type": "websocket.accept", "subprotocol": handshake.subprotocol})
        wait = refused.retry_after if refused.asks_to_wait else None
        status = 400 if refused.status == 101 else refused.status
        frame = say(refused.code, refused.message, status=status, retry_after=wait)
        # It may have left meanwhile: uvicorn calls that a RuntimeError, if it was before it was let in.
        with suppress(RuntimeError, OSError):
            await send({"type": "websocket.send", "text": frame.decode()})
            # Some clients show their users this alone, and nothing of frames that they didn't ask for.
            reason = f"{refused.code}: {CLOSE_REASONS[refused.close]}"
            await send({"type": "websocket.close", "code": refused.close, "reason": reason})
        return
    headers = [(b"content-type", b"application/json")]
    if refused.asks_to_wait:
        headers.append((b"retry-after", str(refused.retry_after).encode()))
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    error = {"message": refused.message, "type": error_type(refused.status), "code": refused.code}
    await send({"type": "websocket.http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": orjson.dumps({"error": error})})


def error_type(status: int) -> str:
    """Return what OpenAI calls the kind of error that a response of that *status* tells of."""
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
