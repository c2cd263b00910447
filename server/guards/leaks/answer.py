"""One answer, filtered: its text, its reasoning, each call's names and arguments, each for itself. No I/O.

What comes in large pieces is looked at in portions, between which others may have their turn.

An output that is followed by another kind has ended, and is let go of then, in the same places where
:mod:`unbroken.sessions.outputs` ends it; calls are let go of when they are run, or at the end.

A **resumed** answer is read again from its beginning, and filtered again: the same text gives the same
text, whoever filters it and however it is cut. What the log holds of it is checked, and left out. So no
state of the filter has to come along, and an offset always counts characters that have left.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from msgspec import structs

from unbroken.server.guards.leaks.arguments import ArgumentsFilter, VerbatimInArguments
from unbroken.server.guards.leaks.canary import SpelledOut
from unbroken.server.guards.leaks.entities import Actions, Entity
from unbroken.server.guards.leaks.portions import portions
from unbroken.server.guards.leaks.resumed import AlreadySaid, AnswerChanged
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.stream import LeakFilter, Placeholder
from unbroken.server.guards.leaks.verbatim import Instructions, Verbatim
from unbroken.sessions.ids import ItemId, new_call_id
from unbroken.sessions.items import FunctionTool, ToolError
from unbroken.sessions.responder import (
    AsksApproval,
    Finish,
    FunctionCallPiece,
    Notes,
    Output,
    ReasoningPiece,
    Resumption,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
)

__all__ = ["AnswerChanged", "AnswerFilter", "Watch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is watched for in one answer, and what is done about it."""

    scanner: Scanner
    actions: Actions
    placeholder: Placeholder
    canaries: tuple[str, ...] = ()
    instructions: Instructions | None = None
    tools: tuple[FunctionTool, ...] = ()
    """The client's, whose names say nothing: the client gave them."""
    tool_outputs: bool = False
    """Whether what the server's own tools return is filtered."""
    is_shadow: bool = False
    """Whether everything passes as it is: what is found is only counted."""


class _Stream:
    """One text: looked for what has a form, and then for the instructions."""

    def __init__(self, watch: Watch, known: str = "", *, in_json: bool = False) -> None:
        spelled = SpelledOut(watch.canaries) if watch.canaries else None
        form = ArgumentsFilter if in_json else LeakFilter
        self.form: LeakFilter = form(watch.scanner, watch.actions, watch.placeholder, spelled=spelled)
        action = watch.actions.get("instructions", "ignore")
        self.verbatim: Verbatim | None = None
        if watch.instructions and action != "ignore":
            verbatim = VerbatimInArguments if in_json else Verbatim
            self.verbatim = verbatim(watch.instructions, action, watch.placeholder("instructions", ""))
        self._is_shadow = watch.is_shadow
        self._known = AlreadySaid(known)
        self._noted = 0  # findings that have been told of

    def has_news(self) -> bool:
        """Return whether something was found since the last time."""
        found = self.form.found
        count = found.total() if found else 0
        if self.verbatim is not None:
            count += self.verbatim.found
        if count == self._noted:
            return False
        self._noted = count
        return True

    @property
    def is_blocked(self) -> bool:
        if self._is_shadow:
            return False
        return self.form.is_blocked or (self.verbatim is not None and self.verbatim.is_blocked)

    @property
    def is_known(self) -> bool:
        """Whether something has yet to be said that the log holds."""
        return bool(self._known.left)

    def feed(self, piece: str) -> str:
        """Take in a piece, and return what leaves.

        Raises:
            AnswerChanged: It isn't what left before.

        """
        released = self.form.feed(piece)
        if self.verbatim is not None and released:
            released = self.verbatim.feed(released)
        if self._is_shadow:
            released = piece
        return self._known.new(released) if self._known.left else released

    def flush(self) -> str:
        """Return what is held."""
        if self._is_shadow:
            self.form.flush()
            return ""
        released = self.form.flush()
        if self.verbatim is not None:
            released = self.verbatim.feed(released) + self.verbatim.flush()
        return self._known.new(released) if self._known.left else released

    def show(self) -> str:
        """Return of what is held what may leave early."""
        if self._is_shadow or self._known.left:
            return ""
        released = self.form.show()
        return released if self.verbatim is None else self.verbatim.feed(released)


class AnswerFilter:
    """Filters one answer. Call :meth:`take` with each output, and :meth:`finish` at the end.

    Args:
        watch: What is watched for.
        resumption: What the log holds of the answer, if it is resumed.

    """

    def __init__(self, watch: Watch, resumption: Resumption | None = None) -> None:
        self._watch = watch
        self._known = resumption
        self._text: _Stream | None = None
        self._reasoning: _Stream | None = None
        self._calls: dict[int, _Stream] = {}
        self._tools: dict[ItemId, _Stream] = {}
        self._ended: Counter[tuple[Entity, str]] = Counter()
        self._told: dict[str, dict[str, int]] = {}
        self.is_blocked = False
        """Whether nothing may follow what was returned last."""
        if resumption is not None:
            self._text = self._stream(resumption.text)

    @property
    def found(self) -> Counter[tuple[Entity, str]]:
        """How much was found, by kind and by what was done."""
        found = self._ended.copy()
        for stream in self._streams():
            _add(found, stream, self._watch.actions)
        return found

    def take(self, output: Output) -> list[Output]:
        """Take in an output, and return what leaves.

        Raises:
            AnswerChanged: A resumed answer isn't what it was.

        """
        if type(output) is str:  # the usual case
            if self._reasoning is not None:
                ended = list(self._end_reasoning())
                return ended if self.is_blocked else [*ended, *self._say(output)]
            return self._say(output)
        return [each for each in self._take(output) if each is not None]

    def steps(self, output: Output) -> Iterator[Output | None]:
        """Take in a large output, and yield what leaves; None, where others may have their turn.

        In shadow it leaves first, as it is. Raises what :meth:`take` does.
        """
        if self._watch.is_shadow:
            yield output
            yield from (None for each in self._take(output) if each is None)
        else:
            yield from self._take(output)

    def cut(self) -> list[Output]:
        """Return what is held where the answer was cut short. Of a resumed one, nothing that isn't new."""
        try:
            return [*self._end_all(), *self._news()]
        except AnswerChanged:
            return []

    def finish(self) -> list[Output]:
        """Return what is held at the end.

        Raises:
            AnswerChanged: A resumed answer isn't what it was: it is over before what the log holds of it.

        """
        left = list(self._end_all())
        if any(stream.is_known for stream in self._streams()):
            raise AnswerChanged
        return [*left, *self._news()]

    def show(self) -> list[Output]:
        """Return what may leave though nothing has come for a while."""
        if self._text is None:
            return []
        shown = self._text.show()
        return [shown] if shown else []

    def _say(self, text: str) -> list[Output]:
        stream = self._text
        if stream is None:
            stream = self._text = self._stream()
        released = stream.feed(text)
        if stream.has_news():
            self.is_blocked = self.is_blocked or stream.is_blocked
            return [released, *self._news()]
        return [released]

    def _take(self, output: Output) -> Iterator[Output | None]:
        match output:
            case str():
                yield from self._end_reasoning()
                if self.is_blocked:
                    return
                for portion in portions(output):
                    yield from self._say(portion)
                    if self.is_blocked:
                        return
                    yield None
            case FunctionCallPiece():
                call = self._calls.get(output.index)
                head = FunctionCallPiece(output.index)  # nobody reads what later pieces are called
                if call is None:
                    yield from self._end_said()
                    if not self.is_blocked:
                        head = yield from self._head(output)
                        yield from self._news()
                    if self.is_blocked:
                        return
                    call = self._calls[output.index] = self._stream(
                        self._known_call(output.index), in_json=True
                    )
                elif self._watch.is_shadow:
                    head = output
                for number, portion in enumerate(portions(output.arguments)):
                    piece = FunctionCallPiece(output.index) if number else head
                    yield replace(piece, arguments=call.feed(portion))
                    yield from self._checked(call)
                    if self.is_blocked:
                        return
                    yield None
            case ToolCallPiece():
                tool = self._tools.get(output.item_id)
                if tool is None:
                    yield from self._end_said()
                    if self.is_blocked:
                        return
                    tool = self._tools[output.item_id] = self._stream(in_json=True)
                for number, portion in enumerate(portions(output.arguments)):
                    part = ToolCallPiece(output.item_id) if number else output
                    yield replace(part, arguments=tool.feed(portion))
                    yield from self._checked(tool)
                    if self.is_blocked:
                        return
                    yield None
            case ReasoningPiece():
                if self._reasoning is None:
                    yield from self._end_said()
                    if self.is_blocked:
                        return
                    self._reasoning = self._stream()
                for portion in portions(output.text):
                    yield ReasoningPiece(self._reasoning.feed(portion))
                    yield from self._checked(self._reasoning)
                    if self.is_blocked:
                        return
                    yield None
            case RunsTools():
                for item_id in output.item_ids:
                    yield from self._end_tool(item_id)
                if not self.is_blocked:  # what was found in its arguments says that it isn't run
                    yield output
            case ToolEnded():
                yield from self._end_tool(output.item_id)
                yield (yield from self._returned(output)) if self._watch.tool_outputs else output
                yield from self._news()
            case AsksApproval():
                yield from self._end_said()
                if self.is_blocked:
                    return
                arguments = yield from self._once(output.head.arguments, in_json=True)
                if not self.is_blocked:  # nobody is asked about half of them
                    yield replace(output, head=structs.replace(output.head, arguments=arguments))
                yield from self._news()
            case Finish():
                yield from self._end_all()
                yield from self._news()
                if not self.is_blocked:
                    yield output
            case _:
                yield output

    def _head(self, piece: FunctionCallPiece) -> Generator[None, None, FunctionCallPiece]:
        """Return the first *piece* of a call, called as it may be."""
        name, call_id, watch = piece.name, piece.call_id, self._watch
        if name and all(name != tool.name for tool in watch.tools):
            name = yield from self._once(name, watch=replace(watch, placeholder=_in_names(watch.placeholder)))
            if name != piece.name:  # one that was too long before stays so, and fails
                name = name[: max(_LONGEST_NAME, len(piece.name))]
        if call_id and not self.is_blocked:
            looked_at = yield from self._once(call_id, watch=replace(watch, actions=_in_ids(watch.actions)))
            if looked_at != call_id:
                call_id = new_call_id()
        return replace(piece, name=name, call_id=call_id)

    def _returned(self, ended: ToolEnded) -> Generator[None, None, ToolEnded]:
        error = ended.error
        return ToolEnded(
            ended.item_id,
            None if ended.output is None else (yield from self._once(ended.output)),
            None if error is None else ToolError((yield from self._once(error.message))),
        )

    def _once(
        self, text: str, *, in_json: bool = False, watch: Watch | None = None
    ) -> Generator[None, None, str]:
        stream = _Stream(watch or self._watch, in_json=in_json)
        released: list[str] = []
        for number, portion in enumerate(portions(text)):
            if number:
                yield None
            released.append(stream.feed(portion))
        released.append(stream.flush())
        self._close(stream)
        return "".join(released)

    # Ends.

    def _end_said(self) -> Iterator[Output]:
        """End the message, or the thought: another output follows."""
        yield from self._end_reasoning()
        if self._text is not None:
            text, self._text = self._text, None
            if (released := text.flush()) or text.is_blocked:
                yield released
            if text.is_known:
                raise AnswerChanged
            self._close(text)
            yield from self._news()

    def _end_reasoning(self) -> Iterator[Output]:
        if self._reasoning is not None:
            reasoning, self._reasoning = self._reasoning, None
            if released := reasoning.flush():
                yield ReasoningPiece(released)
            self._close(reasoning)
            yield from self._news()

    def _end_tool(self, item_id: ItemId) -> Iterator[Output]:
        if (tool := self._tools.pop(item_id, None)) is not None:
            if released := tool.flush():
                yield ToolCallPiece(item_id, released)
            self._close(tool)
            yield from self._news()

    def _end_all(self) -> Iterator[Output]:
        yield from self._end_said()
        for item_id in list(self._tools):
            yield from self._end_tool(item_id)
        for index, call in self._calls.items():
            if released := call.flush():
                yield FunctionCallPiece(index, released)
            yield from self._checked(call)

    # How.

    def _stream(self, known: str = "", *, in_json: bool = False) -> _Stream:
        return _Stream(self._watch, known, in_json=in_json)

    def _known_call(self, index: int) -> str:
        known = self._known
        return known.arguments[index] if known is not None and index < len(known.arguments) else ""

    def _streams(self) -> Iterator[_Stream]:
        for stream in (self._text, self._reasoning, *self._calls.values(), *self._tools.values()):
            if stream is not None:
                yield stream

    def _close(self, stream: _Stream) -> None:
        _add(self._ended, stream, self._watch.actions)
        self.is_blocked = self.is_blocked or stream.is_blocked

    def _checked(self, stream: _Stream) -> Iterator[Output]:
        if stream.has_news():
            self.is_blocked = self.is_blocked or stream.is_blocked
            yield from self._news()

    def _news(self) -> list[Output]:
        """Return what the response's end will say, if that has changed: how much of what was kept back."""
        if self._watch.is_shadow:
            return []
        notes: dict[str, dict[str, int]] = {}
        for (entity, action), count in sorted(self.found.items()):
            if action in _TOLD:
                notes.setdefault(_TOLD[action], {})[entity] = count
        if notes == self._told:
            return []
        self._told = notes
        return [Notes(dict(notes.items()))]


_LONGEST_NAME: Final = 64
"""Characters of a function's name."""

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
"""What no function's name has."""

_NEVER_BY_LOT: Final[frozenset[Entity]] = frozenset({"canary", "instructions"})
"""What nothing that is drawn by lot looks like."""


def _in_names(placeholder: Placeholder) -> Placeholder:
    """Return *placeholder* for names of functions: ``card_k3x7q``."""
    return lambda entity, known_by: _NO_NAME.sub("_", placeholder(entity, known_by)).strip("_")


def _in_ids(actions: Actions) -> Actions:
    """Return the *actions* for names of calls. They are drawn by lot, and one looks like a card's number now
    and then, which is no reason to end an answer: another is as good.
    """
    return {
        entity: "redact" if action == "block" and entity not in _NEVER_BY_LOT else action
        for entity, action in actions.items()
    }


_TOLD: Final[dict[str, Literal["redacted", "blocked"]]] = {"redact": "redacted", "block": "blocked"}


def _add(found: Counter[tuple[Entity, str]], stream: _Stream, actions: Actions) -> None:
    found.update(stream.form.found)
    if stream.verbatim is not None and stream.verbatim.found:
        found["instructions", actions["instructions"]] += stream.verbatim.found
