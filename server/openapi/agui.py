"""``/v1/agui`` and ``/v1/widget/deepchat``, described."""

from __future__ import annotations

from typing import Final

from unbroken.server.openapi.answer_schemas import QUOTA_HEADERS, STREAM, shape
from unbroken.server.openapi.operation import (
    JSON,
    SSE,
    Described,
    Operation,
    answered,
    field_of,
    header_of,
    path_field,
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
    Codes,
    refusals,
)
from unbroken.server.openapi.request_schemas import NAME, request_schemas
from unbroken.server.openapi.terms import Terms
from unbroken.server.protocols.agui.frames import RunParam
from unbroken.server.protocols.deepchat.decode import BodyParam

__all__ = ["agui", "deepchat"]

_TAG: Final = "AG-UI"
_ONE: Final = "/v1/agui/{thread_id}"

_GONE: Final[Codes] = {404: ("response_events_gone",)}

_EVENT: Final = {"type": "string", "pattern": r"^(-1|resp_[0-9a-f]{1,64}t?[0-9a-f]{0,64}\.[0-9]{1,9})?$"}

_OFFSET: Final = field_of("offset", _EVENT, "The id of the last event that is known; -1: none is.")
_SEEN: Final = header_of("Last-Event-ID", _EVENT, "The same, where the query doesn't say it.")
_RUN: Final = field_of("runId", {"type": "string", **NAME}, "Which run. Left out: whichever runs.")
_THREAD: Final = field_of(
    "threadId",
    {"type": "string", **NAME},
    "The client's own name for the thread. An event's id says it, too.",
)

_EVENTS: Final = answered("The events of the run.", {SSE: STREAM})
_NOTHING: Final = answered("Nothing runs.")


def agui(terms: Terms) -> Described:
    """Return what is said of runs."""
    named = path_field("thread_id", {"type": "string", **NAME}, "The client's own name for the thread.")
    counted = (QUOTAS,) if terms.has_quotas else ()
    headers = QUOTA_HEADERS if terms.has_quotas else {}
    known = refusals(ENTRY, KEY, CONNECTION, PATH, SESSION, _GONE, {400: ("invalid_request",)})
    operations = (
        Operation(
            method="post",
            path="/v1/agui",
            name="runAgent",
            tag=_TAG,
            summary="Have a run be made, and stream it",
            description="With `Last-Event-ID` it was begun before: what follows that event is streamed.",
            parameters=(_THREAD, _SEEN),
            body=terms.body("AguiRun"),
            answers={
                200: answered("The events of the run.", {SSE: STREAM}, headers),
                204: _NOTHING,
                **refusals(ENTRY, KEY, CONNECTION, SESSION, BODY, ASKING, _GONE, *counted),
            },
        ),
        Operation(
            method="get",
            path="/v1/agui",
            name="joinRun",
            tag=_TAG,
            summary="Go on with a run that the query names",
            parameters=(_THREAD, _RUN, _OFFSET, _SEEN),
            answers={200: _EVENTS, 204: _NOTHING, **known},
        ),
        Operation(
            method="get",
            path=_ONE,
            name="getThread",
            tag=_TAG,
            summary="Look at a thread",
            parameters=(named,),
            answers={200: answered("It.", {JSON: {"type": "object"}}), **known},
        ),
        Operation(
            method="get",
            path=f"{_ONE}/stream",
            name="resumeThread",
            tag=_TAG,
            summary="Stream what runs in a thread",
            parameters=(named, _RUN, _OFFSET, _SEEN),
            answers={200: _EVENTS, 204: _NOTHING, **known},
        ),
        Operation(
            method="post",
            path=f"{_ONE}/stop",
            name="stopThread",
            tag=_TAG,
            summary="Stop what runs in a thread, wherever that is",
            parameters=(named,),
            answers={
                200: answered("Whether there was anything.", {JSON: shape({"stopped": {"type": "boolean"}})}),
                **known,
            },
        ),
    )
    bounds = {"RunParam": {"threadId": NAME, "runId": NAME}}
    return Described(operations=operations, schemas=request_schemas("Agui", RunParam, bounds))


def deepchat(terms: Terms) -> Described:
    """Return what is said of the widget's messages."""
    counted = (QUOTAS,) if terms.has_quotas else ()
    say = Operation(
        method="post",
        path="/v1/widget/deepchat",
        name="sendDeepChat",
        tag="deep-chat",
        summary="Say something, and stream the answer",
        parameters=(field_of("chat", {"type": "string", **NAME}, "The page's own name for the chat."),),
        body=terms.body("DeepChatBody"),
        answers={
            200: answered(
                "The answer, piece by piece.", {SSE: STREAM}, QUOTA_HEADERS if terms.has_quotas else {}
            ),
            **refusals(ENTRY, KEY, CONNECTION, SESSION, BODY, ASKING, _GONE, *counted),
        },
    )
    return Described(operations=(say,), schemas=request_schemas("DeepChat", BodyParam, {}))
