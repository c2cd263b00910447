"""The interface of what the server can do for an agent: tools, in sets.

A toolset guarantees:

- It never blocks the event loop.
- :meth:`Toolset.run` does its work once for each time it is called, or not at all; nobody
  calls it twice with the same :attr:`ToolContext.key`.
- Cancelling the task that runs a tool stops it, within a second.
- What goes wrong it raises as :class:`ToolFailed`, in words that the model and the client may read.

::

    Exception
    +-- ToolFailed        the tool says that it failed, or its arguments don't fit
    +-- ToolsUnusable     a toolset can't be started; for the operator
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Tool", "ToolContext", "ToolFailed", "ToolsUnusable", "Toolset"]


class ToolFailed(Exception):
    """The tool has no result. *message* is shown to the model and to the client.

    Attributes:
        message: Why.
        code: The MCP server's code, where it was its protocol that failed.

    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ToolsUnusable(Exception):
    """A toolset can't be started. The text, for the operator, says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """Something that a toolset can do."""

    name: str
    """Unique in its set."""
    description: str | None = None
    parameters: Mapping[str, Any]
    """A JSON schema of an object."""
    needs_approval: bool = False
    """Whether the user has to approve of each call."""
    timeout: float | None = None
    """Seconds that a call may take. None: what is usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """For whom a tool is run. A Python tool gets it as ``call``, if it has a parameter of that name."""

    key: str
    """Of this call alone, for ever: fit for an idempotency key."""
    session_id: str
    principal: str
    """Opaque and stable for one user."""


class Toolset(Protocol):
    """Tools that come from one place. See the module's text for what it guarantees."""

    @property
    def label(self) -> str:
        """What it is called: letters, digits, dashes and underscores. Unique on a server."""

    @property
    def tools(self) -> Sequence[Tool]:
        """What there is now. Empty while there is nothing to be had."""

    async def start(self) -> None:
        """Get ready.

        Raises:
            ToolsUnusable: It can't be, for good.

        """

    async def stop(self) -> None:
        """Release everything. No tool is running when it is called."""

    async def run(self, tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Run *tool* and return its result.

        Raises:
            ToolFailed: It has none.

        """
