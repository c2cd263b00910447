"""From the body of a request to what is asked for.

Whatever a client sends, the outcome is a :class:`ChatAsked` or a :class:`DecodeError` that says what to do.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from unbroken.server.protocols.asked import Asked
from unbroken.server.protocols.body import decoded
from unbroken.server.protocols.chat.frames import ChoiceParam, CompletionParam, FormatParam, NestedTool
from unbroken.server.protocols.chat.messages import items_of, new_in
from unbroken.server.protocols.items import (
    DecodeError,
    ToolChoiceParam,
    ToolParam,
    check_name,
    check_pairs,
    tool_choice_of,
    tools_of,
)
from unbroken.server.protocols.parameters import check_tokens, metadata_of, parameters_of
from unbroken.sessions.ids import SessionId, is_transient
from unbroken.sessions.items import FunctionTool, NamedTool, ResponseRequest, ToolChoice

__all__ = ["ChatAsked", "asked_of", "decode_completion"]

_NEW: Final = "new"
"""In place of a session's id: one that begins with the request."""

_MOST_IN_SESSION: Final = 2048
"""Items that one request may bring to a session."""

_SESSION: Final = re.compile(r"(?:sess|conv)_(?P<name>[\x21-\x7e]{1,123})")

_REFUSED: Final[dict[str, str]] = {
    "logprobs": "No probabilities of tokens are told here.",
    "top_logprobs": "No probabilities of tokens are told here.",
    "logit_bias": "The choice of single tokens can't be changed here.",
    "audio": "Answers are text here.",
    "web_search_options": "There is no search here that a request can ask for.",
    "functions": "Send `tools`.",
    "function_call": "Send `tool_choice`.",
}
"""What would be counted on, and why there is none of it."""

_DECODER: Final = msgspec.json.Decoder(CompletionParam)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAsked:
    """An answer that is asked for."""

    asked: Asked
    includes_usage: bool
    """Whether the stream says in the end what the answer cost."""


def decode_completion(data: bytes, *, max_depth: int) -> CompletionParam:
    """Return what the body of a request holds.

    Raises:
        DecodeError: It holds nothing of the kind.

    """
    return decoded(data, _DECODER, max_depth=max_depth)


def asked_of(
    wanted: CompletionParam, *, plan: str, session: str | None = None, message_id: str | None = None
) -> ChatAsked:
    """Return what somebody on *plan* asks for.

    *session* and *message_id* are what is said beside the body: where it belongs, and how it is named.

    Raises:
        DecodeError: It can't be had.

    """
    try:
        return _asked(wanted, plan, session, message_id)
    except DecodeError as exc:
        if exc.code == "invalid_event":
            raise DecodeError("invalid_request", exc.message, param=exc.param) from None
        raise


def _asked(wanted: CompletionParam, plan: str, session: str | None, message_id: str | None) -> ChatAsked:
    _check_offered(wanted)
    extension, options = wanted.unbroken, wanted.stream_options
    named = message_id if extension is None else extension.message_id or message_id
    if named is not None:
        check_name(named, "unbroken.message_id", None)
    within = _session(None if extension is None else extension.session, session)
    if not wanted.messages:
        raise DecodeError("invalid_request", "The request needs `messages`.", param="messages")
    messages = wanted.messages
    if within not in (None, _NEW):
        messages = new_in(messages)  # what is ahead of them is there already
    items = items_of(messages, len(wanted.messages) - len(messages))
    if within in (None, _NEW):  # nothing is ahead of them
        _check_pairs(items)
    if within is not None and len(items) > _MOST_IN_SESSION:
        message = f"A session takes up to {_MOST_IN_SESSION} messages and calls at once."
        raise DecodeError("invalid_request", message, param="messages")
    if not items:
        raise DecodeError("invalid_request", "None of the `messages` says anything.", param="messages")
    asked = Asked(
        model=wanted.model,
        items=items,
        references=(),
        request=_request(wanted, plan),
        previous=None,
        conversation=None if within in (None, _NEW) else within,
        store=within is not None,
        stream=wanted.stream is True,
        background=False,
        obfuscates=options is None or options.include_obfuscation is not False,
        message_id=None if within is None else named,
        digest=hashlib.blake2b(msgspec.json.encode(wanted), digest_size=12).digest(),
        is_lone=within is None,
    )
    return ChatAsked(asked=asked, includes_usage=options is not None and options.include_usage is True)


def _check_offered(wanted: CompletionParam) -> None:
    for param, why in _REFUSED.items():
        if getattr(wanted, param):
            raise DecodeError("unsupported_parameter", f"`{param}` isn't offered. {why}", param=param)
    if wanted.n is not None and (wanted.n != 1 or isinstance(wanted.n, bool)):
        message = "There is one answer to a request: leave out `n`."
        raise DecodeError("unsupported_parameter", message, param="n")
    if wanted.modalities is not None and wanted.modalities != ["text"]:
        message = "Answers are text here: leave out `modalities`."
        raise DecodeError("unsupported_parameter", message, param="modalities")


def _session(named: str | None, beside: str | None) -> str | None:
    """Return the session that is named, as a conversation, or ``new``; None: none is."""
    if named is not None and beside is not None and named != beside:
        message = "The body and the header name two sessions. Name one."
        raise DecodeError("invalid_request", message, param="unbroken.session")
    name = beside if named is None else named
    if name is None or name == _NEW:
        return name
    match = _SESSION.fullmatch(name)
    if match is None or is_transient(SessionId(name)):
        message = "There is no such session: it has ended, or isn't yours. `new` begins one."
        raise DecodeError("session_not_found", message, param="unbroken.session")
    return f"conv_{match['name']}"


def _check_pairs(items: tuple[Any, ...]) -> None:
    try:
        check_pairs(list(items))
    except DecodeError as exc:
        message = exc.message.replace("`input`", "`messages`")
        raise DecodeError("invalid_request", message, param="messages") from None


def _request(wanted: CompletionParam, plan: str) -> ResponseRequest:
    for param in ("max_tokens", "max_completion_tokens"):
        check_tokens(getattr(wanted, param), param)
    stop = wanted.stop
    tools = _tools(wanted.tools)
    return ResponseRequest(
        max_output_tokens=(
            wanted.max_tokens if wanted.max_completion_tokens is None else wanted.max_completion_tokens
        ),
        metadata=metadata_of(wanted.metadata),
        tools=tools,
        tool_choice=_choice(wanted.tool_choice, tools),
        parallel_tool_calls=wanted.parallel_tool_calls,
        plan=plan,
        parameters=parameters_of(
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
            form=_form(wanted.response_format),
            form_param="response_format",
        ),
    )


def _tools(wanted: list[NestedTool] | None) -> tuple[FunctionTool, ...] | None:
    """Return the functions that are offered; None: those that the session has, if it has any."""
    if wanted is None:
        return None
    tools: list[ToolParam] = []
    for tool in wanted:
        inner = tool.function or ToolParam()
        tools.append(ToolParam(tool.type, inner.name, inner.description, inner.parameters))
    return tools_of(tools, "tools")


def _choice(wanted: str | ChoiceParam | None, tools: tuple[FunctionTool, ...] | None) -> ToolChoice | None:
    if wanted is None:
        return None
    if isinstance(wanted, ChoiceParam):
        called = None if wanted.function is None else wanted.function.name
        choice = tool_choice_of(ToolChoiceParam(wanted.type, called), "tool_choice")
    else:
        choice = tool_choice_of(wanted, "tool_choice")
    if isinstance(choice, NamedTool) and all(tool.name != choice.name for tool in tools or ()):
        message = f"`tool_choice` names {choice.name!r}, which isn't among the tools."
        raise DecodeError("invalid_request", message, param="tool_choice")
    return choice


def _form(wanted: FormatParam | None) -> dict[str, Any] | None:
    """Return a form as Responses writes it."""
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    within = {name: value for name, value in (wanted.json_schema or {}).items() if value is not None}
    return {**within, "type": "json_schema"}
