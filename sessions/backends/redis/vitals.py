"""Which nodes are dead, by the signs that they give. Does no I/O and reads no clock.

A node gives two: somebody listens on its channel, as long as its process
lives, and its lease is renewed, as long as it isn't frozen or cut off. One
look may come at a bad moment, so a sign has to be missed by two. A node that
lives and whose channel is broken says so in its lease: then that counts alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from unbroken.sessions.ids import NodeId

__all__ = ["Lease", "Sign", "Vitals"]

_KEPT: Final = 1024
"""Dead nodes that are remembered. Of older ones, whoever asks finds out anew."""


Lease: TypeAlias = Literal["held", "draining", "none", "left"]
"""Draining: held by a node that takes nothing any more."""


class Sign(NamedTuple):
    """What was seen of a node."""

    listens: bool
    lease: Lease
    is_deaf: bool = False
    """Whether its lease says that nobody may listen though it lives."""


class Vitals:
    """Judges nodes by what is seen of them.

    Args:
        listener_gap: Seconds between two looks that found nobody listening.
        lease_gap: Seconds between two looks that found no lease.

    """

    def __init__(self, *, listener_gap: float, lease_gap: float) -> None:
        self._gaps = {"listener": listener_gap, "lease": lease_gap}
        self._missed: dict[tuple[NodeId, str], float] = {}
        self._lost: OrderedDict[NodeId, None] = OrderedDict()
        self._settled_at = float("inf")

    def is_lost(self, node: NodeId) -> bool:
        """Return whether *node* was found dead, or has left, and hasn't been seen alive since."""
        return node in self._lost

    def see(self, node: NodeId, sign: Sign) -> bool:
        """Return whether *node* lives by what is seen of it. One that was lost then isn't any more."""
        is_alive = (sign.listens or sign.is_deaf) and sign.lease in ("held", "draining")
        if is_alive:
            self._lost.pop(node, None)
            self._missed.pop((node, "listener"), None)
            self._missed.pop((node, "lease"), None)
        return is_alive

    def settle(self, until: float) -> None:
        """Forget what was missed, and judge nobody before *until*: after a restart all look dead."""
        self._missed.clear()
        self._settled_at = until

    def look(self, signs: Mapping[NodeId, Sign], now: float) -> list[NodeId]:
        """Take in what is seen of the nodes that matter. Return those that are dead by it, each once."""
        self._missed = {key: since for key, since in self._missed.items() if key[0] in signs}
        return [node for node, sign in signs.items() if self._dies(node, sign, now)]

    def _dies(self, node: NodeId, sign: Sign, now: float) -> bool:
        if self.see(node, sign) or node in self._lost:
            return False
        if sign.lease == "left":  # nobody need be told: it has given up what it had
            self._lose(node)
            return False
        if now < self._settled_at:
            return False
        is_heard = sign.listens or sign.is_deaf
        missing = {"listener": not is_heard, "lease": sign.lease == "none"}
        is_dead = False
        for name, is_missing in missing.items():
            if not is_missing:
                self._missed.pop((node, name), None)
            elif now - self._missed.setdefault((node, name), now) >= self._gaps[name]:
                is_dead = True
        if is_dead:
            self._lose(node)
        return is_dead

    def _lose(self, node: NodeId) -> None:
        self._lost[node] = None
        while len(self._lost) > _KEPT:
            self._lost.popitem(last=False)
