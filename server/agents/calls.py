"""Function calls as models take them: each with what it returned right behind it.

A conversation may hold calls in other states, and in another order: one that was
cut short, one that the client hasn't answered, an output behind what the user
said meanwhile. Every upstream refuses those.
"""

from __future__ import annotations

from collections.abc import Sequence

from unbroken.sessions.items import FunctionCall, FunctionOutput, Item, Message

__all__ = ["answered"]


def answered(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return what of *items* a model can be shown.

    All messages; the complete calls that have an output; and directly behind
    calls that were made together, their outputs, in the same order.
    """
    outputs = {item.call_id: item for item in items if isinstance(item, FunctionOutput)}
    if not outputs:
        return tuple(item for item in items if isinstance(item, Message))
    shown: list[Item] = []
    awaited: list[Item] = []  # the outputs of the calls shown last
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
