"""What one request brings into a conversation: all of it joins, or none does. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from unbroken.sessions.admission import SessionLimits, admit
from unbroken.sessions.conversation import Conversation
from unbroken.sessions.entries import Body, CreateItem, ItemAdded, ItemDeleted
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import ApprovalResponse, FunctionCall, FunctionOutput, Item

__all__ = ["deleted", "joined"]


def joined(
    conversation: Conversation,
    limits: SessionLimits,
    said: Sequence[Item],
    removed: Sequence[ItemId] = (),
    *,
    seq: int = 0,
) -> list[Body]:
    """Return what takes *removed* out of the conversation, as far as it is there, and brings *said* into it.

    *seq*: the input that the last of these answers; 0: something else does.

    Raises:
        Refusal: An item can't join, or one that is to leave can't.

    """
    bodies: list[Body] = []
    prospect = _Prospect(conversation)
    for item_id in removed:
        item = conversation.find(item_id)
        if item is not None and not prospect.is_gone(item_id):  # else it went with another, or before
            gone = [each for each in deleted(item, conversation) if not prospect.is_gone(each)]
            bodies += (ItemDeleted(each) for each in gone)
            prospect.remove(gone)
    for number, item in enumerate(said, 1):
        place = admit(CreateItem(item), prospect, limits)
        bodies.append(ItemAdded(item, place, seq if number == len(said) else 0))
        prospect.add(item)
    return bodies


def deleted(item: Item, conversation: Conversation) -> list[ItemId]:
    """Return which items go with *item*, which is the last of them: they mean nothing alone.

    Raises:
        Refusal: One of them is still being produced.

    """
    if conversation.is_open(item.id):
        message = "The item is still being produced. Cancel its response first."
        raise Refusal("item_in_progress", message, param="item_id")
    related = conversation.related(item)
    if any(conversation.is_open(each) for each in related):
        message = "The call that belongs to the item is still running. Cancel its response first."
        raise Refusal("item_in_progress", message, param="item_id")
    return [*related, item.id]


class _Prospect:
    """A conversation as it will be: see :class:`~unbroken.sessions.admission.Members`."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._gone: set[ItemId] = set()
        self._added: dict[ItemId, Item] = {}
        self._calls: dict[str, ItemId] = {}
        self._outputs: dict[str, ItemId] = {}
        self._responses: dict[str, ItemId] = {}
        self.size = conversation.size

    def __len__(self) -> int:
        return len(self._conversation) - len(self._gone) + len(self._added)

    def is_gone(self, item_id: ItemId) -> bool:
        return item_id in self._gone

    def remove(self, item_ids: list[ItemId]) -> None:
        for item_id in item_ids:
            item = self._conversation.find(item_id)
            if item is not None and item_id not in self._gone:
                self._gone.add(item_id)
                self.size -= item.size

    def add(self, item: Item) -> None:
        self._added[item.id] = item
        self.size += item.size
        match item:
            case FunctionCall():
                self._calls[item.call_id] = item.id
            case FunctionOutput():
                self._outputs[item.call_id] = item.id
            case ApprovalResponse():
                self._responses[item.request_id] = item.id
            case _:
                pass

    def find(self, item_id: str) -> Item | None:
        named = ItemId(item_id)
        return self._added.get(named) or (None if named in self._gone else self._conversation.find(named))

    def is_open(self, item_id: str) -> bool:
        return ItemId(item_id) not in self._added and self._conversation.is_open(item_id)

    def call(self, call_id: str) -> ItemId | None:
        return self._calls.get(call_id) or self._unless_gone(self._conversation.call(call_id))

    def output_of(self, call_id: str) -> ItemId | None:
        return self._outputs.get(call_id) or self._unless_gone(self._conversation.output_of(call_id))

    def response_to(self, request_id: str) -> ItemId | None:
        known = self._conversation.response_to(request_id)
        return self._responses.get(request_id) or self._unless_gone(known)

    def place(self, previous: str | None) -> ItemId | None:
        assert previous is None, "items that come with a request come behind all others"
        if self._added:
            return next(reversed(self._added))
        return self._conversation.last_without(self._gone)

    def _unless_gone(self, item_id: ItemId | None) -> ItemId | None:
        return None if item_id in self._gone else item_id
