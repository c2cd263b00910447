"""How many connections and responses somebody has, on all nodes that share a store.

Every node tells its own numbers, whole and not as differences: whatever gets
lost, twice or late, the next time puts right. A node that is dead counts no
more as soon as that is known, and what it had told is taken out then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

__all__ = ["Claim", "Kind", "Tally"]

Kind: TypeAlias = Literal["connection", "response", "tenant_connection", "address_connection"]
"""What is counted, each by itself: connections and responses of a principal, and connections of a whole
tenant and of an address."""


class Claim(Struct, frozen=True):
    """What somebody has on this node of one kind, and how many more they ask for."""

    kind: Kind
    whose: str
    """A principal's id, or another opaque name that no principal has."""
    held: int
    wanted: int = 0
    most: int = 0
    """What they may have on all nodes together. Means nothing where none is wanted."""


class Tally(Protocol):
    """One node's view of what all nodes have."""

    def part_of(self, whose: str) -> str:
        """Return the name of the part of the store that has somebody's numbers now; empty: there is but one,
        or it isn't known yet. A part may be out of reach while the others answer. What is being moved from
        one to another is a part of its own, from the first call that fails of it.
        """

    async def settle(self, claims: Sequence[Claim]) -> list[int]:
        """Set this node's numbers, and return for each claim how many of those wanted it gets.

        They are set as they are then: what is held and what is given. Each claim is one step,
        in which nobody else's numbers change: never is more given than *most* allows, by what
        all nodes have told. One that has lately died may still count.

        Raises:
            StoreUnavailable: A part of the store that has some of them can't be reached in time. Some
                may have been set. Claims of other parts fail along: let each have a call of its own.

        """
