"""The items of a session, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection

from unbroken.sessions.approvals import Approvals
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import (
    ApprovalRequest,
    ApprovalResponse,
    FunctionCall,
    FunctionOutput,
    Item,
)
from unbroken.sessions.response import Ongoing, Standing

__all__ = ["Conversation", "no_item"]


class Conversation:
    """Items in order, each whole or still being produced.

    An item that is being produced has its place and no text: the text is its
    response's until it is whole.

    Each function call has its own call id, and one output at most. Each request
    for approval has one response and one call at most.
    """

    def __init__(self, weigh: Callable[[Item], int]) -> None:
        self.size = 0
        """Bytes that all items take, roughly."""
        self.weight = 0
        """What the whole items weigh."""
        self._weigh = weigh
        self._items: dict[ItemId, Item] = {}
        self._order: list[ItemId] = []
        self._open: set[ItemId] = set()  # those that are being produced
        self._calls: dict[str, ItemId] = {}  # by call id
        self._outputs: dict[str, ItemId] = {}  # by call id
        self._approvals = Approvals()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def last(self) -> ItemId | None:
        """The last item; None: there is none."""
        return self._order[-1] if self._order else None

    def last_without(self, gone: Collection[ItemId]) -> ItemId | None:
        """Return the last item that isn't among *gone*; None: there is none."""
        return next((item_id for item_id in reversed(self._order) if item_id not in gone), None)

    def whole(self) -> list[Item]:
        """Return the items that are whole, in order."""
        return [self._items[item_id] for item_id in self._order if item_id not in self._open]

    def through(self, anchor: ItemId | None) -> list[Item]:
        """Return the whole items up to *anchor*, which must be there; None: there is none."""
        if anchor is None:
            return []
        end = len(self._order) if anchor == self.last else self._order.index(anchor) + 1
        return [self._items[item_id] for item_id in self._order[:end] if item_id not in self._open]

    def before(self, item_id: ItemId) -> ItemId | None:
        """Return the item before that one, which must be there; None: it is the first."""
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def find(self, item_id: str) -> Item | None:
        """Return one item; None where there is none of that id. One being produced has no text yet."""
        return self._items.get(ItemId(item_id))

    def call(self, call_id: str) -> ItemId | None:
        """Return the function call of that name; None: there is none."""
        return self._calls.get(call_id)

    @property
    def call_ids(self) -> set[str]:
        """The names of all function calls."""
        return set(self._calls)

    def output_of(self, call_id: str) -> ItemId | None:
        """Return the output of the function call of that name; None: there is none."""
        return self._outputs.get(call_id)

    def related(self, item: Item) -> list[ItemId]:
        """Return the items that mean nothing, or something else, without *item*."""
        if isinstance(item, FunctionCall):
            output = self._outputs.get(item.call_id)
            return [] if output is None or self._calls.get(item.call_id) != item.id else [output]
        return self._approvals.related(item)

    def response_to(self, request_id: str) -> ItemId | None:
        """Return the user's response to a request for approval; None: there is none."""
        return self._approvals.responses.get(request_id)

    def approved(self) -> list[ApprovalRequest]:
        """Return the requests that the user has approved of, and whose calls were never begun, in order."""
        return [
            item
            for item in self.whole()
            if isinstance(item, ApprovalRequest)
            and item.id not in self._approvals.calls
            and (response := self._approvals.responses.get(item.id)) is not None
            and _approves(self._items[response])
        ]

    def is_open(self, item_id: str) -> bool:
        """Return whether an item is being produced."""
        return item_id in self._open

    def standing(self, ongoing: list[Ongoing]) -> list[Standing]:
        """Return the items in order, those being produced as parts of their response; then the rest."""
        by_item = {each.item_id: each for each in ongoing if each.item_id is not None}
        shown: list[Standing] = [by_item.get(item_id) or self._items[item_id] for item_id in self._order]
        # Of what a response thought, only what it thinks now.
        return shown + [
            each
            for each in ongoing
            if each.item_id is None
            and (each.output is None or each.output.done is None or not each.request.in_conversation)
        ]

    def no_audio(self, item_id: str) -> Refusal:
        """Return why what was heard of an item can't be kept alone: no answer is audio yet."""
        item = self.find(item_id)
        if item is None:
            return no_item(item_id, "item_id")
        return Refusal(
            "unsupported_content_type",
            "Only answers that are audio can be truncated. This item is text, and stays as it is: "
            "what was shown of it counts as read. To stop an answer, cancel its response.",
            param="item_id",
        )

    def place(self, previous: str | None) -> ItemId | None:
        """Return the item behind which one that asks for *previous* belongs; None: it becomes the first.

        Raises:
            Refusal: There is no item *previous*.

        """
        if previous is None:
            return self.last
        if previous == "root":
            return None
        if previous not in self._items:
            raise no_item(previous, "previous_item_id")
        return ItemId(previous)

    def insert(self, item: Item, previous: ItemId | None, *, is_open: bool = False) -> None:
        """Put *item* behind *previous*, which must be there; None: at the beginning."""
        self._items[item.id] = item
        if isinstance(item, FunctionCall):
            self._calls[item.call_id] = item.id
        elif isinstance(item, FunctionOutput):
            self._outputs[item.call_id] = item.id
        else:
            self._approvals.note(item)
        if is_open:
            self._open.add(item.id)
        else:
            self.weight += self._weigh(item)
        if previous is None:
            self._order.insert(0, item.id)
        elif previous == self.last:
            self._order.append(item.id)
        else:
            self._order.insert(self._order.index(previous) + 1, item.id)
        self.size += item.size

    def close(self, item: Item) -> None:
        """Make an item that was being produced whole."""
        self._open.remove(item.id)
        self.weight += self._weigh(item)
        self.size += item.size - self._items[item.id].size
        self._items[item.id] = item

    def delete(self, item_id: ItemId) -> None:
        """Remove an item, which must be there, and whole."""
        item = self._items.pop(item_id)
        self.size -= item.size
        self.weight -= self._weigh(item)
        self._order.remove(item_id)
        if isinstance(item, FunctionCall):
            self._calls.pop(item.call_id, None)
        elif isinstance(item, FunctionOutput):
            self._outputs.pop(item.call_id, None)
        else:
            self._approvals.forget(item)

    def state(self) -> list[tuple[Item, bool]]:
        """Return the items in order, each with whether it is being produced."""
        return [(self._items[item_id], item_id in self._open) for item_id in self._order]

    @classmethod
    def restore(cls, state: list[tuple[Item, bool]], weigh: Callable[[Item], int]) -> Conversation:
        """Return the conversation whose :meth:`state` this is."""
        conversation = cls(weigh)
        for item, is_open in state:
            conversation.insert(item, conversation.last, is_open=is_open)
        return conversation


def _approves(item: Item) -> bool:
    return isinstance(item, ApprovalResponse) and item.approve


def no_item(item_id: str, param: str) -> Refusal:
    """Return the refusal of what needs an item that isn't there."""
    return Refusal("item_not_found", f"There is no item {item_id[:64]!r} in the conversation.", param=param)
