"""What a responder has produced and nobody has taken yet: the outputs of one response, in order.

Text, reasoning and calls come in sequence; each change of kind begins another
output. One that is followed by another has ended, but for calls: a client's
function call ends with its response, since a call of one that was cut short is
not to be acted on, and a tool's call ends with its result.

No tasks, no clock. The bounds on an answer are kept here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

from unbroken.sessions.errors import ResponderError
from unbroken.sessions.ids import ItemId, new_call_id, new_item_id
from unbroken.sessions.items import CallHead, Head, ReasoningHead
from unbroken.sessions.responder import (
    AsksApproval,
    FunctionCallPiece,
    ReasoningPiece,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
)
from unbroken.sessions.response import ResponseOutput

__all__ = ["Outputs", "Taken", "cleaned"]

_OUTPUT_COST: Final = 512
"""Bytes of the answer that an output counts for beside its text: a bound on how many there are."""

_FUNCTION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CALL_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")

_REASONING: Final = ReasoningHead()


class Taken(Struct, frozen=True):
    """What is new of one output, in this order: that it began, pieces, that it is run, that it ended."""

    index: int
    item_id: ItemId
    head: Head | None
    """None: it is a message."""
    pieces: list[str]
    is_run: bool = False
    is_ended: bool = False
    result: ToolEnded | None = None


@dataclass(slots=True)
class _Output:
    """An output, and what is new of it."""

    index: int
    item_id: ItemId
    head: Head | None
    pieces: list[str] = field(default_factory=list)
    surrogate: str = ""  # the first half of a pair, until the second comes
    is_empty: bool = True  # whether it is anything but a message, and nothing has come of it yet
    is_run: bool = False
    is_ended: bool = False
    result: ToolEnded | None = None
    is_new: bool = False  # whether it is among those with news

    def take(self) -> Taken:
        taken = Taken(
            self.index, self.item_id, self.head, self.pieces, self.is_run, self.is_ended, self.result
        )
        self.pieces = []
        self.is_run = self.is_new = False
        return taken


class Outputs:
    """The outputs of one response.

    Args:
        room: UTF-8 bytes after which the answer is cut off.
        call_ids: Names that no new function call gets.
        known: What an earlier owner has written of the response, to go on with: see
            :func:`~unbroken.sessions.recovery.resumption_of` for what that may be.

    """

    def __init__(self, room: int, call_ids: Iterable[str] = (), known: Sequence[ResponseOutput] = ()) -> None:
        self.text: list[str] = []
        """The pieces of the message that is being said which haven't been taken."""
        self.others = 0
        """What else hasn't been taken, in pieces; the beginning and the end of an output count as one."""
        self._room = room
        self._call_ids = set(call_ids)
        self._count = 0
        self._message: _Output | None = None  # the one that is being said
        self._reasoning: _Output | None = None
        self._calls: dict[int, _Output] = {}  # the client's, by their number
        self._tools: dict[ItemId, _Output] = {}  # calls of tools that haven't ended
        self._news: list[_Output] = []
        for output in known:
            self._know(output)

    def _know(self, output: ResponseOutput) -> None:
        known = _Output(self._count, output.item_id, output.head)
        self._count += 1
        text = output.text
        self._room -= len(text.encode()) + (_OUTPUT_COST if known.index else 0)
        known.is_empty = not text
        if output.done is None and output.head is None:
            self._message, self.text = known, known.pieces
        elif output.done is None:
            self._calls[len(self._calls)] = known

    def __bool__(self) -> bool:
        """Whether there is anything to take."""
        return bool(self.text or self.others)

    def take(self) -> list[Taken]:
        """Return what is new of each output that has news, in the order in which they began."""
        message, text = self._message, self.text
        if not self.others:  # the usual case
            if not text or message is None:
                return []
            self.text = message.pieces = []
            return [Taken(message.index, message.item_id, message.head, text)]
        if text and message is not None:
            self._tell(message)
        news, self._news, self.others = self._news, [], 0
        news.sort(key=lambda output: output.index)
        all_taken = [output.take() for output in news]
        self.text = [] if message is None else message.pieces
        return all_taken

    # Taking in. False: it reached beyond the limit, and only what fits was taken.

    def add_text(self, text: str) -> bool:
        """Take in a piece of text."""
        message = self._message
        if message is None:
            return self._begin_text(text)
        if text.isascii() and not message.surrogate:
            size = len(text)
            if size <= self._room:  # the usual case
                self._room -= size
                self.text.append(text)
                return True
        text, message.surrogate = _join_surrogates(message.surrogate + text)
        return self._append(text, message)

    def _begin_text(self, text: str) -> bool:
        self._end_reasoning()
        if self._count and not self._make_room():
            return False
        self._message = message = self._begin(None)
        self.text = message.pieces
        text, message.surrogate = _join_surrogates(text)
        return self._append(text, message)

    def add(self, piece: FunctionCallPiece | ReasoningPiece | ToolCallPiece) -> bool:
        """Take in a piece of anything but text."""
        match piece:
            case FunctionCallPiece():
                call = self._calls.get(piece.index)
                if call is None:
                    head = self._head_of(piece)
                    if not self._make_room():
                        return False
                    self._end_said()
                    call = self._calls[piece.index] = self._begin(head)
                return self._add(piece.arguments, call)
            case ToolCallPiece():
                tool = self._tools.get(piece.item_id)
                if tool is None:
                    if piece.head is None:
                        raise ValueError("the first piece of a tool's call says which tool it is")
                    if not self._make_room():
                        return False
                    self._end_said()
                    tool = self._tools[piece.item_id] = self._begin(piece.head, piece.item_id)
                return self._add(piece.arguments, tool)
            case ReasoningPiece():
                reasoning = self._reasoning
                if reasoning is None:
                    if not self._make_room():
                        return False
                    self._end_said()
                    reasoning = self._reasoning = self._begin(_REASONING)
                return self._add(piece.text, reasoning)

    def ask(self, asked: AsksApproval) -> bool:
        """Take in a call that waits for its approval."""
        self._room -= len(asked.head.arguments.encode())
        if not self._make_room():
            return False
        self._end_said()
        self._end(self._begin(asked.head, asked.item_id))
        return True

    def run(self, runs: RunsTools) -> None:
        """Note that tools are about to be run.

        Raises:
            KeyError: There is no such call, or it has ended.

        """
        for item_id in runs.item_ids:
            tool = self._tools[item_id]
            self._complete_call(tool)
            tool.is_run = True
            self._tell(tool)

    def end_tool(self, ended: ToolEnded) -> None:
        """Note what came of a call.

        Raises:
            KeyError: There is no such call, or it has ended.

        """
        tool = self._tools.pop(ended.item_id)
        self._complete_call(tool)
        tool.result = ended
        self._end(tool)

    def complete(self, *, is_whole: bool) -> None:
        """Note the end. Where the second half of a pair never came, there is a replacement.

        If the answer *is_whole*, function calls without arguments get empty ones, as tools' calls did
        before they ran: clients read them as JSON, and some models say nothing for none.
        """
        for output in (self._message, self._reasoning, *self._calls.values(), *self._tools.values()):
            if output is not None:
                self._complete(output)
        if is_whole:
            for call in self._calls.values():
                self._complete_call(call)

    # How.

    def _begin(self, head: Head | None, item_id: ItemId | None = None) -> _Output:
        output = _Output(self._count, item_id or new_item_id(), head)
        self._count += 1
        if head is not None or output.index:
            self._tell(output)
        return output

    def _make_room(self) -> bool:
        """Count another output; False: there is no room for it."""
        if self._room < _OUTPUT_COST:
            return False
        self._room -= _OUTPUT_COST
        return True

    def _end_said(self) -> None:
        """End what is being said or thought: something else follows."""
        self._end_reasoning()
        if (message := self._message) is not None:
            self._end(message)
            self._message = None
            self.text = []

    def _end_reasoning(self) -> None:
        if (reasoning := self._reasoning) is not None:
            self._end(reasoning)
            self._reasoning = None

    def _end(self, output: _Output) -> None:
        self._complete(output)
        output.is_ended = True
        self._tell(output)

    def _tell(self, output: _Output) -> None:
        self.others += 1
        if not output.is_new:
            output.is_new = True
            self._news.append(output)

    def _complete(self, output: _Output) -> None:
        if output.surrogate:
            output.surrogate = ""
            self._append("\ufffd", output)

    def _complete_call(self, call: _Output) -> None:
        self._complete(call)
        if call.is_empty:
            self._append("{}", call)

    def _add(self, text: str, output: _Output) -> bool:
        text, output.surrogate = _join_surrogates(output.surrogate + text)
        return self._append(text, output)

    def _append(self, text: str, output: _Output) -> bool:
        """Add *text* to an output, as far as there is room; False: it was too much."""
        if not text:
            return True
        encoded = text.encode()
        room = self._room
        self._room -= len(encoded)
        if len(encoded) > room:
            text = encoded[: max(room, 0)].decode("utf-8", "ignore")
        if text:
            output.pieces.append(text)
            if output.head is not None:
                output.is_empty = False
                self._tell(output)
        return len(encoded) <= room

    def _head_of(self, piece: FunctionCallPiece) -> CallHead:
        if _FUNCTION_NAME.fullmatch(piece.name) is None:
            message = "The agent called a function without a name, or by one that no function can have."
            raise ResponderError("agent_error", message)
        call_id = piece.call_id
        if _CALL_ID.fullmatch(call_id) is None or call_id in self._call_ids:
            call_id = new_call_id()  # some upstreams number their calls anew in each answer
        self._call_ids.add(call_id)
        return CallHead(call_id, piece.name)


def _join_surrogates(text: str) -> tuple[str, str]:
    """Return *text* with surrogate pairs joined and lone ones replaced, and a first half at its end apart.

    Some upstreams cut an emoji's two UTF-16 halves apart, each escaped in a JSON string of its own.
    """
    if text.isascii():
        return text, ""
    rest = ""
    if "\ud800" <= text[-1] <= "\udbff":
        text, rest = text[:-1], text[-1]
    return cleaned(text), rest


def cleaned(text: str) -> str:
    """Return *text* with surrogate pairs joined and lone ones replaced: it can be written anywhere."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
