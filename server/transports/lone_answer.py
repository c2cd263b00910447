"""Answers that nobody can come back to: awaited as a whole, and stopped once their client has left.

What is asked for so is part of no conversation. The protocols that ask so know no other way to stop an answer
than to leave.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from starlette.requests import Request

from unbroken.server.protocols.chat.ending import error_of
from unbroken.server.transports.awaiting import read_whole, until_ended
from unbroken.server.transports.exchange import Exchange
from unbroken.server.transports.http_way import HttpRefusal
from unbroken.server.transports.refusal import spread_wait
from unbroken.sessions.entries import ResponseDone, ResponseQueued, ResponseStarted
from unbroken.sessions.errors import SessionError
from unbroken.sessions.event_log import Record
from unbroken.sessions.items import ResponseRequest

__all__ = ["failure_of", "let_go", "until_done"]

_GRACE: Final = 1.0
"""Seconds for which an answer goes on that its client has left, and that nobody can come back to."""

_AGAIN: Final = frozenset({"agent_not_ready", "interrupted", "upstream_unavailable"})
"""Failures that may be over in a moment."""


async def until_done(
    exchange: Exchange, request: Request, on_asked: Callable[[ResponseRequest], None] = lambda _: None
) -> ResponseDone:
    """Return how the response ended, once it has. *on_asked* is told what was asked for.

    Raises:
        ClientDisconnect: The client has left. The response goes on.
        SessionError: Nothing more comes.

    """
    done: list[ResponseDone] = []

    def feed(records: list[Record]) -> bool:
        for record in records:
            body = getattr(record, "body", None)
            if getattr(body, "response_id", None) != exchange.response_id:
                continue
            if isinstance(body, ResponseQueued | ResponseStarted):
                on_asked(body.request)
            elif isinstance(body, ResponseDone):
                done.append(body)
        return bool(done)

    await read_whole(exchange, request, feed)
    return done[0]


async def let_go(exchange: Exchange, *, is_kept: bool = False) -> None:
    """Let go of a response: its request has been answered, or its client has left.

    *is_kept*: it can be come back to, and goes on.
    """
    if is_kept:
        exchange.close()
        return
    task = asyncio.current_task()
    try:
        if exchange.is_answering and not (task is not None and task.cancelling()):
            with suppress(SessionError):  # nobody reads it any more anyway
                await until_ended(exchange, _GRACE)
            with suppress(SessionError):  # it has ended meanwhile, or goes with the node
                await exchange.stop()
    finally:
        await exchange.drop()


def failure_of(done: ResponseDone) -> HttpRefusal | None:
    """Return how a request is refused whose response has failed; None: it hasn't."""
    if (error := error_of(done)) is None:
        return None
    kind, code, message = str(error["type"]), str(error["code"]), str(error["message"])
    told = error.get("unbroken")
    wait = told.get("retry_after") if isinstance(told, dict) else None
    if kind == "rate_limit_error":
        status = 429
    elif kind == "invalid_request_error":
        status = 400
    else:
        status = 503 if code in _AGAIN else 500
    return HttpRefusal(status, code, message, retry_after=spread_wait() if wait is None else math.ceil(wait))
