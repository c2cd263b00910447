"""The doors for WebSockets, described as far as HTTP goes: what an upgrade is answered with."""

from __future__ import annotations

from typing import Final

from unbroken.server.openapi.operation import Answer, Described, Operation, field_of
from unbroken.server.openapi.refusals import CONNECTION, ENTRY, KEY, SESSION, Codes, refusals
from unbroken.server.openapi.terms import Terms

__all__ = ["sockets"]

_REFUSED: Final[Codes] = {
    400: ("beta_api_shape_disabled",),
    404: ("model_not_found", "session_not_found"),
    426: ("upgrade_required",),
    429: ("too_many_handshakes",),
}

_SWITCHED: Final = Answer(
    description="The connection is a WebSocket from here on. Pages are told in frames why they may not."
)


def sockets(_: Terms) -> Described:
    """Return what is said of them."""
    refused = refusals(ENTRY, KEY, CONNECTION, SESSION, _REFUSED)
    model = field_of("model", {"type": "string"}, "Left out: the usual one.")
    after = field_of("after", {"type": "string"}, "With `resume`: the id of the last event that is known.")
    going_on = field_of(
        "continue", {"type": "string"}, "`response_id:sequence_number:stream_id`, separated by commas."
    )
    return Described(
        operations=(
            Operation(
                method="get",
                path="/v1/realtime",
                name="connectRealtime",
                tag="WebSockets",
                summary="OpenAI Realtime over a WebSocket",
                description=f"{_ABOUT} docs/protocol.md.",
                access="socket",
                parameters=(model, after),
                answers={101: _SWITCHED, **refused},
            ),
            Operation(
                method="get",
                path="/v1/responses",
                name="connectResponses",
                tag="WebSockets",
                summary="OpenAI Responses over a WebSocket",
                description=f"{_ABOUT} docs/responses.md.",
                access="socket",
                parameters=(going_on,),
                answers={101: _SWITCHED, **refused},
            ),
            Operation(
                method="get",
                path="/v1/ui/ws",
                name="connectUi",
                tag="WebSockets",
                summary="AI SDK's UI streams over a WebSocket",
                description=f"{_ABOUT} docs/ui.md.",
                access="socket",
                answers={101: _SWITCHED, **refused},
            ),
            Operation(
                method="get",
                path="/v1/agui/ws",
                name="connectAgui",
                tag="WebSockets",
                summary="AG-UI over a WebSocket",
                description=f"{_ABOUT} docs/agui.md.",
                access="socket",
                answers={101: _SWITCHED, **refused},
            ),
            Operation(
                method="get",
                path="/v1/widget/deepchat",
                name="connectDeepChat",
                tag="WebSockets",
                summary="The widget deep-chat over a WebSocket",
                description=f"{_ABOUT} docs/deep-chat.md.",
                access="socket",
                answers={101: _SWITCHED, **refused},
            ),
        )
    )


_ABOUT: Final = (
    "Only as an upgrade (RFC 6455); keys may come as the subprotocol `openai-insecure-api-key.KEY`, beside "
    "`realtime`. What is said then, and close codes:"
)
