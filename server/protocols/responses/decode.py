"""From the body of a request to what is asked for.

Whatever a client sends, the outcome is an :class:`Asked` or a :class:`DecodeError` that says what to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.items import (
    DecodeError,
    ItemParam,
    approval_of,
    check_name,
    item_of,
    tool_choice_of,
    tools_of,
)
from unbroken.server.protocols.parameters import check_tokens, metadata_of, parameters_of
from unbroken.server.protocols.references import PartParam
from unbroken.server.protocols.responses.frames import ConversationParam, CreateParam, InputParam, InputPart
from unbroken.sessions.ids import ItemId, new_item_id
from unbroken.sessions.items import Item, Message, ResponseRequest, Text

__all__ = ["Opened", "asked_of", "decode_create", "items_of", "nothing_opened"]

_MOST_INPUT: Final = 2048
"""Items that one request may bring."""

_UNREAD: Final = frozenset({"reasoning", "mcp_list_tools"})
"""Items that clients send back as they came, and that say nothing to a model here."""

_SUMMARY: Final = "Summary of the conversation so far:\n\n"

Opened: TypeAlias = Callable[[str], str | None]
"""Returns the summary that a compaction is of. None: it is none that whoever sends it can have from here."""

_DECODER: Final = msgspec.json.Decoder(CreateParam)


def decode_create(data: bytes, *, max_depth: int) -> CreateParam:
    """Return what the body of a request holds.

    Raises:
        DecodeError: It holds nothing of the kind.

    """
    return decoded(data, _DECODER, max_depth=max_depth)


def nothing_opened(_: str) -> None:
    """See :data:`Opened`: no compaction is known."""
    return


def asked_of(
    wanted: CreateParam, *, plan: str, message_id: str | None = None, opened: Opened = nothing_opened
) -> Asked:
    """Return what somebody on *plan* asks for.

    *message_id*: what the request is named beside its body. *opened* knows the compactions that it brings.

    Raises:
        DecodeError: It can't be had.

    """
    try:
        return _asked(wanted, plan, message_id, opened)
    except DecodeError as exc:
        if exc.code == "invalid_event":
            raise DecodeError("invalid_request", exc.message, param=exc.param) from None
        raise


def _asked(wanted: CreateParam, plan: str, message_id: str | None, opened: Opened) -> Asked:
    conversation = (
        wanted.conversation.id if isinstance(wanted.conversation, ConversationParam) else wanted.conversation
    )
    if conversation is not None and wanted.previous_response_id is not None:
        message = "Give `previous_response_id` or `conversation`, not both."
        raise DecodeError("invalid_request", message, param="conversation")
    if wanted.prompt is not None:
        message = "This server keeps no prompt templates. Send `instructions`."
        raise DecodeError("unsupported_prompt", message, param="prompt")
    if wanted.background and wanted.store is False:
        message = "A response in the background has to be stored: leave out `store`."
        raise DecodeError("invalid_request", message, param="store")
    named = message_id if wanted.unbroken is None else wanted.unbroken.message_id or message_id
    if named is not None:
        check_name(named, "unbroken.message_id", None)
    items, references = _input(wanted.input, opened)
    if not (items or references or wanted.previous_response_id or conversation):
        raise DecodeError("invalid_request", "The request needs an `input`.", param="input")
    options = wanted.stream_options
    return Asked(
        model=wanted.model,
        items=items,
        references=references,
        request=_request(wanted, plan),
        previous=wanted.previous_response_id,
        conversation=conversation,
        store=wanted.store is not False,
        stream=wanted.stream is True,
        background=wanted.background is True,
        obfuscates=options is None or options.include_obfuscation is not False,
        message_id=named,
        digest=hashlib.blake2b(msgspec.json.encode(wanted, order="deterministic"), digest_size=12).digest(),
        stream_id=wanted.stream_id,
        generates=wanted.generate is not False,
    )


def _request(wanted: CreateParam, plan: str) -> ResponseRequest:
    check_tokens(wanted.max_output_tokens, "max_output_tokens")
    parameters = parameters_of(
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        form=None if wanted.text is None else wanted.text.format,
    )
    return ResponseRequest(
        instructions=wanted.instructions,
        max_output_tokens=wanted.max_output_tokens,
        metadata=metadata_of(wanted.metadata),
        tools=() if wanted.tools is None else tools_of(wanted.tools, "tools"),
        tool_choice=None if wanted.tool_choice is None else tool_choice_of(wanted.tool_choice, "tool_choice"),
        parallel_tool_calls=wanted.parallel_tool_calls,
        plan=plan,
        parameters=parameters,
        previous=wanted.previous_response_id,
        background=wanted.background is True,
    )


def _input(
    given: str | list[InputParam] | None, opened: Opened
) -> tuple[tuple[Item, ...], tuple[ItemId, ...]]:
    if given is None:
        return (), ()
    if isinstance(given, str):
        given = [InputParam(role="user", content=given)]
    if len(given) > _MOST_INPUT:
        raise DecodeError("invalid_request", f"`input` takes up to {_MOST_INPUT} items.", param="input")
    return items_of(given, "input", opened)


def items_of(
    given: Sequence[InputParam], field: str, opened: Opened = nothing_opened
) -> tuple[tuple[Item, ...], tuple[ItemId, ...]]:
    """Return the items that a *field* brings, and those that it names. *opened* knows the compactions.

    Raises:
        DecodeError: They can't be taken.

    """
    items: list[Item] = []
    references: list[ItemId] = []
    for index, item in enumerate(given):
        param = f"{field}[{index}]"
        kind = item.type or ("message" if item.role is not None else "item_reference")
        if kind == "item_reference":
            if item.id is None:
                raise DecodeError("invalid_request", "The reference needs an `id`.", param=f"{param}.id")
            references.append(ItemId(item.id))
        elif kind == "mcp_call":
            items += _called(item, param)
        elif kind == "mcp_approval_response":
            items.append(approval_of(_plain(item, kind), param))
        elif kind == "compaction":
            items.append(_summary(item, param, opened))
        elif kind not in _UNREAD:
            items.append(item_of(_plain(item, kind), param))
    return tuple(items), tuple(references)


def _summary(item: InputParam, param: str, opened: Opened) -> Message:
    """Return what a compaction says, as a message.

    The assistant's: an agent has written it, of what users and tools said. As the operator's, by whose word
    models go, anybody's could become that; as the user's, it would be a question.
    """
    sealed = item.encrypted_content
    if sealed is None:
        message = "The compaction needs its `encrypted_content`."
        raise DecodeError("invalid_request", message, param=f"{param}.encrypted_content")
    if (text := opened(sealed)) is None:
        message = (
            "The compaction can't be read: it isn't whole, or isn't yours, or of another server, or too old. "
            "Send what it was made of."
        )
        raise DecodeError("invalid_compaction", message, param=f"{param}.encrypted_content")
    return Message(new_item_id(), "assistant", (Text(_SUMMARY + text),))


def _plain(item: InputParam, kind: str) -> ItemParam:
    """Return *item* in the words that all protocols share. Ids are the client's of another conversation."""
    role = "system" if item.role == "developer" else item.role
    said = "output_text" if role == "assistant" else "input_text"
    content = item.content
    if isinstance(content, str):
        content = [InputPart(type=said, text=content)]
    output = item.output
    if isinstance(output, list):
        output = "".join(part.text or "" for part in output)
    parts: list[PartParam] | None = (
        None
        if content is None
        else [
            PartParam(type="output_text", text=part.refusal) if part.type == "refusal" else part
            for part in content
        ]
    )
    return ItemParam(
        type=kind,
        role=role,
        content=parts,
        call_id=item.call_id,
        name=item.name,
        arguments=item.arguments,
        output=output,
        approval_request_id=item.approval_request_id,
        approve=item.approve,
        reason=item.reason,
    )


def _called(item: InputParam, param: str) -> list[Item]:
    """Return what a call of a server's tool is that a client tells of: a call of a function, and its output.

    It is looked at like any other that a client tells of, and claims no more.
    """
    call = _plain(item, "function_call")
    named = ItemParam(type="function_call", call_id=item.id, name=call.name, arguments=call.arguments)
    output = call.output if call.output is not None else str(item.error or "")
    result = ItemParam(type="function_call_output", call_id=item.id, output=output)
    return [item_of(named, param), item_of(result, param)]
