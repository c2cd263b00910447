"""Which of a client's items join a conversation, and what may be chosen there. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec import UnsetType

from unbroken.sessions.entries import CreateItem
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import (
    ApprovalRequest,
    ApprovalResponse,
    FunctionCall,
    FunctionOutput,
    FunctionTool,
    Item,
    NamedTool,
    ToolCall,
    ToolChoice,
)

__all__ = ["Members", "SessionLimits", "admit", "check_choice", "full"]


def _weightless(_: Item) -> int:
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """What one session may hold."""

    conversation_bytes: int = 2 * 1024 * 1024
    """All items together; answers are let finish, so one may go beyond."""
    items: int = 10_000
    beside: int = 4
    """Responses that run outside the conversation at the same time."""
    queued: int = 8
    """Responses that wait behind the running one."""
    weigh: Callable[[Item], int] = _weightless
    """What a whole item weighs, to whoever asks for :attr:`Session.weight`: the same whenever it is asked."""


class Members(Protocol):
    """What is, or will be, in a :class:`~unbroken.sessions.conversation.Conversation`."""

    @property
    def size(self) -> int:
        """Bytes that all items take, roughly."""

    def __len__(self) -> int: ...

    def find(self, item_id: str) -> Item | None:
        """Return one item."""

    def is_open(self, item_id: str) -> bool:
        """Return whether an item is being produced."""

    def call(self, call_id: str) -> ItemId | None:
        """Return the function call of that name."""

    def output_of(self, call_id: str) -> ItemId | None:
        """Return the output of the function call of that name."""

    def response_to(self, request_id: str) -> ItemId | None:
        """Return the user's response to a request for approval."""

    def place(self, previous: str | None) -> ItemId | None:
        """Return the item behind which one that asks for *previous* belongs."""


def admit(command: CreateItem, conversation: Members, limits: SessionLimits) -> ItemId | None:
    """Return the item behind which the new one belongs; None: it becomes the first.

    Raises:
        Refusal: It can't join.

    """
    item = command.item
    if conversation.find(item.id) is not None:
        raise Refusal("item_id_taken", f"An item {item.id!r} exists already.", param="item.id")
    if conversation.size + item.size > limits.conversation_bytes or len(conversation) >= limits.items:
        raise full(limits)
    match item:
        case FunctionCall() if _is_call(item.call_id, conversation):
            message = f"A function call {item.call_id!r} exists already."
            raise Refusal("item_id_taken", message, param="item.call_id")
        case FunctionOutput():
            _check_output(item, conversation)
        case ApprovalResponse():
            _check_approval(item, conversation)
        case _:
            pass
    return conversation.place(command.previous)


def _is_call(call_id: str, conversation: Members) -> bool:
    """Return whether models are shown a call of that id. Tools' calls go by their items'."""
    tool = conversation.find(call_id)
    return conversation.call(call_id) is not None or isinstance(tool, ToolCall | ApprovalRequest)


def _check_output(output: FunctionOutput, conversation: Members) -> None:
    """Refuse an output that belongs to no function call, or to one that has its output."""
    call_id = output.call_id
    call = conversation.call(call_id)
    if call is None:
        message = f"There is no function call {call_id!r} in the conversation."
        raise Refusal("item_not_found", message, param="item.call_id")
    if conversation.is_open(call):
        message = "The function call is still being produced. Wait for its `response.output_item.done`."
        raise Refusal("item_in_progress", message, param="item.call_id")
    if (known := conversation.output_of(call_id)) is not None:
        message = f"The function call {call_id!r} has its output already: {known}."
        raise Refusal("function_call_answered", message, param="item.call_id")


def _check_approval(response: ApprovalResponse, conversation: Members) -> None:
    """Refuse a response to what nobody asked, or that was answered already: a call is approved of once."""
    request = conversation.find(response.request_id)
    if not isinstance(request, ApprovalRequest):
        message = f"There is no request for approval {response.request_id[:64]!r} in the conversation."
        raise Refusal("item_not_found", message, param="item.approval_request_id")
    if conversation.is_open(request.id):
        message = "The request is still being produced. Wait for its `response.output_item.done`."
        raise Refusal("item_in_progress", message, param="item.approval_request_id")
    if (known := conversation.response_to(request.id)) is not None:
        message = f"The request {request.id!r} has its response already: {known}."
        raise Refusal("approval_answered", message, param="item.approval_request_id")


def check_choice(choice: ToolChoice | UnsetType, tools: tuple[FunctionTool, ...], param: str) -> None:
    """Refuse the choice of a function that isn't there."""
    if isinstance(choice, NamedTool) and all(tool.name != choice.name for tool in tools):
        message = f"`tool_choice` names {choice.name!r}, which isn't among the tools."
        raise Refusal("invalid_event", message, param=param)


def full(limits: SessionLimits) -> Refusal:
    """Return the refusal of what doesn't fit into the conversation."""
    return Refusal(
        "conversation_full",
        f"The conversation holds its {limits.conversation_bytes} bytes or {limits.items} items. "
        "Delete items, or start a new session.",
    )
