"""A person: one conversation in one or two tabs, a question after another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.checker import status_of, turn_of
from tests.chaos.client import Place, Tab
from tests.chaos.history import Frame, History, Received
from tests.chaos.words import prompt

__all__ = ["Manner", "Speaker"]

_UNKNOWN: Final = 8.0
"""Seconds after which somebody who was told to start over no longer waits for what was asked before."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What kind of client it is."""

    has_second_tab: bool = False
    is_slow: bool = False
    cancels: bool = False
    words: int = 30
    pause: float = 0.05
    """Seconds between two words."""


@dataclass(eq=False)
class Speaker:
    """Use :meth:`speak` as a task; set :attr:`is_over` to have it end after what it has asked."""

    name: str
    place: Place
    draw: random.Random
    manner: Manner
    is_over: bool = False
    asked: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    """How its turns have ended, by status; ``unknown`` where it was told to start over in between."""
    histories: list[History] = field(default_factory=list)
    open: list[History] = field(default_factory=list)
    """Those of the tabs that were connected in the end."""
    refusals: list[str] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a turn has ended. For who waits to clear."""
    waits_for: str | None = None
    """The turn that has not ended yet."""

    async def speak(self) -> None:
        """Talk, in as many sessions as it takes, until it is over and all tabs have seen everything."""
        while not self.is_over:
            await self._session()

    async def _session(self) -> None:
        tabs = [self._tab("a", None)]
        tasks = [asyncio.create_task(tabs[0].live())]
        try:
            while not (self.is_over or tabs[0].is_gone):
                await self._turn(tabs[0])
                if self.manner.has_second_tab and len(tabs) == 1 and tabs[0].resume is not None:
                    tabs.append(self._tab("b", tabs[0].resume))
                    tasks.append(asyncio.create_task(tabs[1].live()))
            if not tabs[0].is_gone:
                self.open = [tab.history for tab in tabs if not tab.is_gone]
                for tab in tabs:
                    await _settled(tab)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task, tab in zip(tasks, tabs, strict=True):
                self.refusals += tab.refusals
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    def _tab(self, name: str, resume: str | None) -> Tab:
        patience = 0.02 if self.manner.is_slow else 0.0
        draw = random.Random(self.draw.random())
        tab = Tab(f"{self.name}{name}{len(self.histories)}", self.place, draw, patience, resume)
        self.histories.append(tab.history)
        return tab

    async def _turn(self, tab: Tab) -> None:
        """Ask something, and wait until it is answered, or until that can't be known any more."""
        self.asked += 1
        key = f"{self.name}-{self.asked}"
        turn = prompt(key, self.draw.randint(1, 2 * self.manner.words), self.manner.pause)
        begin, resets = len(tab.history.events), tab.resets
        self.waits_for = turn
        await tab.say(turn, f"item-{key}")
        if self.manner.cancels and self.draw.random() < 0.7:
            await self._cancel(tab, turn, begin, resets)
        outcome = await self._outcome(tab, turn, f"item-{key}", begin, resets)
        self.ended[outcome] = self.ended.get(outcome, 0) + 1
        self.waits_for = None
        self.answered.set()
        tab.forget(turn, f"item-{key}", f"stop-{self.asked}")

    async def _cancel(self, tab: Tab, turn: str, begin: int, resets: int) -> None:
        """Stop the answer after some of its pieces."""
        wanted = self.draw.randint(0, self.manner.words)

        def is_due() -> bool:
            frames = list(_frames(tab.history, begin))
            said = sum(frame["type"] == "response.output_text.delta" for frame in frames)
            return said >= wanted or tab.is_gone or tab.resets > resets or _done(frames, turn) is not None

        async with tab.changed:
            await tab.changed.wait_for(is_due)
        await tab.cancel(f"stop-{self.asked}")

    async def _outcome(self, tab: Tab, turn: str, item_id: str, begin: int, resets: int) -> str:
        def outcome() -> str | None:
            ended = _done(_frames(tab.history, begin), turn)
            return ended or (_standing(tab.history, begin, item_id) if tab.resets > resets else None)

        def is_known() -> bool:
            return tab.is_gone or outcome() is not None

        def is_reset() -> bool:
            return is_known() or tab.resets > resets

        async with tab.changed:
            await tab.changed.wait_for(is_reset)
            if not is_known():
                try:
                    async with asyncio.timeout(_UNKNOWN + 2 * self.manner.words * self.manner.pause):
                        await tab.changed.wait_for(is_known)
                except TimeoutError:
                    return "unknown"
        return outcome() or "unknown"


def _frames(history: History, begin: int) -> Iterator[Frame]:
    return (event.frame for event in history.events[begin:] if isinstance(event, Received))


def _done(frames: Iterator[Frame] | list[Frame], turn: str) -> str | None:
    """Return how the last attempt at *turn* ended; None: it hasn't."""
    status = None
    for frame in frames:
        if frame["type"] in ("response.created", "response.done") and turn_of(frame["response"]) == turn:
            status = status_of(frame["response"]) if frame["type"] == "response.done" else None
    return status


def _standing(history: History, begin: int, item_id: str) -> str | None:
    """Return how the answer to an item is shown to have ended, to who starts over; None: it isn't."""
    for frame in _frames(history, begin):
        if frame["type"] == "conversation.item.done" and frame.get("previous_item_id") == item_id:
            return f"{frame['item']['status']} when told to start over"
    return None


async def _settled(tab: Tab) -> None:
    """Wait until a tab has seen the end of every response that it has seen begin, and all of it is saved.

    What isn't may be begun anew: who has left by then has seen what is nowhere, and wasn't told.
    """

    def is_settled() -> bool:
        last = tab.history.segments()[-1:]
        if not last:
            return False
        running: set[str] = set()
        is_durable = True
        for frame in last[0].frames:
            if frame["type"] in ("session.created", "session.updated"):
                unless_told = is_durable or frame["type"] == "session.created"
                is_durable = frame["session"]["unbroken"].get("durable", unless_told)
            elif frame["type"] == "response.created":
                running.add(frame["response"]["id"])
            elif frame["type"] == "response.done":
                running.discard(frame["response"]["id"])
        return is_durable and not running

    async with tab.changed:
        await tab.changed.wait_for(lambda: tab.is_gone or is_settled())
