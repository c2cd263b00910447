"""The tasks that a node's sessions start: it owns them, and none outlives it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

import structlog

from unbroken.sessions.errors import (
    CursorLost,
    NodeDraining,
    SessionDeleted,
    SessionNotFound,
    StoreUnavailable,
    UnknownFormat,
)
from unbroken.sessions.ids import NodeId

__all__ = ["NodeTasks"]

_NO_BUGS: Final = (StoreUnavailable, CursorLost, NodeDraining, SessionDeleted, SessionNotFound, UnknownFormat)
"""Who waits is told of these. NodeDraining: a closing node refused a task's next step."""

_T = TypeVar("_T")


class NodeTasks:
    """Starts tasks from :meth:`open` to :meth:`close`. For one event loop.

    Unlike in a task group, one that fails leaves the others alone; what is a bug is logged.
    """

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self._tasks: set[asyncio.Task[Any]] = set()
        self._context = contextvars.Context()
        self.is_open = False

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(list(self._tasks))

    def open(self) -> None:
        """Start what comes from now on, in the context of whoever calls this."""
        self.is_open = True
        self._context = contextvars.copy_context()

    def close(self) -> None:
        """Start nothing any more. What runs goes on."""
        self.is_open = False

    async def stop(self, timeout: float) -> None:
        """Cancel all that still runs, and wait up to *timeout* seconds for it: what doesn't end is logged."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=timeout)
            if stuck:
                structlog.get_logger().error("tasks do not stop", node_id=self._node_id, count=len(stuck))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of the node's.

        Its context is the node's: what the connection that caused it bound for its logs isn't the session's.

        Raises:
            NodeDraining: The node is closing, or has been.

        """
        task = self._start(work)
        task.add_done_callback(self._ended)
        return task

    async def wholly(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do *work* to its end, also if who waits for it is cut off: by the store, half of it may be done.

        Raises:
            NodeDraining: The node is closing, or has been.

        """
        task = self._start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if task.cancelled() and not (waiting is not None and waiting.cancelling()):
                raise NodeDraining from None
            task.add_done_callback(self._ended)  # nobody is told any more
            raise

    def _start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        if not self.is_open:
            work.close()
            raise NodeDraining
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or (exc := task.exception()) is None:
            return
        if not isinstance(exc, _NO_BUGS):
            structlog.get_logger().error("task failed", node_id=self._node_id, exc_info=exc)
