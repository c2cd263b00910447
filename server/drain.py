"""A drain that an operator begins, looks at and takes back, while the process goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Literal

import structlog
from msgspec import Struct

from unbroken.sessions.node import Node

__all__ = ["Drain", "DrainState", "Stopping"]


class Stopping(Exception):
    """The process is about to end: that can't be taken back."""


class DrainState(Struct, frozen=True, omit_defaults=True):
    """How far a drain is."""

    status: Literal["serving", "draining", "drained"]
    connections: int
    responses: int
    """Those that run."""
    sessions: int
    """Those held here. With the store in memory they stay when it is drained, and end with the process."""
    group: int | None = None
    """What the workers of one server have in common."""


class Drain:
    """What SIGTERM does to a node, but for the end of its process.

    Args:
        node: The node.
        timeout: Seconds that running responses get.
        others: What ends with it, in the same process.
        on_begin: Called as the node takes no new work any more, whoever says so.

    """

    def __init__(
        self,
        node: Node,
        timeout: float,
        on_begin: Callable[[], None] | None = None,
        *,
        others: Sequence[Node] = (),
    ) -> None:
        self._node: Final = node
        self._nodes: Final = (node, *others)
        self._timeout: Final = timeout
        self._on_begin: Final = on_begin
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.group: int | None = None
        """What the workers of one server have in common; None: there are none."""

    @property
    def state(self) -> DrainState:
        """How far it is. Drained: nothing is left here, and nothing new is taken."""
        hubs = [node.hub for node in self._nodes]
        status: Literal["serving", "draining", "drained"] = (
            "serving" if not self._node.is_draining else "drained" if self._is_settled else "draining"
        )
        return DrainState(
            status,
            sum(hub.connections for hub in hubs),
            sum(hub.running for hub in hubs),
            sum(map(len, hubs)),
            self.group,
        )

    @property
    def _is_settled(self) -> bool:
        return all(node.is_settled for node in self._nodes)

    def begin(self) -> None:
        """Take no new work, and end what there is. Harmless while that is being done, or after."""
        if not self._node.is_draining:
            structlog.get_logger().info("drain began", signal=None)
            self.take_nothing()
            self._task = asyncio.get_running_loop().create_task(self._end_work())

    def take_nothing(self) -> None:
        """Take no new work, and tell whoever waits to be taken."""
        for node in self._nodes:
            node.begin_drain()
        if self._on_begin is not None:
            self._on_begin()

    async def _end_work(self) -> None:
        log = structlog.get_logger()
        try:
            async with asyncio.TaskGroup() as group:
                for node in self._nodes:
                    group.create_task(self._end(node))
        except Exception as exc:
            log.error("drain failed", exc_info=exc)
        else:
            log.info("drained", sessions=len(self._node.hub))

    async def _end(self, node: Node) -> None:
        await node.drained(self._timeout)
        if not node.is_settled:
            # A client that doesn't read, or a store out of reach. The process isn't about to end.
            structlog.get_logger().warning(
                "drain met its deadline", connections=node.hub.connections, sessions=len(node.hub)
            )
            await node.settled()

    async def take_back(self) -> None:
        """Take new work again. What has ended has ended. Harmless where nothing drains.

        Raises:
            Stopping: The process was told to end meanwhile.

        """
        if self._is_stopping:
            raise Stopping
        await self._cancel()
        if self._is_stopping:  # the signal came in this moment
            raise Stopping
        if self._node.is_draining:
            for node in self._nodes:
                node.end_drain()
            structlog.get_logger().info("drain taken back")

    async def stop(self) -> None:
        """Leave the rest to whoever ends the process."""
        self.note_stopping()
        await self._cancel()

    def note_stopping(self) -> None:
        """Note that the process is about to end."""
        self._is_stopping = True

    async def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
