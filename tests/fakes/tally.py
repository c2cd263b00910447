"""What all nodes have, in this process: a tally with a network in between, which fails when told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from unbroken.sessions.backends.tally import Claim, Kind
from unbroken.sessions.errors import StoreUnavailable
from unbroken.sessions.ids import NodeId

__all__ = ["DistantTally", "SharedTally"]


class SharedTally:
    """The numbers of all nodes.

    Fault verbs: :meth:`bury`, :meth:`lose`, :meth:`divide`, :attr:`is_out`, :attr:`loses_answers`,
    :attr:`parts_out`, :attr:`parts_hung`, :attr:`half_moved`.
    """

    def __init__(self, seed: int = 0) -> None:
        self.numbers: dict[tuple[str, Kind], dict[NodeId, int]] = {}
        self.dead: set[NodeId] = set()
        self.random = random.Random(seed)
        self.is_out = False
        """Whether nothing reaches it."""
        self.loses_answers = False
        """Whether what is asked for is done, and nobody hears of it."""
        self.parts_out: set[str] = set()
        """Parts that nothing reaches."""
        self.parts_hung: dict[str, asyncio.Event] = {}
        """Parts that answer nothing before an event."""
        self.half_moved: set[str] = set()
        """Whose numbers are on their way from one part to another: no call that names them is made."""
        self.found_half_moved: set[str] = set()
        """Of whom a call has failed of that."""
        self._parts: dict[str, str] = {}

    def at(self, node: NodeId) -> DistantTally:
        """Return a node's way to it."""
        return DistantTally(self, node)

    def bury(self, node: NodeId) -> None:
        """Have everybody know that *node* is dead."""
        self.dead.add(node)

    def lose(self) -> None:
        """Forget everything."""
        self.numbers.clear()

    def divide(self, **parts: str) -> None:
        """Say in which parts people's numbers are from now on."""
        self._parts |= parts

    def part_of(self, whose: str) -> str:
        """Return the part that somebody's numbers are in."""
        part = self._parts.get(whose, "")
        return f"{part}/half moved" if whose in self.half_moved & self.found_half_moved else part

    def of(self, kind: Kind, whose: str) -> dict[NodeId, int]:
        """Return what each node has, as it was told."""
        return dict(self.numbers.get((whose, kind), {}))


class DistantTally:
    """One node's view. Before and after each call, other tasks get to run, a random number of times."""

    def __init__(self, shared: SharedTally, node: NodeId) -> None:
        self._shared = shared
        self.node = node
        self.calls: list[list[Claim]] = []
        """What it was asked."""

    def part_of(self, whose: str) -> str:
        return self._shared.part_of(whose)

    async def _travel(self, claims: Sequence[Claim]) -> None:
        shared = self._shared
        for _ in range(shared.random.randrange(4)):
            await asyncio.sleep(0)
        parts = {shared.part_of(claim.whose) for claim in claims}
        for part in parts & shared.parts_hung.keys():
            await shared.parts_hung[part].wait()
        if shared.is_out or parts & shared.parts_out:
            raise StoreUnavailable
        if half_moved := shared.half_moved.intersection(claim.whose for claim in claims):
            shared.found_half_moved |= half_moved
            raise StoreUnavailable

    async def settle(self, claims: Sequence[Claim]) -> list[int]:
        self.calls.append(list(claims))
        await self._travel(claims)
        given = [self._settle(claim) for claim in claims]
        await self._travel(claims)
        if self._shared.loses_answers:
            raise StoreUnavailable
        return given

    def _settle(self, claim: Claim) -> int:
        shared = self._shared
        numbers = shared.numbers.setdefault((claim.whose, claim.kind), {})
        for node in shared.dead:
            numbers.pop(node, None)
        others = sum(count for node, count in numbers.items() if node != self.node)
        given = max(0, min(claim.wanted, claim.most - others - claim.held))
        numbers[self.node] = claim.held + given
        if not numbers[self.node]:
            del numbers[self.node]
        return given
