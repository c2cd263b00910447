"""All toolsets of a server, and the names by which a model knows their tools."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from unbroken.server.tools.base import Tool, Toolset
from unbroken.sessions.items import FunctionTool

__all__ = ["Catalogue", "Offer"]

_NAME_LENGTH: Final = 64
_STARTED_AT_ONCE: Final = 16
"""Toolsets: each may be a child process or a connection, and most of the time is spent waiting."""
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as one response has it."""

    name: str
    """By which the model calls it."""
    toolset: Toolset
    tool: Tool

    @property
    def function(self) -> FunctionTool:
        """The tool as a model is told of it."""
        return FunctionTool(self.name, self.tool.description, dict(self.tool.parameters))


class Catalogue:
    """The toolsets. Their tools may change at any time; a response keeps those that it began with."""

    def __init__(self, toolsets: Sequence[Toolset] = ()) -> None:
        self.toolsets: Final = tuple(toolsets)

    async def start(self) -> None:
        """Start the toolsets together, :data:`_STARTED_AT_ONCE` at a time: one that is slow delays no other.

        Raises:
            ToolsUnusable: One can't be; if several can't, the first of them. None is started then.

        """
        places, started = asyncio.Semaphore(_STARTED_AT_ONCE), list[Toolset]()

        async def start(toolset: Toolset) -> None:
            async with places:
                await toolset.start()
                started.append(toolset)

        tasks = [asyncio.create_task(start(toolset)) for toolset in self.toolsets]
        try:
            for task in tasks:
                await task
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for toolset in reversed(started):
                await toolset.stop()
            raise

    async def stop(self) -> None:
        """Stop all toolsets, the last one first."""
        for toolset in reversed(self.toolsets):
            await toolset.stop()

    def offers(self, taken: Collection[str], *, may_ask: bool) -> Mapping[str, Offer]:
        """Return the tools there are now, by the names that a model knows them by.

        A name that is among *taken*, the client's own functions, or that two
        sets have, is put behind its set's label. Without *may_ask*, tools that
        need their user's approval are left out.
        """
        tools = [
            (toolset, tool)
            for toolset in self.toolsets
            for tool in toolset.tools
            if may_ask or not tool.needs_approval
        ]
        names = [_fit(tool.name) for _, tool in tools]
        times = Counter(names)
        offers: dict[str, Offer] = {}
        for (toolset, tool), name in zip(tools, names, strict=True):
            if name in taken or times[name] > 1:
                name = _fit(f"{toolset.label}__{name}")
                if name in times:
                    continue  # it is another tool's own
            if name not in offers and name not in taken:
                offers[name] = Offer(name, toolset, tool)
        return offers

    def find(self, label: str, name: str) -> Offer | None:
        """Return the tool that a model once knew by *name*; None: it is gone."""
        tools = [
            (toolset, tool) for toolset in self.toolsets if toolset.label == label for tool in toolset.tools
        ]
        for prefix in ("", f"{label}__"):  # its own name first, as when it was offered
            for toolset, tool in tools:
                if _fit(prefix + tool.name) == name:
                    return Offer(name, toolset, tool)
        return None

    def __bool__(self) -> bool:
        return bool(self.toolsets)


def _fit(name: str) -> str:
    """Return *name* as models take it."""
    return _NOT_IN_NAMES.sub("_", name)[:_NAME_LENGTH]
