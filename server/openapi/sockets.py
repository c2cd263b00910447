"""The doors for WebSockets, described as far as HTTP goes: what an upgrade is answered with."""

from __future__ import annotations

from typing import Final

from unbroken.server.openapi.operation import Answer, Described, Operation, Parameter, field_of
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

    def socket(path: str, name: str, what: str, document: str, *fields: Parameter) -> Operation:
        return Operation(
            method="get",
            path=path,
            name=f"connect{name}",
            tag="WebSockets",
            summary=f"{what} over a WebSocket",
            description=f"{_ABOUT} docs/{document}.md.",
            access="socket",
            parameters=fields,
            answers={101: _SWITCHED, **refused},
        )

    return Described(
        operations=(
            socket("/v1/realtime", "Realtime", "OpenAI Realtime", "protocol", model, after),
            socket("/v1/responses", "Responses", "OpenAI Responses", "responses", going_on),
            socket("/v1/ui/ws", "Ui", "AI SDK's UI streams", "ui"),
            socket("/v1/agui/ws", "Agui", "AG-UI", "agui"),
            socket("/v1/widget/deepchat", "DeepChat", "The widget deep-chat", "deep-chat"),
        )
    )


_ABOUT: Final = (
    "Only as an upgrade (RFC 6455); keys may come as the subprotocol `openai-insecure-api-key.KEY`, beside "
    "`realtime`. What is said then, and close codes:"
)
