"""From the body of a request to what is said in it.

Clients send the whole conversation each time, as they know it. What of that is new is found out in
:mod:`unbroken.server.protocols.ui.history`; here is what it says in the words that all protocols share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import (
    NAME,
    DecodeError,
    ItemParam,
    check_name,
    item_of,
    tool_choice_of,
    tools_of,
)
from unbroken.server.protocols.parameters import check_tokens
from unbroken.server.protocols.references import PartParam
from unbroken.server.protocols.ui.frames import ChatParam, Extension, MessageParam, UiPart
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import ApprovalResponse, FunctionOutput, Item, Message, ResponseRequest

__all__ = [
    "MESSAGE_ID",
    "Chat",
    "Settled",
    "chat_of",
    "check_messages",
    "decode_chat",
    "replayed",
    "request_of",
]

MESSAGE_ID: Final = "ui_message_id"
"""In a response's metadata: which message of the client's it is a part of."""

_MOST_REPLAYED: Final = 256
"""Items that a conversation begins again with."""

_MOST_MESSAGES: Final = 4096

_CUT: Final = 2048
"""Characters of a reason: what a page says beyond is left out."""

_DECODER: Final = msgspec.json.Decoder(ChatParam)

_FRESH: Final = "fresh"

Settled = FunctionOutput | ApprovalResponse
"""What a page has done about a call."""


@dataclass(frozen=True, slots=True)
class Chat:
    """What a client asks for, read."""

    id: str
    question: Message | None
    """The user's last message, if nothing but answers that are to be replaced follows it."""
    settled: tuple[Settled, ...]
    """What the page has done about the calls of the last answer."""
    answer_id: str | None
    """The message that is to be gone on with. None: there is to be another."""
    regenerates: bool
    replaces: str | None
    """The message that is to be replaced: a question by another one, or an answer."""
    messages: Sequence[MessageParam]
    extension: Extension

    @property
    def digest(self) -> bytes:
        """Of what is said in it, ids and earlier messages aside."""
        parts = () if self.question is None else self.question.content
        said = msgspec.json.encode([parts, self.settled if self.question is None else ()])
        return hashlib.blake2b(said, digest_size=12).digest()


def decode_chat(data: bytes, *, max_depth: int) -> Chat:
    """Return what the body of a request holds.

    Raises:
        DecodeError: It holds nothing of the kind.

    """
    return chat_of(decoded(data, _DECODER, max_depth=max_depth))


def chat_of(wanted: ChatParam) -> Chat:
    """Return what *wanted* asks for.

    Raises:
        DecodeError: It can't be had.

    """
    try:
        return _chat(wanted)
    except DecodeError as exc:
        if exc.code == "invalid_event":
            raise DecodeError("invalid_request", exc.message, param=exc.param) from None
        raise


def check_messages(number: int) -> None:
    """Refuse a conversation of more messages than are read.

    Raises:
        DecodeError: It has more.

    """
    if number > _MOST_MESSAGES:
        message = f"There may be up to {_MOST_MESSAGES} messages."
        raise DecodeError("invalid_request", message, param="messages")


def _chat(wanted: ChatParam) -> Chat:
    check_name(wanted.id, "id", None)
    if wanted.trigger not in ("submit-message", "regenerate-message"):
        message = "`trigger` must be `submit-message` or `regenerate-message`."
        raise DecodeError("invalid_request", message, param="trigger")
    messages = wanted.messages
    check_messages(len(messages))
    regenerates = wanted.trigger == "regenerate-message"
    if regenerates:  # clients leave the answer out, and may not
        end = next((place for place in range(len(messages), 0, -1) if messages[place - 1].role == "user"), 0)
        messages = messages[:end]
    last = messages[-1] if messages else None
    if last is None or last.role not in ("user", "assistant"):
        message = "The last message must be the user's, or an answer whose calls are settled."
        raise DecodeError("invalid_request", message, param="messages")
    where = f"messages[{len(messages) - 1}]"
    if last.role == "user":
        before = messages[-2] if len(messages) > 1 and messages[-2].role == "assistant" else None
        return Chat(
            wanted.id,
            _question(last, where),
            () if before is None else tuple(_settled(before)),
            None,
            regenerates,
            wanted.message_id,
            messages,
            wanted.unbroken or Extension(),
        )
    settled = tuple(_settled(last))
    if not settled:
        message = (
            "The last message is an answer, and settles no call. Send the user's message, or regenerate."
        )
        raise DecodeError("invalid_request", message, param="messages")
    check_name(last.id, f"{where}.id", None)
    return Chat(wanted.id, None, settled, last.id, False, None, messages, wanted.unbroken or Extension())


def request_of(chat: Chat, message_id: str, plan: str) -> ResponseRequest:
    """Return what the answer is to be, as a part of the message *message_id*, for somebody on *plan*.

    Raises:
        DecodeError: It can't be had.

    """
    wanted = chat.extension
    tokens = wanted.max_output_tokens
    check_tokens(tokens, "unbroken.max_output_tokens")
    try:
        return ResponseRequest(
            instructions=wanted.instructions,
            max_output_tokens=tokens,
            metadata={MESSAGE_ID: message_id},
            tools=None if wanted.tools is None else tools_of(wanted.tools, "unbroken.tools"),
            tool_choice=(
                None
                if wanted.tool_choice is None
                else tool_choice_of(wanted.tool_choice, "unbroken.tool_choice")
            ),
            parallel_tool_calls=wanted.parallel_tool_calls,
            plan=plan,
        )
    except DecodeError as exc:
        code = "invalid_request" if exc.code == "invalid_event" else exc.code
        raise DecodeError(code, exc.message, param=exc.param) from None


def replayed(chat: Chat) -> tuple[Item, ...]:
    """Return the conversation as the client has it, to begin again with: the newest messages of it.

    Items have the same ids each time. What an answer thought is left out, calls that aren't settled, and
    messages that weren't answered.

    Raises:
        DecodeError: A message of it can't be taken.

    """
    turns: list[list[Item]] = []
    room = _MOST_REPLAYED
    called: set[str] = set()
    for index in range(len(chat.messages) - 1, -1, -1):
        message = chat.messages[index]
        if message.role == "user" and [each.role for each in chat.messages[index + 1 : index + 2]] == [
            "user"
        ]:
            continue  # nobody has answered it: it may have been refused
        where = f"messages[{index}]"
        is_answer = message.role == "assistant"
        items = list(_answer(message, called) if is_answer else (_question(message, where),))
        room -= len(items)
        if room < 0 and turns:
            break
        turns.append(items)
    return tuple(item for items in reversed(turns) for item in items)


def _question(message: MessageParam, where: str) -> Message:
    """Return a message of the user's, or of the system's."""
    parts = [part for each in message.parts if (part := _part(each)) is not None]
    try:
        item = item_of(ItemParam(id=message.id, role=message.role, content=parts), where)
    except DecodeError as exc:
        param = f"{where}.parts" if exc.param is not None and ".content" in exc.param else exc.param
        raise DecodeError(exc.code, exc.message.replace("`content`", "`parts`"), param=param) from None
    if not isinstance(item, Message):
        raise AssertionError("can't happen: it is asked for as a message")
    return item


def _part(part: UiPart) -> PartParam | None:
    if part.type == "text":
        return PartParam(type="input_text", text=part.text)
    if part.type != "file":
        return None
    if (part.media_type or "").startswith("image/"):
        return PartParam(type="input_image", image_url=part.url, filename=part.filename)
    is_data = (part.url or "")[:5].lower() == "data:"
    return PartParam(
        type="input_file",
        file_data=part.url if is_data else None,
        file_url=None if is_data else part.url,
        filename=part.filename,
    )


def _answer(message: MessageParam, called: set[str]) -> Iterator[Item]:
    """Yield an answer as the client has it. What makes no sense in it is left out: nobody can mend it."""
    for index, part in enumerate(message.parts):
        if part.type == "text" and part.text:
            said = PartParam(type="output_text", text=part.text)
            item_id = _derived(_FRESH, message.id, str(index))
            yield item_of(ItemParam(id=item_id, role="assistant", content=[said]), "messages")
        elif part.called is not None and part.tool_call_id not in called:
            output = _output(part)
            if output is None or part.tool_call_id is None:
                continue
            call_id = part.tool_call_id
            try:
                call = item_of(
                    ItemParam(
                        type="function_call",
                        id=_derived(_FRESH, message.id, "call", call_id),
                        call_id=call_id,
                        name=part.called,
                        arguments=orjson.dumps(part.input or {}).decode(),
                    ),
                    "messages",
                )
            except DecodeError:
                continue
            called.add(call_id)
            yield call
            yield FunctionOutput(_derived("output", call_id), call_id, output)


def _settled(message: MessageParam) -> Iterator[Settled]:
    """Yield what a page has done about the calls of an answer. What the server ran is its own to know."""
    for part in message.parts:
        if part.called is None or part.tool_call_id is None:
            continue
        approval = part.approval
        if approval is not None and approval.id is not None and approval.approved is not None:
            if NAME.fullmatch(approval.id) is not None:  # else it is of elsewhere
                reason = (approval.reason or "")[:_CUT] or None
                item_id = _derived("approval", approval.id)
                yield ApprovalResponse(item_id, ItemId(approval.id), approval.approved, reason)
            continue
        output = None if part.provider_executed else _output(part)
        if output is not None and NAME.fullmatch(part.tool_call_id) is not None:
            yield FunctionOutput(_derived("output", part.tool_call_id), part.tool_call_id, output)


def _output(part: UiPart) -> str | None:
    """Return what came of a call, as a model is told. None: nothing yet."""
    if part.state == "output-error":
        return f"Error: {part.error_text or 'it failed'}"
    if part.state != "output-available" or part.preliminary:
        return None
    return part.output if isinstance(part.output, str) else _json(part.output)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _derived(*names: str) -> ItemId:
    """Return an id that is the same each time that the same is sent."""
    said = "\0".join(names).encode("utf-8", "surrogatepass")
    return ItemId(f"item_{hashlib.blake2b(said, digest_size=12).hexdigest()}")
