from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from unbroken.server.tools.base import Tool, ToolContext, ToolsUnusable
from unbroken.server.tools.catalogue import Catalogue


class Shelf:
    """A toolset of tools that do nothing."""

    def __init__(self, label: str, *names: str, asks: bool = False, fails: bool = False) -> None:
        self.has_started = asyncio.Event()
        self.label = label
        self.tools: Sequence[Tool] = [
            Tool(name=name, parameters={"type": "object"}, needs_approval=asks) for name in names
        ]
        self.fails = fails
        self.is_running = False

    async def start(self) -> None:
        if self.fails:
            raise ToolsUnusable("broken")
        self.is_running = True
        self.has_started.set()

    async def stop(self) -> None:
        self.is_running = False

    async def run(self, tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> str:
        raise AssertionError("nothing runs here")


def test_a_name_that_clashes_is_put_behind_its_label() -> None:
    catalogue = Catalogue([Shelf("a", "f", "g"), Shelf("b", "f", "h.i")])
    offers = catalogue.offers({"g"}, may_ask=True)

    assert list(offers) == ["a__f", "a__g", "b__f", "h_i"]
    assert offers["b__f"].toolset.label == "b"
    assert offers["h_i"].tool.name == "h.i"
    assert offers["h_i"].function.name == "h_i"


@pytest.mark.parametrize("name", ["f", "a__f", "b__f", "h_i", "b__h_i"])
def test_a_tool_is_found_by_any_name_that_it_had(name: str) -> None:
    label = "a" if name == "a__f" else "b"
    catalogue = Catalogue([Shelf("a", "f"), Shelf("b", "f", "h.i")])
    found = catalogue.find(label, name)

    assert found is not None
    assert (found.toolset.label, found.name) == (label, name)
    assert catalogue.find("c", name) is None
    assert catalogue.find(label, "gone") is None


def test_no_name_stands_for_two_tools() -> None:
    """What was approved of is found by its name: it must be the very tool that was offered by it."""
    catalogue = Catalogue([Shelf("a", "f", "a__f")])
    for taken in ((), ("f",)):
        for name, offer in catalogue.offers(taken, may_ask=True).items():
            found = catalogue.find("a", name)
            assert found is not None
            assert found.tool is offer.tool


def test_who_may_not_ask_isnt_offered_what_asks() -> None:
    catalogue = Catalogue([Shelf("a", "f"), Shelf("b", "g", asks=True)])

    assert list(catalogue.offers((), may_ask=False)) == ["f"]
    assert list(catalogue.offers((), may_ask=True)) == ["f", "g"]


class Meeting(Shelf):
    """Starts when all of its kind are being started, and not before."""

    def __init__(self, label: str, all_here: asyncio.Barrier) -> None:
        super().__init__(label)
        self._all_here = all_here

    async def start(self) -> None:
        await self._all_here.wait()
        await super().start()


class Stuck(Shelf):
    """Never starts; notes that it was told to give up."""

    gave_up = False

    async def start(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.gave_up = True


async def test_they_are_started_together() -> None:
    all_here = asyncio.Barrier(3)
    shelves = [Meeting(label, all_here) for label in "abc"]
    async with asyncio.timeout(5):
        await Catalogue(shelves).start()

    assert all(shelf.is_running for shelf in shelves)


async def test_only_so_many_are_being_started_at_once() -> None:
    running, most = 0, 0

    class Counted(Shelf):
        async def start(self) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await Catalogue([Counted(f"s{number}") for number in range(40)]).start()

    assert most == 16


async def test_who_gives_up_starting_leaves_nothing_behind() -> None:
    first, stuck = Shelf("a"), Stuck("b")
    starting = asyncio.create_task(Catalogue([first, stuck]).start())
    await first.has_started.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert stuck.gave_up
    assert not first.is_running


async def test_all_are_started_or_none() -> None:
    first, last = Shelf("a"), Shelf("b", fails=True)
    with pytest.raises(ToolsUnusable):
        await Catalogue([first, last]).start()
    assert not first.is_running

    last.fails = False
    catalogue = Catalogue([first, last])
    await catalogue.start()
    assert first.is_running
    assert last.is_running
    await catalogue.stop()
    assert not first.is_running
