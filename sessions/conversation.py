"""The items of a session, in order."""

from __future__ import annotations

from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import Message
from unbroken.sessions.response import Ongoing, Standing

__all__ = ["Conversation", "no_item"]


class Conversation:
    """Items in order, each whole or still being produced.

    An item that is being produced has its place and no text: the text is its
    response's until it is whole.
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes that all items take, roughly."""
        self._items: dict[ItemId, Message] = {}
        self._order: list[ItemId] = []
        self._open: set[ItemId] = set()  # those that are being produced

    def __len__(self) -> int:
        return len(self._order)

    @property
    def last(self) -> ItemId | None:
        """The last item; None: there is none."""
        return self._order[-1] if self._order else None

    def whole(self) -> list[Message]:
        """Return the items that are whole, in order."""
        return [self._items[item_id] for item_id in self._order if item_id not in self._open]

    def through(self, anchor: ItemId | None) -> list[Message]:
        """Return the whole items up to *anchor*, which must be there; None: there is none."""
        if anchor is None:
            return []
        end = len(self._order) if anchor == self.last else self._order.index(anchor) + 1
        return [self._items[item_id] for item_id in self._order[:end] if item_id not in self._open]

    def before(self, item_id: ItemId) -> ItemId | None:
        """Return the item before that one, which must be there; None: it is the first."""
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def find(self, item_id: str) -> Message | None:
        """Return one item; None where there is none of that id. One being produced has no text yet."""
        return self._items.get(ItemId(item_id))

    def is_open(self, item_id: str) -> bool:
        """Return whether an item is being produced."""
        return item_id in self._open

    def standing(self, ongoing: list[Ongoing]) -> list[Standing]:
        """Return the items in order, one that is being produced as its response; then the other responses."""
        by_item = {each.item_id: each for each in ongoing if each.in_conversation and each.item_id}
        shown: list[Standing] = [
            by_item[item_id] if item_id in self._open else self._items[item_id] for item_id in self._order
        ]
        return shown + [each for each in ongoing if each.item_id not in by_item]

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

    def insert(self, item: Message, previous: ItemId | None, *, is_open: bool = False) -> None:
        """Put *item* behind *previous*, which must be there; None: at the beginning."""
        self._items[item.id] = item
        if is_open:
            self._open.add(item.id)
        if previous is None:
            self._order.insert(0, item.id)
        elif previous == self.last:
            self._order.append(item.id)
        else:
            self._order.insert(self._order.index(previous) + 1, item.id)
        self.size += item.size

    def close(self, item: Message) -> None:
        """Make an item that was being produced whole."""
        self._open.remove(item.id)
        self.size += item.size - self._items[item.id].size
        self._items[item.id] = item

    def delete(self, item_id: ItemId) -> None:
        """Remove an item, which must be there."""
        self.size -= self._items.pop(item_id).size
        self._order.remove(item_id)

    def state(self) -> list[tuple[Message, bool]]:
        """Return the items in order, each with whether it is being produced."""
        return [(self._items[item_id], item_id in self._open) for item_id in self._order]

    @classmethod
    def restore(cls, state: list[tuple[Message, bool]]) -> Conversation:
        """Return the conversation whose :meth:`state` this is."""
        conversation = cls()
        for item, is_open in state:
            conversation.insert(item, conversation.last, is_open=is_open)
        return conversation


def no_item(item_id: str, param: str) -> Refusal:
    """Return the refusal of what needs an item that isn't there."""
    return Refusal("item_not_found", f"There is no item {item_id[:64]!r} in the conversation.", param=param)
