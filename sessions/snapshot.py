"""A session's state as a store keeps it.

It follows the format rules of :mod:`unbroken.sessions.entries`, and shares the
format's number.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from unbroken.sessions.endings import Ended
from unbroken.sessions.entries import Formatted, InputKey, Refused, Submitted, decode_formatted
from unbroken.sessions.ids import ItemId, PrincipalId, ResponseId
from unbroken.sessions.items import (
    ApprovalHead,
    CallHead,
    Item,
    Produced,
    ReasoningHead,
    ResponseRequest,
    SessionConfig,
    ToolHead,
)
from unbroken.sessions.response import Response, ResponseOutput
from unbroken.sessions.turn import Attempt, AttemptState

__all__ = ["OutputState", "RunningState", "SessionState", "decode_state", "encode_state"]


class OutputState(Struct, frozen=True):
    """A :class:`ResponseOutput` as a snapshot holds it."""

    item_id: ItemId
    previous: ItemId | None
    call: CallHead | None
    text: str
    head: ReasoningHead | ToolHead | ApprovalHead | UnsetType = UNSET
    in_conversation: bool | UnsetType = UNSET
    """Unset: as its response."""
    is_run: bool | UnsetType = UNSET
    done: Produced | UnsetType = UNSET

    @classmethod
    def of(cls, output: ResponseOutput) -> OutputState:
        """Return the state of *output*."""
        head = output.head
        call = head if isinstance(head, CallHead) else None
        return cls(
            output.item_id,
            output.previous,
            call,
            output.text,
            UNSET if head is None or isinstance(head, CallHead) else head,
            output.in_conversation,
            output.is_run or UNSET,
            UNSET if output.done is None else output.done,
        )

    def output(self, request: ResponseRequest) -> ResponseOutput:
        """Return the output that this is the state of, in a response to *request*."""
        return ResponseOutput(
            self.item_id,
            self.previous,
            self.call if self.head is UNSET else self.head,
            [self.text] if self.text else [],
            request.in_conversation if self.in_conversation is UNSET else self.in_conversation,
            self.is_run is True,
            None if self.done is UNSET else self.done,
        )


class RunningState(Struct, frozen=True):
    """A :class:`Response` as a snapshot holds it."""

    id: ResponseId
    state: AttemptState
    request: ResponseRequest
    turn: int
    number: int
    started_at: int
    ordinal: int
    item_id: ItemId | None
    """Of its first output, as for what follows; None: it has none."""
    previous: ItemId | None
    handle: str | None
    text: str
    cancel_reason: str | None
    call: CallHead | None = None
    further: list[OutputState] = []
    anchor: ItemId | UnsetType | None = UNSET
    requests: tuple[str, ...] | UnsetType = UNSET
    outputs: list[OutputState] | UnsetType = UNSET
    """Of all outputs. Unset: they are the first and the further ones."""
    takeovers: tuple[int, int, int] | UnsetType = UNSET
    """How many, how many in vain, and the ordinal behind the last."""

    @classmethod
    def of(cls, response: Response) -> RunningState:
        """Return the state of *response*."""
        outputs = [OutputState.of(each) for each in response.outputs]
        first = outputs[0] if outputs else None
        return cls(
            response.id,
            response.attempt.state,
            response.request,
            response.turn,
            response.number,
            response.started_at,
            response.ordinal,
            None if first is None else first.item_id,
            None if first is None else first.previous,
            response.handle,
            "" if first is None else first.text,
            response.cancel_reason,
            None if first is None else first.call,
            [],
            response.anchor,
            response.requests,
            outputs,
            (response.takeovers, response.in_vain, response.taken_at) if response.takeovers else UNSET,
        )

    def response(self, last: ItemId | None) -> Response:
        """Return the response that this is the state of; *last* is the conversation's last item."""
        states = list(self.further) if self.outputs is UNSET else self.outputs
        if self.outputs is UNSET and self.item_id is not None:
            states.insert(0, OutputState(self.item_id, self.previous, self.call, self.text))
        takeovers, in_vain, taken_at = (0, 0, 0) if self.takeovers is UNSET else self.takeovers
        return Response(
            Attempt(self.id, self.state),
            self.request,
            turn=self.turn,
            number=self.number,
            started_at=self.started_at,
            ordinal=self.ordinal,
            handle=self.handle,
            takeovers=takeovers,
            in_vain=in_vain,
            taken_at=taken_at,
            outputs=[each.output(self.request) for each in states],
            cancel_reason=self.cancel_reason,
            anchor=last if self.anchor is UNSET else self.anchor,
            requests=self.requests,
        )


class SessionState(Formatted, frozen=True, kw_only=True):
    """Everything that a session is."""

    applied: int
    consumed: int
    principal: PrincipalId | None
    config: SessionConfig
    items: list[tuple[Item, bool]]
    """In order, each with whether it is still being produced."""
    inputs: list[tuple[int, Submitted]]
    responses: list[RunningState]
    refusals: list[Refused]
    begun: tuple[ResponseId, ...] | UnsetType = UNSET
    keys: list[tuple[int, InputKey]] | UnsetType = UNSET
    """Of the latest inputs, by their numbers: who goes on alone is to know them again."""
    endings: list[Ended] | UnsetType = UNSET
    """How the latest responses ended, the last one last."""
    opened_at: int | UnsetType = UNSET
    """Unset: nobody knows."""


_DECODER: Final = msgspec.json.Decoder(SessionState)


def encode_state(state: SessionState) -> bytes:
    """Return *state* as JSON."""
    return msgspec.json.encode(state)


def decode_state(data: bytes) -> SessionState:
    """Return the state that :func:`encode_state` made *data* of.

    Raises:
        UnknownFormat: It was written by a later version, or isn't a snapshot at all.

    """
    return decode_formatted(_DECODER, data, what="snapshot")
