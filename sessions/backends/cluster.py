"""The nodes that share a store: who is there, who has died, and what they tell each other.

What is told between nodes is a hint, and may come late, twice, in another
order, or never; nothing that has to be right hangs on it. Safety is the
store's fence alone: a node that is taken for dead, and isn't, is fenced at its next write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from unbroken.sessions.ids import NodeId, SessionId

__all__ = ["Alone", "Cluster", "Neighbour"]


class Neighbour(Protocol):
    """What a node is told. Called from the event loop; no method raises or blocks."""

    def on_news(self, session_ids: Iterable[SessionId]) -> None:
        """Note that these sessions' logs may have grown, or that their owners may have changed."""

    def on_wish(self, session_id: SessionId, by: NodeId) -> None:
        """Note that *by* has connections of a session and would rather own it."""

    def on_lost(self, node: NodeId) -> None:
        """Note that *node* is dead, or can't be told from a dead one: its sessions may be taken.

        Told once for each death that is noticed.
        """

    def on_gap(self) -> None:
        """Note that the store was out of reach: news were missed, and it may have lost something."""

    def on_poll(self) -> None:
        """Note that it is time to look at what is followed: single news may get lost at any time."""


class Cluster(Protocol):
    """The other nodes. Times are the implementation's; its text says what it promises.

    No method but :meth:`join` raises for a store that can't be reached: then nothing is told.
    """

    async def join(self, node: NodeId, neighbour: Neighbour) -> None:
        """Become one of the nodes. Returns when *neighbour* is told of everything from here on.

        Raises:
            StoreUnavailable: The store can't be reached.
            UnknownFormat: It holds, or may, what this release can't read.

        """

    async def leave(self) -> None:
        """Be none of the nodes any more, without being taken for dead. Harmless if it never joined."""

    async def withdraw(self, *, is_draining: bool) -> None:
        """Tell the others that this node takes nothing that they give up; or that it does so again."""

    async def wish(self, owner: NodeId, session_id: SessionId) -> None:
        """Tell *owner* that this node would rather own a session."""

    def is_lost(self, node: NodeId) -> bool:
        """Return whether *node* has been found dead. False also where that isn't known (yet)."""

    async def is_still_lost(self, node: NodeId) -> bool:
        """Return what :meth:`is_lost` does, after another look, if it has been found dead.

        For whoever takes what a dead node had: it may have woken meanwhile, and have begun something.
        """

    async def watch(self, node: NodeId) -> None:
        """Find out about *node*, which owns something that matters here; it need never have joined."""

    @property
    def is_cut_off(self) -> bool:
        """Whether this node couldn't say that it lives when it last tried."""

    @property
    def has_others(self) -> bool:
        """Whether another node is there that could take what this one gives up."""


class Alone:
    """A cluster of one."""

    is_cut_off = False
    """See :attr:`Cluster.is_cut_off`."""

    has_others = False
    """See :attr:`Cluster.has_others`."""

    async def join(self, node: NodeId, neighbour: Neighbour) -> None:
        """See :meth:`Cluster.join`."""

    async def leave(self) -> None:
        """See :meth:`Cluster.leave`."""

    async def withdraw(self, *, is_draining: bool) -> None:
        """See :meth:`Cluster.withdraw`."""

    async def wish(self, owner: NodeId, session_id: SessionId) -> None:
        """See :meth:`Cluster.wish`."""

    async def watch(self, node: NodeId) -> None:
        """See :meth:`Cluster.watch`."""

    async def is_still_lost(self, node: NodeId) -> bool:
        """See :meth:`Cluster.is_still_lost`."""
        return self.is_lost(node)

    def is_lost(self, node: NodeId) -> bool:  # noqa: ARG002 - as said
        """See :meth:`Cluster.is_lost`: whoever else owned something is from another time."""
        return True
