"""Makes histories and logs by hand, to plant in them what the checker has to find."""

from __future__ import annotations

from typing import Any

from tests.chaos.history import Connected, Disconnected, Frame, History, Received, Sent
from tests.chaos.logs import Log
from tests.chaos.words import digest, prompt, words_of
from unbroken.server.protocols.cursor import format_cursor
from unbroken.sessions.entries import (
    Body,
    CreateResponse,
    Deltas,
    Entry,
    OutputDone,
    OutputStarted,
    ResponseDone,
    ResponseStarted,
    Submitted,
)
from unbroken.sessions.ids import ChainId, ItemId, Nonce, ResponseId
from unbroken.sessions.items import Message, ResponseRequest, Text

__all__ = ["INCARNATION", "PAST", "TURN", "Tape", "log_of", "written"]

INCARNATION = "0123abcd"
TURN = prompt("k", 3, 0)
"""What is asked in all of them: three words."""

PAST = digest([("user", TURN)])
"""Of the conversation in which nothing else was said."""


class Tape:
    """A history in the making: each verb is something that a tab saw."""

    def __init__(self) -> None:
        self.history = History("tab", "sess")
        self._seq = 0

    def connect(self, *, after: str | None = None, resumed: bool | None = None) -> Tape:
        self.history.events.append(Connected("node", after))
        told = {} if resumed is None else {"resumed": resumed}
        own = format_cursor(INCARNATION, self._seq, 1) + "-own"
        return self.see({"type": "session.created", "session": {"unbroken": told}, "event_id": own})

    def lose(self) -> Tape:
        self.history.events.append(Disconnected(1006))
        return self

    def send(self, event: Frame) -> Tape:
        self.history.events.append(Sent(event))
        return self

    def see(self, frame: Frame) -> Tape:
        self.history.events.append(Received(frame))
        return self

    def next(self, kind: str, **fields: Any) -> Tape:
        """See a frame of the next entry of the log."""
        self._seq += 1
        return self.see({"type": kind, "event_id": format_cursor(INCARNATION, self._seq, 1), **fields})

    def back(self, entries: int) -> Tape:
        """See from now on what was seen before."""
        self._seq -= entries
        return self

    def item(self, item_id: str, role: str, text: str, previous: str | None) -> Tape:
        """See a message, and that it is whole."""
        content = [{"text": text}] if text else []
        item = {"id": item_id, "role": role, "status": "completed", "content": content}
        self.next("conversation.item.added", item=item, previous_item_id=previous)
        return self.next("conversation.item.done", item=item, previous_item_id=previous)

    def begin(self, response_id: str = "r") -> Tape:
        return self.next("response.created", response={"id": response_id, "metadata": {"turn": TURN}})

    def delta(self, text: str, response_id: str = "r") -> Tape:
        item = f"item-{response_id}"
        return self.next("response.output_text.delta", response_id=response_id, item_id=item, delta=text)

    def end(self, text: str, status: str = "completed", response_id: str = "r") -> Tape:
        item = {"id": f"item-{response_id}", "content": [{"text": text}]}
        response = {"id": response_id, "status": status, "output": [item], "metadata": {"turn": TURN}}
        if status == "interrupted":
            response |= {"status": "failed", "unbroken": {"status": status}}
        return self.next("response.done", response=response)

    def words(self, count: int = 3) -> Tape:
        for word in words_of(TURN, PAST)[:count]:
            self.delta(word)
        return self


def log_of(*bodies: Body, floor: int = 0) -> Log:
    """Return a log of these, numbered as a store does."""
    entries: list[Entry] = []
    for body in bodies:
        seq = entries[-1].last + 1 if entries else floor + 1
        entries.append(Entry(seq, Nonce(1), body))
    return Log("sess", INCARNATION, floor, entries)


def written(
    *words: str,
    response_id: str = "r",
    attempt: int = 1,
    status: Any = "completed",
    final: str | None = None,
    previous: ItemId | None = None,
) -> list[Body]:
    """Return the entries of one attempt at an answer."""
    response, item, text = ResponseId(response_id), ItemId(f"item-{response_id}"), "".join(words)
    said = Text(text if final is None else final)
    message = Message(item, "assistant", (said,), "completed" if status == "completed" else "incomplete")
    request = ResponseRequest(metadata={"turn": TURN})
    return [
        *([Submitted(CreateResponse(response, request), ChainId("c"))] if attempt == 1 else []),
        ResponseStarted(response, request, turn=1, attempt=attempt),
        OutputStarted(response, item, previous is not None, previous, 1),
        *([Deltas(response, item, list(words), 2)] if words else []),
        OutputDone(response, message, previous is not None, previous, 9),
        ResponseDone(response, status, 10, (message,), metadata=request.metadata),
    ]
