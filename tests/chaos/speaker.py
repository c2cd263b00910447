"""A person: one conversation in one or two tabs, a question after another."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.checker import status_of, turn_of
from tests.chaos.client import Place, Tab
from tests.chaos.history import Frame, History, Received, Witness
from tests.chaos.words import prompt
from unbroken.server.protocols.cursor import parse_cursor

__all__ = ["Manner", "Speaker"]

_UNKNOWN: Final = 8.0
"""Seconds after which somebody who was told to start over no longer waits for what was asked before."""

_TALK: Final = 3
"""Turns in each session of somebody who wanders."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What kind of client it is."""

    has_second_tab: bool = False
    is_slow: bool = False
    cancels: bool = False
    words: int = 30
    pause: float = 0.05
    """Seconds between two words."""
    meets_failures: bool = False
    """Whether some of its answers have no word, and some agents fail, also before their first word."""
    wanders: bool = False
    """Whether it loses its connection before it says the first word, and in the first answer; and soon begins
    another session.
    """


@dataclass(eq=False)
class Speaker:
    """Use :meth:`speak` as a task.

    Set :attr:`is_over` to have it ask nothing more, and :attr:`may_leave` to have it end then.
    """

    name: str
    place: Place
    draw: random.Random
    manner: Manner
    is_over: bool = False
    asked: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    """How its turns have ended, by status; ``unknown`` where it was told to start over in between."""
    histories: list[History] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a turn has ended. For who waits to clear."""
    rests: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is over, and all tabs have seen everything. They stay."""
    may_leave: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to have the tabs leave, once they are connected and have seen everything."""
    waits_for: str | None = None
    """The turn that has not ended yet."""
    _turns: int = 0

    def witness(self) -> Witness:
        """Return what was seen."""
        return Witness(self.name, self.histories, self.ended, self.refusals)

    async def speak(self) -> None:
        """Talk, in as many sessions as it takes, until it is over and all tabs have seen everything."""
        try:
            while not self.is_over:
                await self._session()
        finally:
            self.rests.set()

    async def _session(self) -> None:
        tabs = [self._tab("a", None)]
        tasks = [asyncio.create_task(tabs[0].live())]
        try:
            if self.manner.wanders:
                await _lost(tabs[0])
            while not (self.is_over or tabs[0].is_gone):
                await self._turn(tabs[0])
                if self.manner.wanders and self._has_talked():
                    return
                if self.manner.has_second_tab and len(tabs) == 1 and tabs[0].resume is not None:
                    tabs.append(self._tab("b", tabs[0].resume))
                    tasks.append(asyncio.create_task(tabs[1].live()))
            if not tabs[0].is_gone:
                await asyncio.gather(*map(_settled, tabs))
                self.rests.set()
                await self.may_leave.wait()
                await asyncio.gather(*map(_settled, tabs))
                for tab in tabs:
                    tab.history.is_open = not tab.is_gone
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task, tab in zip(tasks, tabs, strict=True):
                self.refusals += tab.refusals
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    def _has_talked(self) -> bool:
        """Whether a session has had enough turns of one that wanders."""
        self._turns += 1
        return not (self.is_over or self._turns % _TALK)

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
        turn = self._prompt(key)
        watch = _Watch(tab, turn, f"item-{key}")
        self.waits_for = turn
        await tab.say(turn, f"item-{key}")
        if self.manner.cancels and self.draw.random() < 0.7:
            await self._cancel(tab, watch)
        if self.manner.wanders and self._turns % _TALK == 0:
            await _told(tab, watch)
            await _lost(tab)
        outcome = await self._outcome(tab, watch)
        self.ended[outcome] = self.ended.get(outcome, 0) + 1
        self.waits_for = None
        self.answered.set()
        tab.forget(turn, f"item-{key}", f"stop-{self.asked}")

    def _prompt(self, key: str) -> str:
        words = self.draw.randint(1, 2 * self.manner.words)
        if not self.manner.meets_failures:
            return prompt(key, words, self.manner.pause)
        fails, is_silent = self.draw.random() < 0.1, self.draw.random() < 0.1
        return prompt(key, 0 if is_silent else words, self.manner.pause, fails=fails)

    async def _cancel(self, tab: Tab, watch: _Watch) -> None:
        """Stop the answer after some of its pieces."""
        wanted = self.draw.randint(0, self.manner.words)

        def is_due() -> bool:
            watch.look()
            return watch.pieces >= wanted or tab.is_gone or watch.is_reset or watch.ended is not None

        async with tab.changed:
            await tab.changed.wait_for(is_due)
        await tab.cancel(f"stop-{self.asked}")

    async def _outcome(self, tab: Tab, watch: _Watch) -> str:
        def is_known() -> bool:
            watch.look()
            return tab.is_gone or watch.outcome is not None

        def is_reset() -> bool:
            return is_known() or watch.is_reset

        async with tab.changed:
            await tab.changed.wait_for(is_reset)
            if not is_known():
                try:
                    async with asyncio.timeout(_UNKNOWN + 2 * self.manner.words * self.manner.pause):
                        await tab.changed.wait_for(is_known)
                except TimeoutError:
                    return "unknown"
        return watch.outcome or "unknown"


class _Watch:
    """What has become of a turn, as far as its tab has been shown. Reads each frame once."""

    def __init__(self, tab: Tab, turn: str, item_id: str) -> None:
        self.pieces = 0
        """Of answers, since it was asked."""
        self.ended: str | None = None
        """How the last attempt ended; None: it hasn't."""
        self._standing: str | None = None
        self._tab = tab
        self._turn = turn
        self._item_id = item_id
        self._read = len(tab.history.events)
        self._resets = tab.resets

    @property
    def is_reset(self) -> bool:
        """Whether the tab was told to start over since."""
        return self._tab.resets > self._resets

    @property
    def outcome(self) -> str | None:
        """How it ended, or how it is shown to have ended to who starts over; None: that isn't known."""
        return self.ended or (self._standing if self.is_reset else None)

    def look(self) -> None:
        """Read what has come."""
        events = self._tab.history.events
        for event in events[self._read :]:
            if isinstance(event, Received):
                self._see(event.frame)
        self._read = len(events)

    def _see(self, frame: Frame) -> None:
        match frame["type"]:
            case "response.output_text.delta":
                self.pieces += 1
            case "response.created" if turn_of(frame["response"]) == self._turn:
                self.ended = None
            case "response.done" if turn_of(frame["response"]) == self._turn:
                self.ended = status_of(frame["response"])
            case "conversation.item.done" if frame.get("previous_item_id") == self._item_id:
                self._standing = self._standing or f"{frame['item']['status']} when told to start over"


async def _lost(tab: Tab) -> None:
    """Have a tab lose its connection once it has one, without a word: it comes back to whichever node."""
    async with tab.changed:
        await tab.changed.wait_for(lambda: tab.is_gone or tab.is_connected)
    tab.cut()


async def _told(tab: Tab, watch: _Watch) -> None:
    """Wait for the first piece of an answer, or until there is none to wait for."""

    def is_told() -> bool:
        watch.look()
        return watch.pieces > 0 or tab.is_gone or watch.is_reset or watch.ended is not None

    async with tab.changed:
        await tab.changed.wait_for(is_told)


async def _settled(tab: Tab) -> None:
    """Wait until a tab is connected, and has seen the end of all that it has seen begin, and all is saved.

    What isn't may be begun anew: who has left by then has seen what is nowhere, and wasn't told.
    """

    def is_settled() -> bool:
        last = tab.history.segments()[-1:]
        if not last or parse_cursor(last[0].frames[-1]["event_id"]) is None:
            return False  # how things stand isn't shown to its end
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
        await tab.changed.wait_for(lambda: tab.is_gone or (tab.is_connected and is_settled()))
