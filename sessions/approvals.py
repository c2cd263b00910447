"""Which response and which call belong to which request for approval."""

from __future__ import annotations

from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import ApprovalRequest, ApprovalResponse, Item, ToolCall

__all__ = ["Approvals"]


class Approvals:
    """The responses and the calls of a conversation that belong to requests, each by the request's id."""

    __slots__ = ("calls", "responses")

    def __init__(self) -> None:
        self.responses: dict[str, ItemId] = {}
        self.calls: dict[str, ItemId] = {}

    def note(self, item: Item) -> None:
        """Take in an item that joined the conversation."""
        if isinstance(item, ApprovalResponse):
            self.responses[item.request_id] = item.id
        elif isinstance(item, ToolCall) and item.approval is not None:
            self.calls[item.approval] = item.id

    def forget(self, item: Item) -> None:
        """Take in that an item left the conversation."""
        if isinstance(item, ApprovalResponse):
            self.responses.pop(item.request_id, None)
        elif isinstance(item, ToolCall) and item.approval is not None:
            self.calls.pop(item.approval, None)

    def related(self, item: Item) -> list[ItemId]:
        """Return the items of the same request: were one of them left alone, the call could run again."""
        match item:
            case ApprovalRequest(id=request_id):
                request: ItemId | None = request_id
            case ApprovalResponse(request_id=request_id):
                request = request_id
            case ToolCall(approval=approval):
                request = approval
            case _:
                request = None
        if request is None:
            return []
        items = (self.responses.get(request), self.calls.get(request), request)
        return [each for each in items if each is not None and each != item.id]
