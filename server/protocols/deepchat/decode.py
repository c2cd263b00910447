"""What the widget sends. The last of its messages is what is said; none has an id to be known again by."""

from __future__ import annotations

import secrets
from typing import Final

import msgspec
from msgspec import Struct

from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import DecodeError, check_name
from unbroken.server.protocols.ui.decode import Chat, chat_of
from unbroken.server.protocols.ui.frames import ChatParam, Extension, UiPart
from unbroken.server.protocols.ui.frames import MessageParam as UiMessage

__all__ = ["BodyParam", "decode_message", "new_chat_id"]


class _FileParam(Struct, frozen=True):
    """A file of a message."""

    src: str | None = None
    name: str | None = None
    type: str | None = None


class _MessageParam(Struct, frozen=True):
    """A message."""

    role: str = "user"
    text: str | None = None
    files: list[_FileParam] | None = None


class BodyParam(Struct, frozen=True):
    """What is sent, with what a page adds to it by ``additionalBodyProps``."""

    messages: list[_MessageParam]
    chat: str | None = None
    unbroken: Extension | None = None


_DECODER: Final = msgspec.json.Decoder(BodyParam)


def new_chat_id() -> str:
    """Return a name for a chat that its page hasn't named: nobody comes back to it."""
    return f"deepchat-{secrets.token_hex(12)}"


def decode_message(data: str | bytes, chat_id: str, *, max_depth: int) -> Chat:
    """Return what is said, in the chat *chat_id* unless it names another.

    Raises:
        DecodeError: Nothing is.

    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    body = decoded(raw, _DECODER, max_depth=max_depth)
    if body.chat is not None:
        try:
            check_name(body.chat, "chat", None)
        except DecodeError as exc:
            raise DecodeError("invalid_request", exc.message, param="chat") from None
    said = body.messages[-1] if body.messages else None
    if said is None or said.role != "user":
        message = "The last of `messages` must be the user's."
        raise DecodeError("invalid_request", message, param="messages")
    parts = [UiPart("text", text=said.text)] if said.text else []
    parts += [_file(each) for each in said.files or ()]
    message_id = f"item_{secrets.token_hex(12)}"
    return chat_of(
        ChatParam(
            chat_id if body.chat is None else body.chat,
            [UiMessage(message_id, "user", parts)],
            unbroken=body.unbroken,
        )
    )


def _file(given: _FileParam) -> UiPart:
    if given.src is None or given.src[:5].lower() != "data:":
        message = "Files are taken as data URIs, in `src`: let the widget read them (`mixedFiles`, `images`)."
        raise DecodeError("unsupported_content", message, param="messages")
    media_type = given.src[5:].partition(";")[0] or None
    return UiPart("file", media_type=media_type, url=given.src, filename=given.name)
