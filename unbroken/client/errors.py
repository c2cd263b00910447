"""Why something couldn't be had: all that this package raises. The tree is drawn in the package's docstring.

Texts say what happened and, where the server has said it, what to do. None holds what was said in a
conversation, nor a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "AnswerFailed",
    "AnswerTooLong",
    "BadState",
    "ClientClosed",
    "ClientError",
    "ContentFiltered",
    "Forbidden",
    "MessageTooLarge",
    "ProtocolError",
    "QueueFull",
    "QuotaExceeded",
    "RateLimited",
    "Refused",
    "SessionGone",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "is_passing",
    "refusal",
]


class ClientError(Exception):
    """Base of all that this package raises."""


class BadState(ClientError):
    """What :func:`unbroken.client.connect` was given as a state is none, or one of a later version."""


class MessageTooLarge(ClientError):
    """A message, or what a function returned, is larger than may be. It was not sent, or not taken."""


class QueueFull(ClientError):
    """As many turns wait as may. Nothing was sent: send again when one has ended."""


class ClientClosed(ClientError):
    """The client was closed before the turn had ended. The server goes on with what it has of it."""


class SessionGone(ClientError):
    """The server doesn't have the session any more. What was open in it is lost. Connect to begin another."""


class Unreachable(ClientError):
    """There was no connection for too long. ``__cause__`` is why the last attempt failed."""


class ProtocolError(ClientError):
    """The server has said, or the connection has ended for, what isn't in the protocol."""


class AnswerFailed(ClientError):
    """The server failed to answer.

    Attributes:
        code: One of those in docs/protocol.md, such as ``agent_error`` or ``interrupted``.
        retry_after: Seconds after which the same may succeed; None: nobody has said.
        text: What had been said of the answer.

    """

    def __init__(self, code: str, message: str, *, retry_after: float | None = None, text: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.text = text

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class AnswerTooLong(AnswerFailed):
    """The answer, or the row of calls in it, went beyond this client's own limit, and was stopped."""


class Refused(ClientError):
    """The server has refused a connection, a message, or to answer it.

    Attributes:
        code: One of those in docs/protocol.md.
        status: HTTP's, where a handshake was refused; else None.
        retry_after: Seconds after which the same may be taken; None: nobody has said.
        param: The field at fault, where there is one.

    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.param = param

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class Unauthenticated(Refused):
    """There was no key, or it isn't valid, or not any more: 401."""


class Forbidden(Refused):
    """The key is valid, and not good for this: 403."""


class RateLimited(Refused):
    """More was asked for than may be: 429. See :attr:`Refused.retry_after`."""


class QuotaExceeded(RateLimited):
    """What may be used within a day is used, or the turn alone may take more than that."""


class ContentFiltered(Refused):
    """It looks like an attack on the model. Nothing of it was kept."""


class Unavailable(Refused):
    """The server can't take it for the moment, and couldn't for as long as this client is patient."""


_KINDS: Final[Mapping[str, type[Refused]]] = {
    **dict.fromkeys(
        ("invalid_api_key", "api_key_in_browser", "credential_expired", "credential_revoked"), Unauthenticated
    ),
    **dict.fromkeys(
        ("insufficient_scope", "host_not_allowed", "origin_not_allowed", "session_pinned"), Forbidden
    ),
    **dict.fromkeys(("quota_exceeded", "request_exceeds_quota"), QuotaExceeded),
    "rate_limit_exceeded": RateLimited,
    "content_filter": ContentFiltered,
}

_PASSING: Final = frozenset(
    {
        "server_overloaded",
        "server_full",
        "server_draining",
        "session_too_new",
        "input_queue_full",
        "response_queue_full",
        "store_unavailable",
        "guard_unavailable",
    }
)
"""No verdict on what was sent: the same will be taken a little later."""


def is_passing(code: str) -> bool:
    """Return whether an event that was refused so is to be sent again after a moment."""
    return code in _PASSING or code == "too_many_responses"


def refusal(
    error: Mapping[str, Any], *, status: int | None = None, retry_after: float | None = None
) -> Refused:
    """Return the exception for an error as the server writes it, in a frame or the body of a response."""
    code, message, param = error.get("code"), error.get("message"), error.get("param")
    asked = (error.get("unbroken") or {}).get("retry_after")
    name = code if isinstance(code, str) else "unknown_error" if status is None else f"http_{status}"
    return _kind(name, error.get("type"), status)(
        name,
        message if isinstance(message, str) else "The server has refused without saying why.",
        status=status,
        retry_after=float(asked) if isinstance(asked, int | float) else retry_after,
        param=param if isinstance(param, str) else None,
    )


def _kind(code: str, error_type: object, status: int | None) -> type[Refused]:
    if (known := _KINDS.get(code)) is not None:
        return known
    if status in (401, 403):
        return Unauthenticated if status == 401 else Forbidden
    if status == 429 or error_type == "rate_limit_error" or code.startswith("too_many_"):
        return RateLimited
    if (status is not None and status >= 500) or code in _PASSING:
        return Unavailable
    return Refused
