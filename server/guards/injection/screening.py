"""What the firewall is shown of a command or a tool's result, and what becomes of one that it blocks."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeAlias

import orjson
from msgspec import UNSET

from unbroken.server.auth.principal import DEFAULT_PLAN, Principal
from unbroken.server.files.base import StoredFile
from unbroken.server.guards.injection.attached import (
    NOTHING_BROUGHT,
    AttachedFiles,
    FilesUnread,
    attached_to,
)
from unbroken.server.guards.injection.base import Action, Origin, Passage
from unbroken.server.guards.injection.firewall import Firewall, Unchecked
from unbroken.server.guards.plan import PlanOf
from unbroken.sessions.entries import Command, CreateItem, CreateItems, CreateResponse, UpdateConfig
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import SessionId
from unbroken.sessions.items import (
    ApprovalResponse,
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Item,
    Message,
    Text,
    ToolError,
)
from unbroken.sessions.responder import ToolEnded, Turn
from unbroken.sessions.response import Ongoing
from unbroken.sessions.session import Session

__all__ = ["Gate", "ResultScreen", "Screen", "passages_of"]

Screen: TypeAlias = Callable[[Command, Principal, Session], Awaitable[None]]
"""Refuses a command of a principal, by the plan that they came by, or returns."""

ResultScreen: TypeAlias = Callable[[ToolEnded, str, Turn], Awaitable[ToolEnded]]
"""Returns what the agent is given of a tool's result. The second is the label of its toolset."""

_MOST_AROUND: Final = 1000
"""Characters of what was said in front of a message, and as many behind it, that it is read together with."""

_TURNS_AROUND: Final = 3

_SAYS_SOMETHING: Final = re.compile(r"(?:[A-Za-z]{2,64}[^A-Za-z]{1,64}){3}[A-Za-z]{2}|[A-Za-z]{18}|.{32}")
"""What names and ids have that may be more than that: four words, many letters, or much that may be encoded.

They are looked at as instructions are, by rules alone: what a model says of an id is chance.
"""

_BLOCKED: Final = {
    Origin.USER: "This looks like an attempt to override the instructions. Say it in another way.",
    Origin.INSTRUCTIONS: "These instructions would have the model ignore its operator's. Change them.",
    Origin.TOOL: "This looks as if it tells the model what to do. Send another output, such as an error, "
    "or another file.",
}

_WITHHELD: Final = ToolError("The result was withheld: it looks as if it tells the model what to do.")
_UNCHECKED: Final = ToolError("The result was withheld: it couldn't be checked.")


class Gate:
    """Has the firewall look at what comes in.

    Args:
        trusted: Labels of toolsets whose results aren't looked at.
        files: Reads what messages bring along. None: nobody brings anything.
        plan_of: Says by which plan a turn was asked for.

    """

    def __init__(
        self,
        trusted: frozenset[str] = frozenset(),
        files: AttachedFiles | None = None,
        plan_of: PlanOf | None = None,
    ) -> None:
        self.firewall: Firewall | None = None
        """Set when its models are loaded, before anybody is let in. None: everything passes."""
        self._trusted = trusted
        self._files = files or AttachedFiles()
        self._plan_of = plan_of or _as_said

    async def command(self, command: Command, principal: Principal, session: Session) -> None:
        """Return, if *command* may go on to *session*. The plan counts that *principal* came by with it.

        Raises:
            Refusal: ``content_filter``, or ``guard_unavailable`` where there is no verdict.

        """
        if (firewall := self.firewall) is None:
            return
        passages, attached = list(passages_of(command, session)), attached_to(command, session)
        if not passages and not attached:
            return
        said = [each.text for each in passages if each.origin is Origin.USER]
        around = _around(command, session, said[0]) if said else ("", "")
        looking = _Looking(firewall, session.id, principal)
        try:
            is_read = bool(attached) and firewall.looks_at(principal.plan)
            brought = await self._files.brought(attached, principal.id) if is_read else NOTHING_BROUGHT
            await looking.at([*passages, *brought.passages], *around)
            await self._read(brought.texts, looking)
        except Unchecked:
            message = "It couldn't be checked for the moment. Send it again in a moment."
            param = passages[0].param if passages else attached[0].param
            raise Refusal("guard_unavailable", message, param=param) from None

    async def _read(self, texts: Iterable[tuple[StoredFile, str]], looking: _Looking) -> None:
        """Look at files of the store, one part after another.

        Raises:
            Refusal: ``content_filter``.
            Unchecked: One can't be read, or not looked at, and the firewall fails closed.

        """
        size = 0
        for file, param in texts:
            size += file.bytes
            try:
                async with aclosing(self._files.parts(file, size)) as parts:
                    async for text in parts:
                        await looking.at([Passage(Origin.TOOL, text, param)])
            except FilesUnread as exc:
                plan = looking.principal.plan
                looking.firewall.unread(str(exc), Origin.TOOL, looking.session_id, plan)

    async def settled(self, update: UpdateConfig, principal: Principal) -> None:
        """Return, if sessions that haven't begun may be as *update* says, which *principal* asks for.

        What passed passes again, in whichever sessions of theirs. In logs their id stands for the session's.

        Raises:
            Refusal: As for :meth:`command`.

        """
        passages = [] if self.firewall is None else list(_of_update(update))
        if self.firewall is None or not passages:
            return
        try:
            verdict = await self.firewall.screen(
                passages, SessionId(principal.id), principal.id, plan=principal.plan
            )
        except Unchecked:
            message = "It couldn't be checked for the moment. Ask again in a moment."
            raise Refusal("guard_unavailable", message, param=passages[0].param) from None
        if verdict.action is Action.BLOCK:
            raise Refusal("content_filter", _BLOCKED[Origin.INSTRUCTIONS], param=verdict.param)

    async def result(self, ended: ToolEnded, label: str, turn: Turn) -> ToolEnded:
        """Return what the agent, and everybody else, is given of a result of the toolset *label*."""
        text = ended.output or ("" if ended.error is None else ended.error.message)
        if self.firewall is None or not text or label in self._trusted:
            return ended
        passage = Passage(Origin.TOOL, text)
        try:
            plan = await self._plan_of(turn)
            verdict = await self.firewall.screen([passage], turn.session_id, turn.principal, plan=plan)
        except Unchecked:
            return replace(ended, output=None, error=_UNCHECKED)
        return replace(ended, output=None, error=_WITHHELD) if verdict.action is Action.BLOCK else ended


@dataclass(frozen=True, slots=True)
class _Looking:
    """Looks at what comes in with one command."""

    firewall: Firewall
    session_id: SessionId
    principal: Principal

    async def at(self, passages: Sequence[Passage], before: str = "", after: str = "") -> None:
        who = self.principal
        verdict = await self.firewall.screen(passages, self.session_id, who.id, before, after, plan=who.plan)
        if verdict.action is Action.BLOCK:
            assert verdict.origin is not None
            raise Refusal("content_filter", _BLOCKED[verdict.origin], param=verdict.param)


async def _as_said(turn: Turn) -> str:
    return DEFAULT_PLAN if turn.request.plan is None else turn.request.plan


def passages_of(command: Command, session: Session) -> Iterator[Passage]:
    """Yield every text of *command* that a model would read, and that isn't in *session* already."""
    match command:
        case CreateItem(item=item):
            yield from _of_item(item, "item")
        case CreateItems(items=items):
            for index, item in enumerate(items):
                yield from _of_item(item, f"items[{index}]")
            yield from _as_one(items, "items")
        case CreateResponse(request=request):
            if instructions := _added(request.instructions or "", session.config.instructions):
                yield Passage(Origin.INSTRUCTIONS, instructions, "response.instructions")
            given = (*command.said, *(request.input or ()))
            for index, item in enumerate(given):
                if session.item(item.id) is not item:  # a reference: it was looked at when it came
                    yield from _of_item(item, f"response.input[{index}]")
            yield from _as_one(given, "response.input")
            yield from _of_tools(request.tools or (), "response.tools")
            form = None if request.parameters is None else request.parameters.format
            if form is not None and len(form) > 1:  # beside its type, it is the client's own
                yield Passage(Origin.INSTRUCTIONS, orjson.dumps(form).decode(), "response.text.format")
        case UpdateConfig():
            yield from _of_update(command)


def _as_one(items: Sequence[Item], param: str) -> Iterator[Passage]:
    """Yield what the user's messages among *items* come to: they are read one after another."""
    said = [item.text for item in items if isinstance(item, Message) and item.role == "user"]
    if len(said) > 1:
        yield Passage(Origin.USER, " ".join(said), param)


def _added(instructions: str, usual: str) -> str:
    """Return what *instructions* say behind those of the session, which nobody need look at again.

    They may be the operator's own, who may quote what nobody else may say.
    """
    if instructions == usual:
        return ""
    return instructions.removeprefix(f"{usual}\n\n") if usual else instructions


def _of_update(update: UpdateConfig) -> Iterator[Passage]:
    if update.instructions is not UNSET and update.instructions:
        yield Passage(Origin.INSTRUCTIONS, update.instructions, "session.instructions")
    if update.tools is not UNSET:
        yield from _of_tools(update.tools, "session.tools")


def _of_item(item: Item, param: str) -> Iterator[Passage]:
    match item:
        case Message(role=role, content=content):
            origin = Origin.INSTRUCTIONS if role == "system" else Origin.USER
            texts = [part.text for part in content if isinstance(part, Text)]
            for index, part in enumerate(content):
                if isinstance(part, Text):
                    yield Passage(origin, part.text, f"{param}.content[{index}].text")
            if len(texts) > 1:  # a model reads them as one
                yield Passage(origin, "".join(texts), f"{param}.content")
        case FunctionOutput(output=output):
            yield Passage(Origin.TOOL, output, f"{param}.output")
        case FunctionCall(call_id=call_id, name=name, arguments=arguments):
            yield Passage(Origin.USER, arguments, f"{param}.arguments")
            for called, field in ((name, "name"), (call_id, "call_id")):
                if _SAYS_SOMETHING.search(called):  # an output has the id of a call that was looked at
                    yield Passage(Origin.INSTRUCTIONS, called, f"{param}.{field}")
        case ApprovalResponse(reason=reason) if reason:
            yield Passage(Origin.USER, reason, f"{param}.reason")


def _of_tools(tools: tuple[FunctionTool, ...], param: str) -> Iterator[Passage]:
    for index, tool in enumerate(tools):
        text = tool.description or ""
        if tool.parameters:
            text += "\n" + orjson.dumps(tool.parameters).decode()
        if _SAYS_SOMETHING.search(tool.name):  # what is chosen to be called is among these
            text = f"{tool.name}\n{text}"
        if text:
            yield Passage(Origin.INSTRUCTIONS, text, f"{param}[{index}]")


def _around(command: Command, session: Session, text: str) -> tuple[str, str]:
    """Return what the user said that stands in front of *text* and behind it, the ends that are next to it.

    From the log: any node knows it. If *text* stands there already, that isn't around it: it is sent
    again, after a connection was lost.
    """
    items = session.items()
    place = _place(command, session, len(items))
    before = _said(reversed(items[:place]), text)
    after = _said(items[place:], text)
    return " ".join(each[-_MOST_AROUND:] for each in reversed(before))[-_MOST_AROUND:], " ".join(
        each[:_MOST_AROUND] for each in after
    )[:_MOST_AROUND]


def _place(command: Command, session: Session, count: int) -> int:
    """Return how many of the *count* items that are whole stand in front of what *command* adds."""
    if not isinstance(command, CreateItem) or command.previous is None:
        return count
    if command.previous == "root":
        return 0
    whole = 0
    for each in session.standing():
        is_whole = not isinstance(each, Ongoing)
        whole += is_whole
        if command.previous == (each.item_id if isinstance(each, Ongoing) else each.id):
            return whole
    return count  # it is going to be refused


def _said(items: Iterable[Item], text: str) -> list[str]:
    """Return the user's messages that come first in *items*, but for the very first if that is *text*."""
    texts = (item.text for item in items if isinstance(item, Message) and item.role == "user")
    said = list(islice(texts, _TURNS_AROUND + 1))
    return said[1:] if said and said[0] == text else said[:_TURNS_AROUND]
