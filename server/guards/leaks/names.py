"""Names and addresses in what one answer says: read by a model, sentence by sentence, before they leave.

This stands behind the filter of what has a form, and reads what that lets go of. No clock: whoever
calls it says when time is up. Texts are read in the order in which they come, one sentence at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import structs

from unbroken.server.guards.leaks.addresses import addresses
from unbroken.server.guards.leaks.entities import Actions, Entity, Match, merged
from unbroken.server.guards.leaks.json_strings import JsonStrings
from unbroken.server.guards.leaks.people import is_worth_reading, people
from unbroken.server.guards.leaks.portions import portions
from unbroken.server.guards.leaks.recogniser import NamesUnread, Recogniser, Unread
from unbroken.server.guards.leaks.resumed import AlreadySaid, AnswerChanged
from unbroken.server.guards.leaks.sentences import Passage, Sentences
from unbroken.server.guards.leaks.stream import Placeholder
from unbroken.sessions.ids import ItemId, PrincipalId
from unbroken.sessions.items import Note, ToolError
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

__all__ = ["READ", "NameReading", "NamesIn", "acts_on_names", "looks_for_names"]

READ: Final[tuple[Entity, ...]] = ("name", "address")
"""What a model is needed for."""

_TOLD: Final = {"redact": "redacted", "block": "blocked"}

_MOST_WAITING: Final = 64
"""Sentences of an answer that wait for being read, where they are only counted."""


def looks_for_names(actions: Actions) -> bool:
    """Return whether names or addresses are looked for at all."""
    return any(actions.get(entity, "ignore") != "ignore" for entity in READ)


def acts_on_names(actions: Actions) -> bool:
    """Return whether one may be kept from leaving. Else nothing has to wait."""
    return any(actions.get(entity) in _TOLD for entity in READ)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameReading:
    """What reads, and what becomes of what it couldn't read."""

    recogniser: Recogniser
    hold: float = 2.0
    """Seconds that the beginning of a sentence waits for its end."""
    fails_closed: bool = True
    """Whether an answer fails of a sentence that couldn't be read, rather than say it."""
    unread: Callable[[Unread], None] = lambda _: None
    """Told of each sentence that wasn't read."""


@dataclass(slots=True)
class _Part:
    """One text: the message, a thought, the arguments of a call."""

    wrap: Callable[[str], Output]
    cutter: Sentences | JsonStrings = field(default_factory=Sentences)
    said: AlreadySaid = field(default_factory=AlreadySaid)
    waiting: deque[Passage] = field(default_factory=deque)
    read: list[str] = field(default_factory=list)


class NamesIn:
    """Reads one answer. What leaves is put to :attr:`ready`, in order. A call that is cancelled loses nothing
    that was held: another one goes on with it.

    Args:
        reading: What reads.
        actions: What is done about what is found.
        placeholder: Makes what stands in its place.
        principal: Whose answer it is: they take turns.
        is_held: Whether anything waits for being read. Else it is only counted, by :meth:`read_aside`, and
            nothing becomes ready.
        gives_way: Whether a model that has much to do isn't asked. It never is for what isn't held.
        tool_outputs: Whether what the server's own tools return is read.
        resumption: What the log holds of the answer, if it is resumed.

    """

    def __init__(
        self,
        reading: NameReading,
        actions: Actions,
        placeholder: Placeholder,
        *,
        principal: PrincipalId,
        is_held: bool = True,
        gives_way: bool = False,
        tool_outputs: bool = False,
        resumption: Resumption | None = None,
    ) -> None:
        self._reading = reading
        self._actions = actions
        self._placeholder = placeholder
        self._principal = principal
        self._is_held = is_held
        self._gives_way = gives_way or not is_held
        self._tool_outputs = tool_outputs
        self._known = resumption
        self._text: _Part | None = None
        self._thought: _Part | None = None
        self._calls: dict[int, _Part] = {}
        self._tools: dict[ItemId, _Part] = {}
        self._noted: Mapping[str, Note] = {}  # what the filter before this one has told
        self._told: Mapping[str, Note] = {}
        self.waiting: deque[Passage] = deque()
        """What is only counted, and has yet to be."""
        self.ready: deque[Output] = deque()
        self.found: Counter[tuple[Entity, str]] = Counter()
        """How much was found, by kind and by what was done."""
        self.is_blocked = False
        """Whether nothing may follow what is ready."""
        self.has_taken = False
        """Whether a call of :meth:`take` that was cancelled had taken its output in. Else give it again."""
        self.sentences = 0
        """How many have been read, or parts of such."""
        if resumption is not None:
            self._text = _Part(str, said=AlreadySaid(resumption.text))

    @property
    def held(self) -> int:
        """How many characters of the message and of thoughts are held."""
        parts = [part for part in (self._text, self._thought) if part is not None]
        return sum(part.cutter.held + sum(len(each.text) for each in part.waiting) for part in parts)

    async def take(self, output: Output) -> None:
        """Take in an output.

        Raises:
            AnswerChanged: A resumed answer isn't what it was.
            NamesUnread: A sentence couldn't be read, and this fails closed.

        """
        self.has_taken = False
        match output:
            case str():
                await self._end_thought()
                if self._text is None:
                    self._text = _Part(str)
                await self._put(self._text, output)
            case ReasoningPiece():
                if self._thought is None:
                    await self._end_said()
                    self._thought = _Part(ReasoningPiece)
                await self._put(self._thought, output.text)
            case FunctionCallPiece():
                await self._take_call(output)
            case ToolCallPiece():
                await self._take_tool(output)
            case RunsTools():
                for item_id in output.item_ids:
                    await self._end_tool(item_id)
                self._pass(output)
            case ToolEnded():
                await self._end_tool(output.item_id)
                self._pass(await self._returned(output) if self._tool_outputs else output)
            case AsksApproval():
                await self._end_said()
                arguments = await self._once(output.head.arguments, JsonStrings())
                self._pass(replace(output, head=structs.replace(output.head, arguments=arguments)))
            case Finish():
                await self._end_all()
                self._pass(output)
            case Notes():
                self._noted = output.values
            case _:
                self._pass(output)
        self._tell()

    async def cut(self) -> None:
        """Make ready what may leave of an unfinished sentence. Raises what :meth:`take` does."""
        for part in (self._text, self._thought):
            if part is not None:
                part.waiting += part.cutter.cut()
                if text := await self._read(part):
                    self._release(part, text)
        self._tell()

    async def finish(self, *, is_whole: bool = True) -> None:
        """Make ready what is held at the end. Raises what :meth:`take` does.

        Where it *is_whole*, a resumed answer has to have said all that the log holds of it.
        """
        await self._end_all()
        if is_whole and any(part.said.left for part in self._calls.values()):
            raise AnswerChanged
        self._tell()

    def let_go(self) -> None:
        """Make ready what has been read where reading was broken off."""
        for part in (self._thought, self._text, *self._tools.values(), *self._calls.values()):
            if part is not None and part.read and not part.said.left:
                self._release(part, "".join(part.read))
                part.read.clear()

    async def read_aside(self) -> None:
        """Read what is only counted, until nothing of it waits. Cancelled, it can be called again."""
        while self.waiting:
            await self._read_passage(self.waiting[0], [])
            self.waiting.popleft()

    def skip(self) -> None:
        """Count what is only counted, and still waits, as unread."""
        while self.waiting:
            self.waiting.popleft()
            self._reading.unread("late")

    # Parts.

    async def _take_call(self, output: FunctionCallPiece) -> None:
        index = output.index
        call = self._calls.get(index)
        if call is None:
            await self._end_said()
            known = self._known
            said = known.arguments[index] if known is not None and index < len(known.arguments) else ""
            call = self._calls[index] = _Part(
                lambda text: FunctionCallPiece(index, text), JsonStrings(), AlreadySaid(said)
            )
            self._pass(replace(output, arguments=""))
        await self._put(call, output.arguments)

    async def _take_tool(self, output: ToolCallPiece) -> None:
        item_id = output.item_id
        tool = self._tools.get(item_id)
        if tool is None:
            await self._end_said()
            tool = self._tools[item_id] = _Part(lambda text: ToolCallPiece(item_id, text), JsonStrings())
            self._pass(replace(output, arguments=""))
        await self._put(tool, output.arguments)

    async def _put(self, part: _Part, text: str) -> None:
        if self.is_blocked:
            return
        self.has_taken = True
        if self._is_held:  # which comes in small pieces, and nothing of it is to be lost
            part.waiting += part.cutter.feed(text)
            self._release(part, await self._read(part))
            return
        for number, portion in enumerate(portions(text)):
            if number:
                await asyncio.sleep(0)
            part.waiting += part.cutter.feed(portion)
            await self._read(part)

    async def _end(self, part: _Part) -> None:
        part.waiting += part.cutter.flush()
        if text := await self._read(part):
            self._release(part, text)

    async def _end_thought(self) -> None:
        if self._thought is not None:
            await self._end(self._thought)
            self._thought = None

    async def _end_said(self) -> None:
        await self._end_thought()
        if self._text is not None:
            await self._end(self._text)
            said, self._text = self._text.said, None
            if said.left:
                raise AnswerChanged

    async def _end_tool(self, item_id: ItemId) -> None:
        if (tool := self._tools.get(item_id)) is not None:
            await self._end(tool)
            del self._tools[item_id]

    async def _end_all(self) -> None:
        await self._end_said()
        for item_id in list(self._tools):
            await self._end_tool(item_id)
        for call in self._calls.values():
            await self._end(call)

    async def _returned(self, ended: ToolEnded) -> ToolEnded:
        error = ended.error
        return ToolEnded(
            ended.item_id,
            None if ended.output is None else await self._once(ended.output, Sentences()),
            None if error is None else ToolError(await self._once(error.message, Sentences())),
        )

    async def _once(self, text: str, cutter: Sentences | JsonStrings) -> str:
        part = _Part(str, cutter)
        released: list[str] = []
        for portion in portions(text):
            part.waiting += cutter.feed(portion)
            released.append(await self._read(part))
            await asyncio.sleep(0)
        part.waiting += cutter.flush()
        return "".join([*released, await self._read(part)])

    def _release(self, part: _Part, text: str) -> None:
        if self._is_held:
            self.ready.append(part.wrap(text))

    def _pass(self, output: Output) -> None:
        if self._is_held and not self.is_blocked:
            self.ready.append(output)

    # Sentences.

    async def _read(self, part: _Part) -> str:
        """Return what leaves of what waits in *part*. Cancelled, it can be called again."""
        if not self._is_held:
            self._set_aside(part.waiting)
            return ""
        while part.waiting and not self.is_blocked:
            await self._read_passage(part.waiting[0], part.read)  # which nothing cuts in two
            part.waiting.popleft()
        released = "".join(part.read)
        part.read.clear()
        return part.said.new(released) if part.said.left else released

    def _set_aside(self, passages: deque[Passage]) -> None:
        """Have *passages* be read when there is time for it, those for which there is room."""
        while passages:
            passage = passages.popleft()
            if passage.context is None or not is_worth_reading(passage.text):
                continue
            if len(self.waiting) < _MOST_WAITING:
                self.waiting.append(passage)
            else:
                self._reading.unread("busy")

    async def _read_passage(self, passage: Passage, out: list[str]) -> None:
        matches = await self._matches(passage)
        self.sentences += passage.context is not None
        position = 0
        for match in matches:
            action = self._actions.get(match.entity, "ignore")
            self.found[match.entity, action] += 1
            if action == "flag":
                continue
            out.append(passage.part(position, match.start))
            position = match.end
            if action == "block":
                self.is_blocked = self._is_held
                if self.is_blocked:
                    return
            known_by = "".join(filter(str.isalnum, passage.text[match.start : match.end])).casefold()
            out.append(self._placeholder(match.entity, known_by))
        out.append(passage.part(position, len(passage.text)))

    async def _matches(self, passage: Passage) -> list[Match]:
        if passage.context is None or not is_worth_reading(passage.text):
            return []
        try:
            if self._gives_way and self._reading.recogniser.is_busy:
                raise NamesUnread("busy")  # who has to wait for it comes first
            return await self._found(passage.context, passage.text)
        except NamesUnread as exc:
            self._reading.unread(exc.reason)
            if self._is_held and self._reading.fails_closed:
                raise
            return []

    async def _found(self, context: str, text: str) -> list[Match]:
        whole, start = context + text, len(context)
        labels = await self._reading.recogniser.labels(whole, self._principal)
        found = [Match(*place, "address") for place in addresses(whole, labels)]
        found += [
            Match(*place, "name")
            for place in people(whole, labels)
            if not any(place[0] < each.end and each.start < place[1] for each in found)
        ]
        wanted = [
            match._replace(start=max(match.start - start, 0), end=match.end - start)
            for match in found
            if match.end > start and self._actions.get(match.entity, "ignore") != "ignore"
        ]
        return merged(wanted, self._actions)

    def _tell(self) -> None:
        """Make ready what the response's end will say, if that has changed."""
        if not self._is_held:
            return
        notes: dict[str, Note] = dict(self._noted)
        for (entity, action), count in sorted(self.found.items()):
            if action in _TOLD:
                before = notes.get(_TOLD[action])
                notes[_TOLD[action]] = {**(before if isinstance(before, dict) else {}), entity: count}
        if notes != self._told:
            self._told = notes
            self.ready.append(Notes(notes))
