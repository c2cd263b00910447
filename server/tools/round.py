"""What an agent says in one round, told apart: words, calls of client's functions, calls of server's tools.

Pure: pieces in, pieces out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from unbroken.server.agents.base import AgentError, Message, Prompted
from unbroken.server.agents.calls import in_pairs
from unbroken.server.tools.calls import Called, are_arguments
from unbroken.server.tools.catalogue import Offer
from unbroken.sessions.ids import ItemId, new_item_id
from unbroken.sessions.items import ApprovalHead, Text, ToolCall, ToolHead
from unbroken.sessions.outputs import cleaned
from unbroken.sessions.responder import AsksApproval, FunctionCallPiece, ToolCallPiece, ToolEnded

__all__ = ["Round", "pair_of"]


_MOST_HELD: Final = 64 * 1024
_CALL_COST: Final = 512
"""Characters that a call counts for beside its arguments."""


@dataclass(slots=True)
class _Call:
    """A call of a tool, as it comes."""

    item_id: ItemId
    offer: Offer
    parts: list[str] = field(default_factory=list)

    @property
    def head(self) -> ToolHead:
        return ToolHead(self.offer.name, self.offer.toolset.label)

    @property
    def arguments(self) -> str:
        """What there is of them, as the log has it. Some models say nothing for none."""
        text = cleaned("".join(self.parts))
        return text if text.strip() else "{}"

    @property
    def asks(self) -> bool:
        """Whether its user is asked: some clients read the arguments, so they must be JSON."""
        return self.offer.tool.needs_approval and are_arguments(self.arguments)

    @property
    def called(self) -> Called:
        return Called(self.item_id, self.offer, self.arguments)


_Part: TypeAlias = list[str] | _Call
"""Words, or a call."""


class Round:
    """One round.

    Args:
        offers: The tools, by name.
        first: The number that the round's first call of a client's function gets in its response.

    """

    def __init__(self, offers: Mapping[str, Offer], first: int) -> None:
        self.next = first
        """The number of the next call of a client's function."""
        self._offers = offers
        self._first = first
        self._parts: list[_Part] = []  # in order
        self._calls: dict[int, _Call] = {}  # by the agent's number
        self._held = 0  # characters of arguments that aren't shown yet
        self._numbers: dict[int, int] = {}  # of the client's calls: ours, by the agent's

    @property
    def has_client_calls(self) -> bool:
        """Whether a function of the client's was called."""
        return self.next > self._first

    @property
    def calls(self) -> list[Called]:
        """The calls of tools that run at once, in order."""
        return [call.called for call in self._calls.values() if not call.asks]

    @property
    def requests(self) -> list[AsksApproval]:
        """The calls that their user has to approve of first."""
        return [
            AsksApproval(
                call.item_id,
                ApprovalHead(call.offer.name, call.offer.toolset.label, call.arguments),
            )
            for call in self._calls.values()
            if call.asks
        ]

    @property
    def held(self) -> list[ToolCallPiece]:
        """What wasn't shown of calls that nobody is asked about, since they make no sense: they fail."""
        return [
            ToolCallPiece(call.item_id, call.arguments, call.head)
            for call in self._calls.values()
            if call.offer.tool.needs_approval and not call.asks
        ]

    def say(self, text: str) -> None:
        """Take in a piece of text."""
        if self._parts and isinstance(self._parts[-1], list):
            self._parts[-1].append(text)
        else:
            self._parts.append([text])

    def call(self, piece: FunctionCallPiece) -> FunctionCallPiece | ToolCallPiece | None:
        """Take in a piece of a call, and return what it is in the response; None: nothing to be shown."""
        number = piece.index
        if number not in self._calls and number not in self._numbers:
            self._begin(number, piece.name)
        call = self._calls.get(number)
        if call is None:
            ours = self._numbers[number]
            return FunctionCallPiece(ours, piece.arguments, call_id=piece.call_id, name=piece.name)
        is_first = not call.parts
        call.parts.append(piece.arguments)
        if call.offer.tool.needs_approval:  # nobody else counts what isn't shown
            self._held += len(piece.arguments) + (_CALL_COST if is_first else 0)
            if self._held > _MOST_HELD:
                raise AgentError("The model wrote calls without an end.")
            return None
        return ToolCallPiece(call.item_id, piece.arguments, call.head if is_first else None)

    def _begin(self, number: int, name: str) -> None:
        """Note what the agent's call *number* is of."""
        if (offer := self._offers.get(name)) is None:
            self._numbers[number] = self.next
            self.next += 1
        else:
            call = self._calls[number] = _Call(new_item_id(), offer)
            self._parts.append(call)

    def items(self, ended: Iterable[ToolEnded]) -> list[Prompted]:
        """Return the round as a model is shown it: what was said, and each call with what came of it."""
        results = {each.item_id: each for each in ended}
        shown: list[Prompted] = []
        for part in self._parts:
            if isinstance(part, list):
                shown.append(Message(new_item_id(), "assistant", (Text(cleaned("".join(part))),)))
            else:
                shown += pair_of(part.item_id, part.offer.name, part.arguments, results[part.item_id])
        return shown


def pair_of(item_id: ItemId, name: str, arguments: str, ended: ToolEnded) -> list[Prompted]:
    """Return a call and what came of it, as :func:`~unbroken.server.agents.calls.in_pairs` would later."""
    call = ToolCall(item_id, name, "", arguments, ended.output, ended.error)
    return list(in_pairs([call]))
