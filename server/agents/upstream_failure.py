"""What goes wrong with an upstream, as the interface's errors. It is the same for each of the OpenAI APIs.

The upstream's prose may quote the key or the conversation: it is looked at
here, and neither shown nor logged. Codes that look like codes are logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    ContextTooLong,
    UpstreamCut,
    UpstreamMalformed,
    UpstreamRateLimited,
    UpstreamRefusedKey,
    UpstreamRejected,
    UpstreamReportedError,
    UpstreamStalled,
    UpstreamUnavailable,
)

if TYPE_CHECKING:
    import httpx2
    import openai

__all__ = [
    "check_content_type",
    "failure_of_request",
    "failure_of_stream",
    "reported",
    "seconds_to_wait",
]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

_LONGEST_RETRY_AFTER: Final = 3600.0

_NO_CREDIT: Final = (
    "The server's account with the model's provider is out of credit. "
    "The operator of this server has to fix that."
)
# OpenAI's and llama.cpp's codes; the prose of vLLM and of others, which give none.
_TOO_LONG_CODES: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_TOO_LONG_PHRASES: Final = ("context length", "context size", "context window", "prompt is too long")
# Of the Responses API, for what is wrong with the input; it says so within the stream.
_REJECTED_CODES: Final = frozenset(
    {"invalid_prompt", "bio_policy", "misalignment_policy_violation", "data_residency_mismatch"}
)


def check_content_type(headers: Mapping[str, str]) -> None:
    """Refuse an answer that can't be an event stream.

    Raises:
        UpstreamMalformed: It is a web page, or a JSON object.

    """
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in {"text/html", "application/json"}:
        # As of a web page, or of a server that doesn't stream: not worth reading.
        _log.warning("upstream sent no event stream; is its base URL right?", content_type=content_type)
        raise UpstreamMalformed


def failure_of_request(error: openai.OpenAIError, host: str) -> AgentError:
    """Return the failure of a request to *host* whose answer never began."""
    import httpx2
    import openai

    if isinstance(error, openai.APIStatusError):
        _log.warning(
            "upstream refused the request",
            host=host,
            status=error.status_code,
            error_code=_identifier(error.code),
            error_type=_identifier(error.type),
            request_id=_identifier(error.request_id),
        )
        return _failure_of_status(error)
    cause = error.__cause__
    _log.warning("upstream request failed", host=host, error=type(error).__name__, cause=type(cause).__name__)
    if isinstance(cause, httpx2.ReadTimeout):
        return UpstreamStalled()
    if isinstance(cause, httpx2.PoolTimeout):
        return AgentBusy()
    return UpstreamUnavailable()


def _failure_of_status(error: openai.APIStatusError) -> AgentError:
    retry_after = seconds_to_wait(error.response.headers)
    if error.status_code == 413 or _is_too_long(_code(error.code), _code(error.type), error.message):
        return ContextTooLong()
    match error.status_code:
        case 401 | 403:
            return UpstreamRefusedKey()
        case 402:
            return UpstreamRefusedKey(_NO_CREDIT)
        case 429 if error.code == "insufficient_quota":
            return UpstreamRefusedKey(_NO_CREDIT)
        case 429:
            return UpstreamRateLimited(retry_after=retry_after)
        case status if 400 <= status < 500 and status != 408:
            return UpstreamRejected()
        case _:
            return UpstreamUnavailable(retry_after=retry_after)


def failure_of_stream(error: httpx2.HTTPError, host: str) -> AgentError:
    """Return the failure of an answer of *host* that broke off."""
    import httpx2

    _log.warning("upstream stream broke", host=host, error=type(error).__name__)
    if isinstance(error, httpx2.TimeoutException):
        return UpstreamStalled()
    if isinstance(error, httpx2.DecodingError):
        return UpstreamMalformed()
    return UpstreamCut()


def reported(error: object) -> AgentError:
    """Return the failure for an *error* object that came within the stream, in any of the known shapes."""
    fields: dict[Any, Any] = error if isinstance(error, dict) else {}
    if isinstance(nested := fields.get("error"), dict):
        fields = nested
    code, kind = (_code(fields.get(name)) for name in ("code", "type"))
    _log.warning("upstream reported an error", error_code=_identifier(code), error_type=_identifier(kind))
    if _is_too_long(code, kind, fields.get("message")):
        return ContextTooLong()
    if code in {"429", "rate_limit_exceeded"}:
        return UpstreamRateLimited()
    if code in _REJECTED_CODES:
        return UpstreamRejected()
    if code == "insufficient_quota":
        return UpstreamRefusedKey(_NO_CREDIT)
    return UpstreamReportedError()


def _code(value: object) -> str | None:
    """Return a code as text; some servers send numbers, and nothing keeps them from sending lists."""
    return str(value) if isinstance(value, str | int) else None


def _is_too_long(code: str | None, kind: str | None, message: object) -> bool:
    if code in _TOO_LONG_CODES or kind in _TOO_LONG_CODES:
        return True
    prose = message.lower() if isinstance(message, str) else ""
    return any(phrase in prose for phrase in _TOO_LONG_PHRASES)


def _identifier(value: object) -> str | None:
    """Return *value* where it looks like a code, which is safe to log, and not like prose."""
    text = str(value)
    return text if value is not None and len(text) <= 64 and text.replace("-", "_").isidentifier() else None


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the upstream asks to wait, an hour at most; None when it doesn't."""
    seconds: float | None = None
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif headers["retry-after"].strip()[:1].isdigit():
            seconds = float(headers["retry-after"])
        else:
            # By the upstream's own clock, so that ours doesn't matter.
            until, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
            seconds = (until - now).total_seconds()
    if seconds is None or not 0 <= seconds < float("inf"):
        return None
    return min(seconds, _LONGEST_RETRY_AFTER)
