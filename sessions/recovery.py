"""What becomes of a response whose owner is gone. Pure.

In this order: the upstream's own response goes on, and its rest is fetched;
else, where the server is set so, the turn is attempted again, as another
response; else the attempt is marked as interrupted, with how far it got. Each
takeover is in the log, so that a turn that kills its owners can't go on for ever.
"""

from __future__ import annotations

from typing import Final

from unbroken.sessions.entries import Body, ItemDeleted, ResponseStarted
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import CallHead, ReasoningHead
from unbroken.sessions.responder import Resumption
from unbroken.sessions.response import Response

__all__ = ["another_attempt", "resumption_of"]

_MOST_IN_VAIN: Final = 3
"""How often in a row a response is resumed by another owner, and comes to nothing more: it may be what its
owners die of. As long as it goes on, nodes may be replaced under it one after another.
"""

_MOST_TAKEOVERS: Final = 32
"""How often in all."""


def resumption_of(response: Response) -> Resumption | None:
    """Return where an upstream would have to go on; None: it can't, or has been asked to too often.

    It knows how much was said, not what: of more than one message, or of
    reasoning and the server's own tools, it could not be told.
    """
    if response.handle is None or response.in_vain >= _MOST_IN_VAIN or response.takeovers >= _MOST_TAKEOVERS:
        return None
    outputs = response.outputs
    messages = [output for output in outputs if output.head is None]
    calls = [output for output in outputs if isinstance(output.head, CallHead)]
    if len(messages) > 1 or len(messages) + len(calls) != len(outputs):
        return None
    text = messages[0].text if messages else ""
    arguments = tuple(call.text for call in calls)
    return Resumption(response.handle, len(text), tuple(map(len, arguments)), text, arguments)


def another_attempt(response: Response, response_id: ResponseId, most: int) -> list[Body]:
    """Return what begins the turn of an interrupted *response* anew, as *response_id*; nothing: it isn't.

    What the first attempt said leaves the conversation: the second begins at the beginning. Where a
    call was made, somebody may have acted on it, and there is no second.
    """
    heads = [output.head for output in response.outputs]
    if response.number >= most or any(not isinstance(head, ReasoningHead | None) for head in heads):
        return []
    deleted = [ItemDeleted(output.item_id) for output in response.outputs if output.in_conversation]
    started = ResponseStarted(
        response_id,
        response.request,
        turn=response.turn,
        attempt=response.number + 1,
        requests=response.requests,
    )
    return [*deleted, started]
