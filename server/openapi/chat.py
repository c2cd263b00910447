"""``/v1/chat/completions`` and ``/v1/models``, described."""

from __future__ import annotations

from typing import Any, Final

from unbroken.server.openapi.answer_schemas import QUOTA_HEADERS, STREAM, shape
from unbroken.server.openapi.operation import (
    JSON,
    SSE,
    Described,
    Operation,
    Schema,
    answered,
    header_of,
    path_field,
    ref,
)
from unbroken.server.openapi.refusals import (
    ASKING,
    BODY,
    CONNECTION,
    ENTRY,
    FAILURES,
    KEY,
    QUOTAS,
    SESSION,
    Codes,
    refusals,
)
from unbroken.server.openapi.request_schemas import (
    FUNCTION_NAME,
    METADATA,
    TOKENS,
    TOOL_CHOICE,
    TOOLS,
    WHOLE,
    Bounds,
    request_schemas,
    up_to,
)
from unbroken.server.openapi.responses import IDEMPOTENCY_KEY
from unbroken.server.openapi.terms import Terms
from unbroken.server.protocols.chat.frames import CompletionParam

__all__ = ["chat", "models"]

_TAG: Final = "Chat Completions"

_REFUSED: Final = (
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "audio",
    "web_search_options",
    "functions",
    "function_call",
)

_NOTHING: Final[list[Any]] = [None, False, 0, "", [], {}]
"""What counts as left out."""

_NOT_OFFERED: Final[Schema] = {"enum": _NOTHING, "description": "Not offered."}

_STOP: Final[Schema] = {
    "minLength": 1,
    "maxLength": 256,
    "maxItems": 4,
    "items": {"type": "string", "minLength": 1, "maxLength": 256},
}

_FORMAT: Final[Schema] = {
    "if": {"properties": {"type": {"const": "json_schema"}}},
    "then": {
        "required": ["json_schema"],
        "properties": {
            "json_schema": {
                "type": "object",
                "required": ["name", "schema"],
                "properties": {"name": {"type": "string"}, "schema": {"type": "object"}},
            }
        },
    },
}

_BOUNDS: Final[Bounds] = {
    "CompletionParam": {
        WHOLE: {"required": ["messages"]},
        "messages": {"type": "array", "minItems": 1, "maxItems": 2048},
        "tools": TOOLS,
        "tool_choice": TOOL_CHOICE,
        "max_tokens": TOKENS,
        "max_completion_tokens": TOKENS,
        "temperature": up_to(2),
        "top_p": up_to(1),
        "stop": _STOP,
        "metadata": METADATA,
        "n": {"enum": [None, 1]},
        "modalities": {"enum": [None, ["text"]]},
        **dict.fromkeys(_REFUSED, _NOT_OFFERED),
    },
    "MessageParam": {
        WHOLE: {"required": ["role"]},
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "tool_calls": {"description": "Up to 128, of the assistant's."},
    },
    "NestedTool": {
        WHOLE: {"required": ["function"]},
        "type": {"enum": [None, "function"]},
        "function": {"type": "object"},
    },
    "ToolParam": {WHOLE: {"required": ["name"]}, "name": FUNCTION_NAME},
    "ChoiceParam": {
        WHOLE: {"required": ["function"]},
        "type": {"const": "function"},
        "function": {"type": "object", "required": ["name"], "properties": {"name": FUNCTION_NAME}},
    },
    "FormatParam": {WHOLE: _FORMAT, "type": {"enum": ["text", "json_object", "json_schema"]}},
    "Extension": {"session": {"description": "A session's id, or `new`."}, "message_id": {"maxLength": 128}},
}

_BEGUN: Final[Codes] = {
    400: ("unsupported_parameter",),
    404: ("response_events_gone", "session_not_found"),
    500: ("internal_error",),
}


def chat(terms: Terms) -> Described:
    """Return what is said of answers to a conversation."""
    session = header_of(
        "Unbroken-Session", {"type": "string"}, "As `unbroken.session` in the body: a session's id, or `new`."
    )
    counted = (QUOTAS,) if terms.has_quotas else ()
    create = Operation(
        method="post",
        path="/v1/chat/completions",
        name="createChatCompletion",
        tag=_TAG,
        summary="Ask for an answer to a conversation",
        description=(
            "As a whole, or as server-sent events (`stream`) with `[DONE]` in the end. "
            "Without a session nothing is kept, and who leaves stops the answer."
        ),
        parameters=(IDEMPOTENCY_KEY, session),
        body=terms.body("ChatCompletion"),
        answers={
            200: answered(
                "The answer, or its chunks.",
                {JSON: ref("Completion"), SSE: STREAM},
                QUOTA_HEADERS if terms.has_quotas else {},
            ),
            **refusals(ENTRY, KEY, CONNECTION, SESSION, BODY, ASKING, FAILURES, _BEGUN, *counted),
        },
    )
    schemas = {**request_schemas("Chat", CompletionParam, _BOUNDS), "Completion": _completion()}
    return Described(operations=(create,), schemas=schemas)


def _completion() -> Schema:
    number = {"type": "integer", "minimum": 0}
    message = shape(
        {"role": {"const": "assistant"}, "content": {"type": ["string", "null"]}},
        optional={"tool_calls": {"type": "array", "items": {"type": "object"}}},
    )
    ends = ["stop", "length", "tool_calls", "content_filter"]
    choice = shape({"index": {"const": 0}, "message": message, "finish_reason": {"enum": ends}})
    return shape(
        {
            "id": {"type": "string"},
            "object": {"const": "chat.completion"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": choice, "minItems": 1, "maxItems": 1},
        },
        optional={
            "usage": shape({"prompt_tokens": number, "completion_tokens": number, "total_tokens": number}),
            "unbroken": {"type": "object", "description": "What this server adds. `resume` is a secret."},
        },
        says="An answer.",
    )


def models(_: Terms) -> Described:
    """Return what is said of models."""
    named = path_field("model", {"type": "string", "minLength": 1}, "Names of models may have slashes.")
    answers = refusals(ENTRY, KEY)
    return Described(
        operations=(
            Operation(
                method="get",
                path="/v1/models",
                name="listModels",
                tag=_TAG,
                summary="List which models a request may name",
                answers={200: answered("They.", {JSON: ref("ModelList")}), **answers},
            ),
            Operation(
                method="get",
                path="/v1/models/{model}",
                name="getModel",
                tag=_TAG,
                summary="Look at one",
                parameters=(named,),
                answers={
                    200: answered("It is offered.", {JSON: ref("Model")}),
                    **answers,
                    **refusals({404: ("model_not_found", "path_not_found")}),
                },
            ),
        )
    )
