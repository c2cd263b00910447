"""Function calls as models take them: each with what it returned right behind it.

A conversation may hold calls in other states, and in another order: one that was
cut short, one that the client hasn't answered, an output behind what the user
said meanwhile. Every upstream refuses those.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from unbroken.server.agents.base import Prompted
from unbroken.sessions.items import (
    ApprovalRequest,
    ApprovalResponse,
    FunctionCall,
    FunctionOutput,
    Item,
    Message,
    ToolCall,
)

__all__ = ["answered", "in_pairs"]


def in_pairs(items: Sequence[Item]) -> tuple[Prompted, ...]:
    """Return *items* with each ended call of a server's tool as a function call and its output.

    So is a call that its user refused. What still waits for the user is left out.
    """
    refused = {
        item.request_id: item for item in items if isinstance(item, ApprovalResponse) and not item.approve
    }
    shown: list[Prompted] = []
    for item in items:
        match item:
            case ToolCall():
                shown.append(FunctionCall(item.id, item.id, item.name, _arguments_of(item)))
                shown.append(FunctionOutput(item.id, item.id, _result_of(item)))
            case ApprovalRequest():
                if (response := refused.get(item.id)) is not None:
                    reason = f" They say: {response.reason}" if response.reason else ""
                    said = f"The user doesn't want this to be done.{reason}"
                    shown.append(FunctionCall(item.id, item.id, item.name, item.arguments))
                    shown.append(FunctionOutput(response.id, item.id, said))
            case ApprovalResponse():
                pass
            case _:
                shown.append(item)
    return tuple(shown)


def _arguments_of(call: ToolCall) -> str:
    """Return the arguments; those that are none are left out: some upstreams read them, and refuse all."""
    try:
        is_object = isinstance(orjson.loads(call.arguments), dict)
    except orjson.JSONDecodeError:
        is_object = False
    return call.arguments if is_object else "{}"


def _result_of(call: ToolCall) -> str:
    if call.output is not None:
        return call.output
    return f"Error: {call.error.message}" if call.error is not None else "Error: there is no result."


def answered(items: Sequence[Prompted]) -> tuple[Prompted, ...]:
    """Return what of *items* a model can be shown.

    All messages; the complete calls that have an output; and directly behind
    calls that were made together, their outputs, in the same order.
    """
    outputs = {item.call_id: item for item in items if isinstance(item, FunctionOutput)}
    if not outputs:
        return tuple(item for item in items if isinstance(item, Message))
    shown: list[Prompted] = []
    awaited: list[Prompted] = []  # the outputs of the calls shown last
    for item in items:
        if isinstance(item, FunctionCall):
            if item.status == "completed" and item.call_id in outputs:
                shown.append(item)
                awaited.append(outputs.pop(item.call_id))
            continue
        shown += awaited
        awaited.clear()
        if isinstance(item, Message):
            shown.append(item)
    return (*shown, *awaited)
