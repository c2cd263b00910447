"""A client of ``WS /v1/realtime``: it sends, streams, stops, and resumes by itself.

::

    async with connect("http://127.0.0.1:8000", key="...") as client:
        turn = client.send("What is a WebSocket?")
        async for piece in turn:
            print(piece, end="", flush=True)
        result = await turn.result()

What is promised:

- What is sent is answered once, in order, however often the connection is lost, and if there is none yet.
- What comes of an answer is given once: no piece is lost, none comes twice. Where the server can't go on
  from where the connection was lost, or begins an answer anew, a :class:`Restarted` says so, with the text
  as it stands.
- A function that the model calls is run once, as far as this process can tell.
- Every wait and queue has a bound: see :class:`Limits` and :class:`Timing`.
- All that is awaited can be cancelled, and nothing outlives the client.

All that it raises is one tree; arguments of a wrong kind raise :class:`TypeError` and :class:`ValueError`. ::

    ClientError
    +-- Refused             the server has refused a connection, a message, or to answer it
    |   +-- Unauthenticated     there is no key, or it isn't valid (any more): 401
    |   +-- Forbidden           the key isn't good for this: 403
    |   +-- RateLimited         more was asked for than may be; `retry_after` says how long to wait: 429
    |   |   +-- QuotaExceeded       what may be used within a day is used
    |   +-- ContentFiltered     it looks like an attack on the model
    |   +-- Unavailable         not for the moment, for as long as this client was patient: 503
    +-- AnswerFailed        the server failed to answer; `text` is how far it came
    |   +-- AnswerTooLong       it went beyond this client's own limits, and was stopped
    +-- QueueFull           as many turns wait as may
    +-- MessageTooLarge     it doesn't fit into a frame
    +-- SessionGone         the server doesn't have the session any more
    +-- Unreachable         there was no connection for too long
    +-- ClientClosed        the client was closed before the turn had ended
    +-- ProtocolError       the server isn't one, or not of a version that this client knows
    +-- BadState            what was given as a state is none

It is a core without I/O, and a shell around it. In the core, :mod:`~unbroken.client.conversation` says what
to send and takes what arrives, :mod:`~unbroken.client.exchange` is one turn, :mod:`~unbroken.client.answer`
is its text and how far it was read, and :mod:`~unbroken.client.rejoining` says when to come back. In the
shell, :mod:`~unbroken.client.link` has the sockets and the time. Nothing of the server is imported.
"""

from __future__ import annotations

from unbroken.client.answer import Piece, Restarted, Result, Status
from unbroken.client.client import Client, connect
from unbroken.client.door import TokenSource
from unbroken.client.errors import (
    AnswerFailed,
    AnswerTooLong,
    BadState,
    ClientClosed,
    ClientError,
    ContentFiltered,
    Forbidden,
    MessageTooLarge,
    ProtocolError,
    QueueFull,
    QuotaExceeded,
    RateLimited,
    Refused,
    SessionGone,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from unbroken.client.limits import Limits, Timing
from unbroken.client.tool import Handler, Tool, ToolFailed
from unbroken.client.turn import Turn
from unbroken.client.wire import Usage

__all__ = [
    "AnswerFailed",
    "AnswerTooLong",
    "BadState",
    "Client",
    "ClientClosed",
    "ClientError",
    "ContentFiltered",
    "Forbidden",
    "Handler",
    "Limits",
    "MessageTooLarge",
    "Piece",
    "ProtocolError",
    "QueueFull",
    "QuotaExceeded",
    "RateLimited",
    "Refused",
    "Restarted",
    "Result",
    "SessionGone",
    "Status",
    "Timing",
    "TokenSource",
    "Tool",
    "ToolFailed",
    "Turn",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "Usage",
    "connect",
]
