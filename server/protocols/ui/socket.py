"""The AI SDK's ``WebSocketChatTransport``: its frames, both ways."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
import orjson
from msgspec import Struct

from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import DecodeError, check_name
from unbroken.server.protocols.nesting import too_deep
from unbroken.server.protocols.ui.decode import Chat, chat_of
from unbroken.server.protocols.ui.frames import ChatParam, Extension

__all__ = ["Abort", "Resume", "Said", "Send", "Unsaid", "chunk_head", "decode_frame", "error_frame", "frame"]


class _Head(Struct, frozen=True, rename="camel"):
    """As much as can be said of any frame."""

    type: Any = None
    request_id: Any = None


class _Body(Struct, frozen=True):
    unbroken: Extension | None = None


class _SendParam(ChatParam, frozen=True, rename="camel", kw_only=True):
    body: _Body = _Body()


class _ResumeParam(Struct, frozen=True):
    id: str


class Send(Struct, frozen=True):
    """An answer is asked for."""

    request_id: str
    chat: Chat

    @property
    def chat_id(self) -> str:
        """In which chat."""
        return self.chat.id


class Resume(Struct, frozen=True):
    """The answer that is being made is to be told, from its beginning."""

    request_id: str
    chat_id: str


class Abort(Struct, frozen=True):
    """The answer that was asked for, or come back to, is to be stopped."""

    request_id: str


Said: TypeAlias = Send | Resume | Abort

_SEND: Final = msgspec.json.Decoder(_SendParam)
_RESUME: Final = msgspec.json.Decoder(_ResumeParam)


class Unsaid(DecodeError):
    """A frame can't be taken. It is said of the request that it named; None: it named none."""

    def __init__(self, error: DecodeError, request_id: str | None) -> None:
        super().__init__(error.code, error.message, param=error.param)
        self.request_id = request_id


def decode_frame(data: str | bytes, *, max_depth: int) -> Said:
    """Return what a frame says.

    Raises:
        Unsaid: It says nothing that can be done.

    """
    request_id: str | None = None
    try:
        if isinstance(data, bytes):
            raise DecodeError("binary_frame", "Send text frames: this protocol has no binary ones.")
        raw = data.encode("utf-8", "surrogatepass")
        if (why := too_deep(raw, max_depth, "The frame")) is not None:
            raise DecodeError("invalid_json", why)
        try:
            head = msgspec.json.decode(raw, type=_Head)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise DecodeError("invalid_json", "The frame isn't a JSON object.") from None
        if not isinstance(head.request_id, str):
            raise DecodeError("invalid_event", "The frame needs a `requestId`, a string.", param="requestId")
        check_name(head.request_id, "requestId", None)
        request_id = head.request_id
        return _said(head.type, request_id, raw, max_depth)
    except DecodeError as exc:
        raise Unsaid(exc, request_id) from None


def _said(kind: object, request_id: str, raw: bytes, max_depth: int) -> Said:
    match kind:
        case "send":
            wanted = decoded(raw, _SEND, max_depth=max_depth)
            if wanted.unbroken is None and wanted.body.unbroken is not None:
                wanted = msgspec.structs.replace(wanted, unbroken=wanted.body.unbroken)
            return Send(request_id, chat_of(wanted))
        case "resume":
            chat_id = decoded(raw, _RESUME, max_depth=max_depth).id
            check_name(chat_id, "id", None)
            return Resume(request_id, chat_id)
        case "abort":
            return Abort(request_id)
        case str():
            message = f"There is no frame of type {kind[:64]!r}. Send `send`, `resume` or `abort`."
            raise DecodeError("unknown_event_type", message, param="type")
        case _:
            raise DecodeError("invalid_event", "The frame needs a `type`, a string.", param="type")


def frame(kind: str, request_id: str) -> bytes:
    """Return a frame that says nothing but its type, of a request."""
    return orjson.dumps({"type": kind, "requestId": request_id})


def chunk_head(request_id: str) -> bytes:
    """Return what stands ahead of the number of each chunk that answers a request."""
    return b'%b,"sequence":' % orjson.dumps({"type": "chunk", "requestId": request_id})[:-1]


def error_frame(
    code: str, message: str, request_id: str | None = None, *, retry_after: int | None = None
) -> bytes:
    """Return an error as this protocol has it. Of no request, it is for people to read: clients skip it."""
    told: dict[str, Any] = {"code": code}
    if retry_after is not None:
        told["retry_after"] = retry_after
    fields = {"type": "error", "requestId": request_id or "", "errorText": message, "unbroken": told}
    return orjson.dumps(fields)
