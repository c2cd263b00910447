"""From what a run has produced, and how it ended, to the entries that say so. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import UNSET, UnsetType

from unbroken.sessions.entries import (
    Body,
    DeltaKind,
    Deltas,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ToolStarted,
)
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import ApprovalHead, CallHead, Head, Produced, ReasoningHead, ToolHead
from unbroken.sessions.outputs import Taken
from unbroken.sessions.response import Outcome, Response, ResponseOutput
from unbroken.sessions.turn import AttemptState

__all__ = ["continued", "finished", "standing_entries", "written"]


def _begun(
    response: Response, behind: ItemId | None, item_id: ItemId, ordinal: int, head: Head | None, index: int
) -> OutputStarted:
    """Return what begins an output of *response*, with its place *behind* an item of the conversation."""
    in_conversation = response.request.in_conversation and not isinstance(head, ReasoningHead)
    return OutputStarted(
        response.id,
        item_id,
        in_conversation,
        behind if in_conversation else None,
        ordinal,
        index,
        head if isinstance(head, CallHead) else UNSET,
        UNSET if head is None or isinstance(head, CallHead) else head,
    )


def continued(response: Response, taken: Taken, ordinal: int) -> Deltas | None:
    """Return the one entry that comes of an output that goes on; None: there is more to it.

    The usual case of :func:`written`, and much cheaper.
    """
    index = taken.index
    if taken.is_run or taken.is_ended or index >= len(response.outputs) or not taken.pieces:
        return None
    if response.outputs[index].head is not None:
        return None
    return Deltas(response.id, taken.item_id, taken.pieces, ordinal, index)


def written(response: Response, news: Iterable[Taken], ordinal: int, behind: ItemId | None) -> Iterator[Body]:
    """Yield what is new of a response's outputs, from *ordinal* on. New ones belong *behind* that item."""
    known = response.outputs
    for taken in news:
        index, item_id, head = taken.index, taken.item_id, taken.head
        if index < len(known):
            output = known[index]
            head = output.head  # as it is in the log
        else:
            started = _begun(response, behind, item_id, ordinal, head, index)
            yield started
            ordinal += 1
            output = ResponseOutput(item_id, started.previous, head, [], started.in_conversation)
            if started.in_conversation:
                behind = item_id
        if taken.pieces:
            call_id = head.call_id if isinstance(head, CallHead) else UNSET
            yield Deltas(response.id, item_id, taken.pieces, ordinal, index, 0, call_id, kind=_kind(head))
            ordinal += len(taken.pieces)
        if not (taken.is_run or taken.is_ended):
            continue
        whole = ResponseOutput(item_id, output.previous, head, [*output.parts, *taken.pieces])
        if taken.is_run:
            yield ToolStarted(response.id, item_id, whole.text, ordinal, index)
            ordinal += 1
        if taken.is_ended:
            result = taken.result
            item = (
                whole.item("completed")
                if result is None
                else whole.item("completed", result.output, result.error)
            )
            yield OutputDone(response.id, item, output.in_conversation, output.previous, ordinal, index)
            ordinal += 1


def standing_entries(
    response_id: ResponseId, output: ResponseOutput, index: int, behind: ItemId | None
) -> list[Body]:
    """Return what an output has come to, as entries that nobody has written: for who has seen none of it."""
    head, item_id = output.head, output.item_id
    call = head if isinstance(head, CallHead) else UNSET
    other = UNSET if head is None or isinstance(head, CallHead) else head
    entries: list[Body] = [
        OutputStarted(response_id, item_id, output.in_conversation, behind, 0, index, call, other)
    ]
    text = output.text
    if text or (output.done is None and not isinstance(head, ApprovalHead)):
        call_id = head.call_id if isinstance(head, CallHead) else UNSET
        entries.append(Deltas(response_id, item_id, [text], 0, index, 0, call_id, kind=_kind(head)))
    if output.is_run:
        entries.append(ToolStarted(response_id, item_id, text, 0, index))
    if output.done is not None:
        entries.append(OutputDone(response_id, output.done, output.in_conversation, behind, 0, index))
    return entries


def _kind(head: Head | None) -> DeltaKind | UnsetType:
    if isinstance(head, ReasoningHead):
        return "reasoning"
    return "tool_call" if isinstance(head, ToolHead) else UNSET


def finished(response: Response, outcome: Outcome) -> Iterator[Body]:
    """Yield what ends a response, of which all entries have been applied."""
    status, reason = outcome.status, outcome.reason
    if response.attempt.state is AttemptState.CANCELLING and status != "interrupted":
        # However the responder ended meanwhile: the client was told that it is cancelled.
        status, reason = "cancelled", response.cancel_reason
    items: list[Produced] = []
    ordinal = response.ordinal
    # A function call of a response that was cut short is not for anybody to act on.
    whole: Literal["completed", "incomplete"] = "completed" if status == "completed" else "incomplete"
    for index, output in enumerate(response.outputs):
        item = output.done
        if item is None:
            item = output.cut(whole)
            yield OutputDone(response.id, item, output.in_conversation, output.previous, ordinal, index)
            ordinal += 1
        items.append(item)
    yield ResponseDone(
        response.id,
        status,
        ordinal,
        tuple(items),
        reason,
        outcome.failure if status in ("failed", "interrupted") else None,
        outcome.usage,
        response.request.metadata,
        response.request.in_conversation,
        response.merged,
        outcome.notes or UNSET,
    )
