"""Names and addresses in what one answer says: read by a model, sentence by sentence, before they leave.

This stands behind the filter of what has a form, and reads what that lets go of. No clock: whoever
calls it says when time is up. Texts are read in the order in which they come, one sentence at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import structs

from unbroken.server.guards.leaks.entities import Actions
from unbroken.server.guards.leaks.json_strings import JsonStrings
from unbroken.server.guards.leaks.name_reading import NameReader, NameReading, NamesAside
from unbroken.server.guards.leaks.portions import portions
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

__all__ = ["NamesIn"]


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
        is_held: Whether anything waits for being read. Else it is only counted, :attr:`aside`, and nothing
            becomes ready.
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
        self.reader: Final = NameReader(
            reading, actions, placeholder, principal=principal, is_held=is_held, gives_way=gives_way
        )
        self.aside: Final = NamesAside(self.reader)
        """What is only counted, and has yet to be."""
        self._is_held = is_held
        self._tool_outputs = tool_outputs
        self._known = resumption
        self._text: _Part | None = None
        self._thought: _Part | None = None
        self._calls: dict[int, _Part] = {}
        self._tools: dict[ItemId, _Part] = {}
        self._noted: Mapping[str, Note] = {}  # what the filter before this one has told
        self._told: Mapping[str, Note] = {}
        self.ready: deque[Output] = deque()
        self.has_taken = False
        """Whether a call of :meth:`take` that was cancelled had taken its output in. Else give it again."""
        if resumption is not None:
            self._text = _Part(str, said=AlreadySaid(resumption.text))

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may follow what is ready."""
        return self.reader.is_blocked

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
            self.aside.add(part.waiting)
            return ""
        while part.waiting and not self.is_blocked:
            await self.reader.read(part.waiting[0], part.read)  # which nothing cuts in two
            part.waiting.popleft()
        released = "".join(part.read)
        part.read.clear()
        return part.said.new(released) if part.said.left else released

    def _tell(self) -> None:
        """Make ready what the response's end will say, if that has changed."""
        if not self._is_held:
            return
        notes = self.reader.told(self._noted)
        if notes != self._told:
            self._told = notes
            self.ready.append(Notes(notes))
