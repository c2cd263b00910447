from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from unbroken.server.tools.base import Tool, ToolContext, ToolsUnusable
from unbroken.server.tools.catalogue import Catalogue


class Shelf:
    """A toolset of tools that do nothing."""

    def __init__(self, label: str, *names: str, asks: bool = False, fails: bool = False) -> None:
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
