"""Functions of the caller's that the model may call.

What goes wrong in one is told to the model, never to whoever waits for the answer: the model can say so,
or try again. Of an exception it is told the type alone, for its text may be nobody else's business;
:class:`ToolFailed` is for what the model should read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

__all__ = ["Handler", "Tool", "ToolFailed", "call"]

Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[object]]
"""Is given the arguments, and returns a string, or what can be written as JSON."""

_LOG: Final = logging.getLogger("unbroken.client")


class ToolFailed(Exception):
    """For handlers to raise: the model reads the text."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function.

    Attributes:
        name: 1 to 64 letters, digits, ``_`` and ``-``.
        handler: Runs it. It is cancelled when its turn is stopped, and when it takes too long.
        description: When to call it, and what it returns.
        parameters: A JSON Schema of its arguments.

    """

    name: str
    handler: Handler = field(repr=False)
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    @property
    def fields(self) -> dict[str, Any]:
        """Return it as the protocol writes it."""
        shown = {"description": self.description} if self.description else {}
        return {"type": "function", "name": self.name, **shown, "parameters": dict(self.parameters)}


async def call(tool: Tool | None, arguments: str, *, seconds: float, most: int) -> str:
    """Run a function and return what the model is to read, of at most *most* bytes, whatever happens.

    Raises:
        CancelledError: Its turn was stopped, or the client closed.

    """
    if tool is None:
        return _failure("There is no such function.")
    try:
        given = orjson.loads(arguments)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return _failure("The arguments must be a JSON object.")
    try:
        async with asyncio.timeout(seconds):
            returned = await tool.handler(given)
        output = returned if isinstance(returned, str) else orjson.dumps(returned).decode()
        is_too_long = len(output.encode()) > most
    except ToolFailed as exc:
        return _failure(str(exc)[:most])
    except TimeoutError:
        return _failure("The function took too long.")
    except Exception as exc:  # noqa: BLE001 - the boundary to the caller's own code
        _LOG.warning("function %s failed", tool.name, exc_info=exc)
        return _failure(f"The function failed: {type(exc).__name__}.")
    return _failure("What the function returned is too long.") if is_too_long else output


def _failure(message: str) -> str:
    return orjson.dumps({"error": message}).decode()
