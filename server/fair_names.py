"""Under which name somebody takes turns, and has what is bounded: strangers of one address under one.

Each stranger is a principal of their own, and whoever may connect often is as many as they like. What
principals may have of a queue, or of a node, would be no bound on them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["FairName", "FairNames", "is_strangers"]

FairName: TypeAlias = Callable[[str], str]
"""Says under which name a principal waits."""

_MOST: Final = 50_000
"""Some 15 MB."""

_STRANGERS: Final = "strangers "
"""With which no principal's own name begins."""


def is_strangers(name: str) -> bool:
    """Return whether *name* is that of strangers: who waits under their own is none."""
    return name.startswith(_STRANGERS)


class FairNames:
    """Who waits under which name. For one event loop.

    Args:
        most: How many are known who have another name than their own. Who hasn't been asked for longest
            is forgotten first, and waits under their own from then on.

    """

    def __init__(self, *, most: int = _MOST) -> None:
        self._most = most
        self._names: OrderedDict[str, str] = OrderedDict()

    def note(self, principal: str, name: str) -> None:
        """Have *principal* wait under *name*: whoever came last under it says where they are."""
        self._names[principal] = name
        self._names.move_to_end(principal)
        if len(self._names) > self._most:
            self._names.popitem(last=False)

    def note_stranger(self, principal: str, address: bytes | None) -> None:
        """Have a stranger wait under the name of *address*; None: under one of their own."""
        self.note(principal, _STRANGERS + (f"at {address.hex()}" if address is not None else principal))

    def of(self, principal: str) -> str:
        """Return the name that *principal* waits under."""
        name = self._names.get(principal)
        if name is None:
            return principal
        self._names.move_to_end(principal)
        return name
