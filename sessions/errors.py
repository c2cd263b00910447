"""What can go wrong in a session.

::

    SessionError
    +-- SessionNotFound         no such session, or not yours: the same answer for both
    +-- Refusal                 an input was understood and not accepted; the session goes on
    |   +-- MessageIdReused     the same message id came with other content
    +-- NodeFull                this node holds as many sessions or bytes as it may
    +-- TooManySessions         this node is full, and its principal has its share of the sessions or bytes
    +-- NodeOverloaded          this node gets less done than it has to do
    +-- TooManyConnections      this session has as many connections as it may
    |   +-- Displaced           a connection gave its place to a newer one of the same client
    +-- NodeDraining            this node takes no new work
    +-- CursorLost              a connection fell below the floor of its log
    +-- StoreError
    |   +-- Fenced              another owner has taken the session
    |   +-- SessionGone         the store holds no such session any more
    |   |   +-- SessionDeleted  its owner's user has had it deleted: it doesn't come back
    |   +-- LostTail            the store forgot entries it had confirmed
    |   +-- Unseen              the store holds outputs of this owner's that it hasn't seen
    |   +-- StoreUnavailable    the store can't be reached, or can't hold more: it may have been written
    |       +-- StoreBusy       this node, or one session, asks more of it than it takes: nothing was written
    +-- ResponderError          the responder failed in a way it can name
    +-- IllegalTransition       a turn was told something it can't accept: a bug of ours
    +-- OutOfOrder              an entry was applied out of sequence: a bug of ours
    +-- UnknownFormat           a log entry of a format this version can't read
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CursorLost",
    "Displaced",
    "Fenced",
    "IllegalTransition",
    "LostTail",
    "MessageIdReused",
    "NodeDraining",
    "NodeFull",
    "NodeOverloaded",
    "OutOfOrder",
    "Refusal",
    "ResponderError",
    "SessionDeleted",
    "SessionError",
    "SessionGone",
    "SessionNotFound",
    "StoreBusy",
    "StoreError",
    "StoreUnavailable",
    "TooManyConnections",
    "TooManySessions",
    "UnknownFormat",
    "Unseen",
    "again",
]


class SessionError(Exception):
    """Base of everything this package raises on purpose."""


def again(reason: SessionError) -> SessionError:
    """Return *reason* to be raised once more, which it is where it is kept.

    What was raised leads to the frames it went through, and so to all that these held.
    """
    kind = type(reason)
    twin = kind.__new__(kind, *reason.args)  # without __init__(), which may take something else
    twin.__dict__.update(reason.__dict__)
    return twin


class SessionNotFound(SessionError):
    """There is no such session for this principal. Never says whether another's exists."""

    def __str__(self) -> str:
        return "The session can't be resumed: it has ended, or it isn't yours. Start a new one."


class Refusal(SessionError):
    """An input was not accepted. *message* is shown to its submitter.

    Attributes:
        code: A machine-readable reason, listed in docs/protocol.md.
        message: What is wrong and what to do.
        param: The field at fault, where there is one.

    """

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class MessageIdReused(Refusal):
    """The same message id came again with other content."""

    def __init__(self) -> None:
        super().__init__(
            "message_id_reused",
            "This message id was used before, for other content. Give each message an id of its own.",
        )


class NodeFull(SessionError):
    """This node holds as many sessions or bytes as it may."""

    def __str__(self) -> str:
        return "The server is full. Try again in a moment."


class TooManySessions(SessionError):
    """This node is full, and its principal has its share of the sessions, or of their bytes, none at rest."""

    def __str__(self) -> str:
        return (
            "The server is full, and this key has its share of the sessions there, or of what is in them. "
            "Close some, or try again later."
        )


class NodeOverloaded(SessionError):
    """This node gets less done than it has to do, and takes on nothing more for now."""

    def __str__(self) -> str:
        return "The server is overloaded. Try again in a moment."


class TooManyConnections(SessionError):
    """This session has as many connections as it may."""

    def __str__(self) -> str:
        return "The session has too many connections. Close one of them, or try again in a moment."


class Displaced(TooManyConnections):
    """This connection gave its place to a newer one of the same client."""

    def __str__(self) -> str:
        return "This connection was replaced by a newer one of yours: the session has too many."


class NodeDraining(SessionError):
    """This node is shutting down and takes no new work."""

    def __str__(self) -> str:
        return "The server is restarting. Reconnect in a moment."


class CursorLost(SessionError):
    """The connection is below the floor of its log: it must start over from a snapshot."""

    def __str__(self) -> str:
        return "The connection fell too far behind. Reconnect for a snapshot."


class StoreError(SessionError):
    """The store could not do what was asked. Nothing was written, unless a subclass says otherwise."""


class Unseen(StoreError):
    """The log holds outputs that its owner hasn't seen: a write of its own, whose answer was lost.

    It may have been on its way for long, and come only when it was taken for lost. Read, then write.
    """


class Fenced(StoreError):
    """Another owner holds the session: this one may not write outputs any more."""


class SessionGone(StoreError):
    """The store holds no such session (any more), or holds another incarnation of it."""


class SessionDeleted(SessionGone):
    """The session was deleted, and the store remembers that: nobody may write it anew.

    Unlike a session that the store has lost, which its owner gives back to it.
    """

    def __str__(self) -> str:
        return "The conversation was deleted. Begin another one."


class LostTail(StoreError):
    """The store's head is behind what it confirmed earlier, as after a failover."""


class StoreUnavailable(StoreError):
    """The store can't be reached, doesn't answer in time, or can't hold more.

    Unlike after any other :class:`StoreError`, what was asked for may have
    taken effect: whoever goes on reads first.
    """

    def __str__(self) -> str:
        return "The server can't save anything for the moment. Send it again in a moment."


class StoreBusy(StoreUnavailable):
    """So much is asked of the store here, or of one session, that something wasn't done. It may be as well as
    ever, and nothing was written.
    """


class ResponderError(SessionError):
    """The responder failed in a way it can name. Ends the attempt as failed.

    Attributes:
        code: A machine-readable reason, listed in docs/protocol.md.
        message: What is shown to the client: no internals, no secrets.
        type: The class of error in the vocabulary of the OpenAI API.
        retry_after: Seconds after which it may work again, where that is known.

    """

    is_rest_lost: ClassVar[bool] = False
    """Whether it was to go on with another owner's response, and can't: that isn't there any more, or isn't
    what was said. Then it ends as if it had been lost with its owner.
    """

    def __init__(
        self, code: str, message: str, *, type: str = "server_error", retry_after: float | None = None
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.type = type
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class IllegalTransition(SessionError):
    """A turn was told something that its state can't accept: a bug in the caller."""

    def __init__(self, state: str, signal: str) -> None:
        super().__init__(state, signal)
        self.state = state
        self.signal = signal

    def __str__(self) -> str:
        return f"a turn that is {self.state} can't accept {self.signal}"


class OutOfOrder(SessionError):
    """An entry was applied out of sequence: a bug in the caller."""

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return f"expected entry {self.expected}, got {self.got}"


class UnknownFormat(SessionError):
    """A log entry was written in a format that this version can't read. Nothing is changed by that."""
