"""Whose the work is that an upstream does by itself: when a response's owner may have it stopped.

An upstream may keep a response and work on it whether anybody reads or not. Then another owner can go on
with it, and one that has been replaced may not know yet: it was frozen, or cut off. So nobody tells an
upstream to stop before the log says that the response has ended, or goes on without that upstream, by an
entry that the store took under the owner's fence. Work that is stopped late, or by the next owner, costs some
tokens; another's would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Custody"]


class Custody:
    """Whether what an upstream does for a response is this owner's to stop.

    Args:
        is_sole: Nobody else could own it. Nothing has to wait.

    """

    __slots__ = ("_is_settled", "_stops", "is_passed_on")

    def __init__(self, *, is_sole: bool = True) -> None:
        self.is_passed_on = False
        """It goes on elsewhere: who is stopped now leaves the upstream's work alone."""
        self._is_settled: bool = is_sole
        self._stops: Final[list[Callable[[], object]]] = []

    def stop(self, stop: Callable[[], object]) -> None:
        """Call *stop*, which has an upstream end its work, once that is nobody else's: now, later or never.

        It doesn't wait, and raises nothing.
        """
        if self.is_passed_on:
            return
        if self._is_settled:
            stop()
        else:
            self._stops.append(stop)

    def settle(self) -> None:
        """Note that the store holds the response's end, as this owner wrote it. What waited is done."""
        self._is_settled = True
        while self._stops:
            self._stops.pop(0)()

    def give_up(self) -> Custody:
        """Return what has been left until now as something of its own: the response goes on without it.

        It is settled once the log says so.
        """
        given_up = Custody(is_sole=False)
        given_up._stops.extend(self._stops)
        self._stops.clear()
        return given_up

    def pass_on(self) -> None:
        """Note that the response goes on elsewhere, or may. What waited is dropped."""
        self.is_passed_on = True
        self._stops.clear()
