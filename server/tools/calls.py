"""One call of a tool: from the arguments as the model wrote them to a result of bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.tools.base import ToolContext, ToolFailed
from unbroken.server.tools.catalogue import Offer
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import ToolError
from unbroken.sessions.responder import ToolEnded

__all__ = ["CallLimits", "Called", "are_arguments", "run"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

_CRASHED: Final = ToolError("The tool failed unexpectedly.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What one call may take."""

    timeout: float = 60.0
    """Seconds, where the tool says nothing else."""
    result_bytes: int = 16 * 1024
    """UTF-8 bytes after which a result is cut."""


@dataclass(frozen=True, slots=True)
class Called:
    """A call whose arguments are whole."""

    item_id: ItemId
    offer: Offer
    arguments: str
    """JSON, by the model's account."""


async def run(
    called: Called, context: ToolContext, limits: CallLimits, count: Callable[[str, str], None]
) -> ToolEnded:
    """Run a tool, and return what came of it: an error, too, is something to go on with.

    *count* is told the toolset's label and how it ended. Cancelling stops the tool.
    """
    tool, toolset = called.offer.tool, called.offer.toolset
    timeout = limits.timeout if tool.timeout is None else tool.timeout
    outcome, output = "failed", None
    error: ToolError | None = None
    limit = asyncio.timeout(timeout)
    try:
        arguments = _arguments_of(called.arguments)
        async with limit:
            output = _cut(await toolset.run(tool, arguments, context), limits.result_bytes)
        outcome = "completed"
    except ToolFailed as exc:
        # It is code that isn't ours: whatever the types say, it may have given anything.
        code = exc.code if isinstance(exc.code, int) else None
        error = ToolError(_cut(str(exc.message), limits.result_bytes), code)
    except TimeoutError as exc:
        if limit.expired():
            outcome = "timeout"
            error = ToolError(f"The tool didn't end within {timeout:g} seconds. It may have done its work.")
        else:
            error = _crashed(called, exc)
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            count(toolset.label, "stopped")
            raise
        error = _crashed(called, exc)  # of the tool's own making
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - it is code that isn't ours
        error = _crashed(called, exc)
    count(toolset.label, outcome)
    return ToolEnded(called.item_id, output, error)


def _crashed(called: Called, exc: BaseException) -> ToolError:
    # No message: it may quote the conversation or a secret.
    _log.error("tool crashed", tool=called.offer.name, error=type(exc).__qualname__)
    return _CRASHED


def _arguments_of(text: str) -> dict[str, Any]:
    try:
        arguments = orjson.loads(text) if text.strip() else {}
    except orjson.JSONDecodeError:
        raise ToolFailed("The arguments aren't JSON. Nothing was done.") from None
    if not isinstance(arguments, dict):
        raise ToolFailed("The arguments aren't a JSON object. Nothing was done.")
    return arguments


def are_arguments(text: str) -> bool:
    """Return whether *text* is what a tool can be called with."""
    try:
        _arguments_of(text)
    except ToolFailed:
        return False
    return True


def _cut(text: str, most: int) -> str:
    """Return as much of *text* as has a place, with a mark where there was more."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= most:
        return encoded.decode()
    mark = f"\n[cut here: the result has {len(encoded)} bytes]"
    return encoded[: max(most - len(mark), 0)].decode("utf-8", "ignore") + mark
