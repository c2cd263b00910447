"""How many connections and responses somebody may have at once: on this node, and on all of them.

Where there is a tally, whoever wants one more is counted in it before they get it. What goes is told at
once. There is one call at a time to each part of it, for all who have something to ask or to tell meanwhile,
and it says what is so when it is made: so numbers never arrive in another order than they came about.

Guarantees:

- On this node, nobody is ever given more than they may have.
- On all nodes, neither, while the tally can be asked; but for what is counted without being asked
  for (:meth:`Caps.change`), and for what a node has that was taken for dead, until it tells its numbers anew.
- A part of the tally that is out of reach refuses nobody: then each node holds alone the bounds of those
  whose numbers it has, and of nobody else. When it is back, or has lost something, it is told everything,
  and each minute besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from unbroken.sessions.backends.tally import Kind, Tally
from unbroken.sessions.clock import Clock, Timer, pause
from unbroken.sessions.tally_part import Key, TallyPart

__all__ = ["Caps"]

_MOMENT: Final = 0.25
"""Seconds after which one who was refused is asked for once more: what has just gone on another node may not
have been told yet."""

_RETRY_INTERVAL: Final = 1.0
"""Seconds between two attempts at a part of a tally that is out of reach."""

_PLACED_AT_ONCE: Final = 1000
"""Numbers whose part is looked up anew before an attempt: it takes about ten microseconds for each."""

_TELLING_INTERVAL: Final = 60.0
"""Seconds after which everything is told again: in a tally, numbers that are old are forgotten."""

_LEAVING: Final = 0.1
"""Seconds for telling that this node has nothing any more. Its death would be noticed, only later, and a
process's end has but half a second."""


class Caps:
    """What everybody has on this node, and whether they may have more.

    Args:
        clock: Where time comes from.
        tally: What all nodes have. None: there are no others, and nobody ever waits.
        on_alone: Told of each that was let in on this node's word alone, as the tally is out of reach.

    """

    def __init__(
        self, clock: Clock, tally: Tally | None = None, *, on_alone: Callable[[Kind], None] = lambda _: None
    ) -> None:
        self._clock = clock
        self._tally = tally
        self._on_alone = on_alone
        self._held: dict[Key, int] = {}
        self._parts: dict[str, TallyPart] = {}  # those that anything is known of
        self._timers: dict[str, Timer] = {}
        self._is_open = False

    def held(self, kind: Kind, whose: str) -> int:
        """Return how many of *kind* somebody has on this node."""
        return self._held.get((kind, whose), 0)

    def holders(self, kind: Kind) -> int:
        """Return how many have any of *kind* on this node. Walks through all."""
        return sum(of == kind for of, _ in self._held)

    # While there is a tally.

    def open(self) -> None:
        """Ask and tell the tally from here on. Before, and after :meth:`aclose`, this node is by itself."""
        if self._tally is not None:
            self._note_open(True)
            self._later("telling", _TELLING_INTERVAL, self._tell_again)

    async def aclose(self) -> None:
        """Tell the tally that this node has nothing, in a moment or not at all. Harmless if it isn't open."""
        self._note_open(False)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LEAVING), asyncio.TaskGroup() as group:
                    for part in self._parts.values():  # one that is late takes nobody's time
                        group.create_task(part.take_back())
        finally:
            if tasks := [task for part in self._parts.values() if (task := part.stop()) is not None]:
                await asyncio.wait(tasks)
            for part in self._parts.values():
                part.let_in()

    def _note_open(self, is_open: bool) -> None:
        self._is_open = is_open
        for part in self._parts.values():
            part.is_open = is_open

    def _later(self, name: str, delay: float, callback: Callable[[], None]) -> None:
        self._timers[name] = self._clock.call_later(delay, callback)

    # What everybody has.

    async def admit(self, kind: Kind, whose: str, most: int, *, is_patient: bool = True) -> bool:
        """Count one more, unless there are *most* already. Return whether it was: then have it go again,
        by :meth:`change`.

        Without a tally it never suspends. With one, whoever is refused by it is asked for once
        more, after a moment, if they are patient. One who is cut off while waiting is not counted.
        """
        key = kind, whose
        if not self._has_room(key, most):
            return False
        if await self._try(key, most):
            return True
        if not is_patient:
            return False
        await pause(self._clock, _MOMENT)
        return self._has_room(key, most) and await self._try(key, most)

    def change(self, kind: Kind, whose: str, by: int) -> None:
        """Count so many more, or fewer, without asking: of what goes, or is here whether it may or not."""
        self._count((kind, whose), by)

    def _has_room(self, key: Key, most: int) -> bool:
        room = most - self._held.get(key, 0)
        return sum(part.waiting(key, room) for part in self._parts.values()) < room

    def _count(self, key: Key, by: int) -> None:
        held = self._held.get(key, 0) + by
        if held < 0:
            raise AssertionError("can't happen: more went than came")
        if held:
            self._held[key] = held
        else:
            self._held.pop(key, None)
        if self._tally is not None:
            self._part(self._tally, key).note(key)

    async def _try(self, key: Key, most: int) -> bool:
        if self._tally is None or not self._is_open:
            self._count(key, 1)
            return True
        part = self._part(self._tally, key)
        if part.is_alone:
            self._count(key, 1)
            self._on_alone(key[0])
            return True
        answer = part.ask(key, most)
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.result():
                self._count(key, -1)  # it was let in, in this very moment
            raise

    # Which part of the tally has what.

    def _part(self, tally: Tally, key: Key) -> TallyPart:
        """Return the part that knows of *key*; for as long as it does, lest numbers overtake others."""
        for part in self._parts.values():
            if key in part:
                return part
        return self._named(tally, tally.part_of(key[1]))

    def _named(self, tally: Tally, name: str) -> TallyPart:
        if (part := self._parts.get(name)) is None:
            part = self._parts[name] = TallyPart(
                name,
                tally,
                self._held,
                on_alone=self._on_alone,
                on_failure=partial(self._failed, tally),
                find_part=lambda whose: self._named(tally, tally.part_of(whose)),
            )
            part.is_open = self._is_open
        return part

    def _failed(self, tally: Tally, part: TallyPart) -> None:
        if self._is_open:
            self._later(f"retry {part.name}", _RETRY_INTERVAL, partial(self._try_again, tally, part))

    def _try_again(self, tally: Tally, part: TallyPart) -> None:
        """Ask a part again that failed. What another has by now is that one's."""
        for key in part.suspects(_PLACED_AT_ONCE):
            now = self._named(tally, tally.part_of(key[1]))
            if now is not part and part.give_away(key):
                now.note(key)
        part.begin(is_retry=True)

    # What has to be told again.

    def renew(self) -> None:
        """Tell the tally everything: it may have lost something."""
        for part in self._parts.values():
            part.renew()

    def _tell_again(self) -> None:
        self._later("telling", _TELLING_INTERVAL, self._tell_again)
        self._parts = {name: part for name, part in self._parts.items() if not part.is_unused}
        self.renew()
