"""``/v1/ui/chat``, described."""

from __future__ import annotations

from typing import Final

from unbroken.server.openapi.answer_schemas import QUOTA_HEADERS, STREAM, shape
from unbroken.server.openapi.operation import (
    JSON,
    SSE,
    Described,
    Operation,
    Schema,
    answered,
    path_field,
    ref,
)
from unbroken.server.openapi.refusals import (
    ASKING,
    BODY,
    CONNECTION,
    ENTRY,
    KEY,
    PATH,
    QUOTAS,
    SESSION,
    refusals,
)
from unbroken.server.openapi.request_schemas import (
    NAME,
    TOKENS,
    TOOL_CHOICE,
    TOOL_CHOICE_PARAM,
    TOOL_PARAM,
    TOOLS,
    Bounds,
    request_schemas,
)
from unbroken.server.openapi.terms import Terms
from unbroken.server.protocols.ui.frames import ChatParam

__all__ = ["ui"]

_TAG: Final = "AI SDK"
_ONE: Final = "/v1/ui/chat/{chat_id}"

_BOUNDS: Final[Bounds] = {
    "ChatParam": {
        "id": NAME,
        "messages": {"minItems": 1, "maxItems": 4096},
        "trigger": {"enum": ["submit-message", "regenerate-message"]},
    },
    "Extension": {"max_output_tokens": TOKENS, "tools": TOOLS, "tool_choice": TOOL_CHOICE},
    "ToolParam": TOOL_PARAM,
    "ToolChoiceParam": TOOL_CHOICE_PARAM,
}

_STREAMED: Final[Schema] = {"required": True, "schema": {"const": "v1"}}


def ui(terms: Terms) -> Described:
    """Return what is said of it."""
    named = path_field("chat_id", {"type": "string", **NAME}, "The page's own name for the chat.")
    chunks = {"x-vercel-ai-ui-message-stream": _STREAMED}
    counted = (QUOTAS,) if terms.has_quotas else ()
    gone = {404: ("response_events_gone",)}
    refused = refusals(ENTRY, KEY, CONNECTION, PATH, SESSION, {400: ("invalid_request",)})
    operations = (
        Operation(
            method="post",
            path="/v1/ui/chat",
            name="sendChat",
            tag=_TAG,
            summary="Ask for an answer in a chat, and stream it",
            description="Of the messages the last one is read: what came before is what the server knows.",
            body=terms.body("UiChat"),
            answers={
                200: answered(
                    "The chunks of the answer, then `[DONE]`.",
                    {SSE: STREAM},
                    {**chunks, **(QUOTA_HEADERS if terms.has_quotas else {})},
                ),
                **refusals(ENTRY, KEY, CONNECTION, SESSION, BODY, ASKING, gone, *counted),
            },
        ),
        Operation(
            method="get",
            path=_ONE,
            name="getChat",
            tag=_TAG,
            summary="List the messages of a chat, without what is being answered",
            parameters=(named,),
            answers={200: answered("They.", {JSON: ref("UiMessages")}), **refused},
        ),
        Operation(
            method="get",
            path=f"{_ONE}/stream",
            name="resumeChat",
            tag=_TAG,
            summary="Stream what is being answered, from its beginning",
            parameters=(named,),
            answers={
                200: answered("The chunks of the answer, then `[DONE]`.", {SSE: STREAM}, chunks),
                204: answered("Nothing is being answered."),
                **refused,
            },
        ),
        Operation(
            method="post",
            path=f"{_ONE}/stop",
            name="stopChat",
            tag=_TAG,
            summary="Stop what is being answered, wherever that is",
            parameters=(named,),
            answers={
                200: answered("Whether there was anything.", {JSON: shape({"stopped": {"type": "boolean"}})}),
                **refused,
            },
        ),
    )
    message = shape({"id": {"type": "string"}, "role": {"type": "string"}, "parts": {"type": "array"}})
    messages = shape({"id": {"type": "string"}, "messages": {"type": "array", "items": message}})
    schemas = {**request_schemas("Ui", ChatParam, _BOUNDS), "UiMessages": messages}
    return Described(operations=operations, schemas=schemas)
