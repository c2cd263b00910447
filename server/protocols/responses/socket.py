"""OpenAI Responses' WebSocket mode: what its messages are, and how errors look there."""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import msgspec
import orjson
from msgspec import Struct

from unbroken.server.protocols.items import DecodeError
from unbroken.server.protocols.nesting import too_deep
from unbroken.server.protocols.responses.decode import decode_create
from unbroken.server.protocols.responses.frames import CreateParam

__all__ = [
    "Cancel",
    "Continuation",
    "Said",
    "Steer",
    "Unsaid",
    "continuations",
    "decode_message",
    "error_message",
    "steer_failed",
]

_LANE: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_CONTINUATION: Final = re.compile(r"(resp_[0-9a-ft]{1,80}):(\d{1,15})(?::([A-Za-z0-9_.-]{1,256}))?")


class _Head(Struct, frozen=True):
    """As much as can be said of any message."""

    type: Any = None
    stream_id: Any = None
    response_id: Any = None
    previous_response_id: Any = None
    input: Any = None


class Cancel(Struct, frozen=True):
    """A response is to be stopped. This server's own: the protocol has it over HTTP alone."""

    response_id: str
    lane: str | None


class Continuation(Struct, frozen=True):
    """A response whose events behind number *after* are to be said, in *lane*."""

    response_id: str
    after: int
    lane: str | None


class Steer(Struct, frozen=True):
    """Somebody would have a running response take another turn. Nobody can here."""

    previous_response_id: str
    input: Any
    lane: str | None


Said: TypeAlias = CreateParam | Cancel | Steer


class Unsaid(DecodeError):
    """A message can't be taken. It is said in the lane that it named.

    Attributes:
        previous: The response that it was to go on from, where it was to go on from one.

    """

    def __init__(self, error: DecodeError, lane: str | None, previous: str | None = None) -> None:
        super().__init__(error.code, error.message, param=error.param)
        self.lane = lane
        self.previous = previous


def decode_message(data: str | bytes, *, max_depth: int) -> Said:
    """Return what a message says.

    Raises:
        Unsaid: It says nothing that can be done.

    """
    lane: str | None = None
    previous: str | None = None
    try:
        if isinstance(data, bytes):
            raise DecodeError("binary_frame", "Send text frames: this protocol has no binary ones.")
        raw = data.encode("utf-8", "surrogatepass")
        if (why := too_deep(raw, max_depth, "The message")) is not None:
            raise DecodeError("invalid_json", why)
        try:
            head = msgspec.json.decode(raw, type=_Head)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise DecodeError("invalid_json", "The message isn't a JSON object.") from None
        if head.type == "response.create" and isinstance(head.previous_response_id, str):
            previous = head.previous_response_id
        lane = _lane(head.stream_id)
        match head.type:
            case "response.create":
                return decode_create(raw, max_depth=max_depth)
            case "response.cancel":
                if not isinstance(head.response_id, str):
                    message = "The event needs a `response_id`."
                    raise DecodeError("invalid_event", message, param="response_id")
                return Cancel(head.response_id, lane)
            case "response.steer":
                return Steer(str(head.previous_response_id), head.input, lane)
            case str() as kind:
                message = f"There is no event of type {kind[:64]!r}."
                raise DecodeError("unknown_event_type", message, param="type")
            case _:
                raise DecodeError("invalid_event", "The event needs a `type`, a string.", param="type")
    except DecodeError as exc:
        raise Unsaid(exc, lane, previous) from None


def _lane(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or _LANE.fullmatch(given) is None:
        message = "`stream_id` must be 1 to 256 letters, digits, `_`, `.` and `-`."
        raise DecodeError("invalid_stream_id", message, param="stream_id")
    return given


def continuations(given: str | None, most: int) -> list[Continuation]:
    """Return what an address asks to be said on: ``response:number[:lane]``, separated by commas.

    Raises:
        DecodeError: It asks for nothing of the kind, or for more than *most*.

    """
    if not given:
        return []
    named = given.split(",")
    matches = [_CONTINUATION.fullmatch(each) for each in named[: most + 1]]
    if len(named) > most or None in matches:
        message = f"`continue` takes up to {most} of the form response_id:sequence_number[:stream_id]."
        raise DecodeError("invalid_query", message, param="continue")
    return [Continuation(match[1], int(match[2]), match[3]) for match in matches if match is not None]


def error_message(
    code: str,
    message: str,
    *,
    type: str,
    status: int,
    lane: str | None = None,
    param: str | None = None,
    retry_after: int | None = None,
) -> bytes:
    """Return an error as this protocol has it."""
    error: dict[str, Any] = {"type": type, "code": code, "message": message, "param": param}
    if retry_after is not None:
        error["headers"] = {"retry-after": str(retry_after)}
    fields: dict[str, Any] = {"type": "error", "status": status, "error": error}
    if lane is not None:
        fields["stream_id"] = lane
    return orjson.dumps(fields)


def steer_failed(steer: Steer) -> bytes:
    """Return that nobody is steered here."""
    message = "Running responses can't be steered here. Cancel this one, or say it in the next."
    error = {"type": "invalid_request_error", "code": "steering_not_supported", "message": message}
    asked = {"input": "", "previous_response_id": steer.previous_response_id}
    fields: dict[str, Any] = {"type": "response.steer.failed", "error": error, "steer": asked}
    fields["sequence_number"] = 0
    if steer.lane is not None:
        fields["stream_id"] = steer.lane
    return orjson.dumps(fields)
