"""redis-py's client of a cluster, of whose servers one that fails takes none of the others along.

The client of 8.1 does three things for one server's sake that all others' calls pay for: where a server says
that it serves a slot no more, it closes all connections, to all servers, with the calls that are under way on
them; where keys are half moved, it waits and asks again, up to sixteen times; and after a call that failed,
everybody's next call waits until some server, which may be the one that hangs, has said anew who serves what.
Here whoever calls is told, and who serves what is asked for in the background: until it is known better, what
was known is good. A server that is asked for what another has says so.

And it begins without the server that is listed first, or what commands there are is asked of the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Self

from redis._parsers import AsyncCommandsParser
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    RedisClusterException,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from unbroken.sessions.backends.redis.scripts import HalfMoved, SlotDown

__all__ = ["CalmCluster", "CalmConnection"]

_PAUSE: Final = 1.0
"""Seconds from one time that it is asked who serves what to the next: the answer has all connections, to all
servers, be made anew.
"""


class CalmConnection:
    """A connection to a server of a cluster. To be mixed into one of redis-py's."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read.

        Raises:
            HalfMoved: The server says TRYAGAIN.
            SlotDown: The server says CLUSTERDOWN.

        """
        try:
            return await super().read_response(*args, **kwargs)  # type: ignore[misc]
        except TryAgainError as exc:
            raise HalfMoved(str(exc)) from None
        except ClusterDownError as exc:
            raise SlotDown(str(exc)) from None


class _Commands(AsyncCommandsParser):
    """What commands servers have. One that doesn't answer is no reason to do without any."""

    def __init__(self, primaries: Callable[[], Iterable[ClusterNode]]) -> None:
        super().__init__()
        self._primaries = primaries

    async def initialize(self, node: ClusterNode | None = None) -> None:
        """Ask *node*, and then the other primaries until one answers.

        Raises:
            RedisError: As the last one that was asked says.

        """
        others = [each for each in self._primaries() if each is not node]
        asked = others if node is None else [node, *others]
        for each in asked[:-1]:
            with suppress(ConnectionError, TimeoutError):
                await super().initialize(each)
                return
        await super().initialize(asked[-1])


class CalmCluster(RedisCluster):
    """A client of a cluster. Its owner closes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_parser = _Commands(self.get_primaries)
        self._is_known = False  # who serves what
        self._failed: str | None = None  # the server that a call has failed of last
        self._asking: asyncio.Task[None] | None = None
        self._ask_at = 0.0  # not before

    async def initialize(self, *args: Any, **kwargs: Any) -> Self:
        """Find out who serves what: the first time before it returns, then in the background."""
        if not self._is_known:
            await super().initialize(*args, **kwargs)
            self._is_known = True
        elif self._asking is None and (now := asyncio.get_running_loop().time()) >= self._ask_at:
            self._initialize = False
            self._ask_at = now + _PAUSE
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        return self

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Call.

        Raises:
            RedisError: As redis-py does.

        """
        if (
            not self._is_known
        ):  # else the first call goes to any server, and isn't sent on by one that is gone
            await self.initialize()
        return await super().execute_command(*args, **kwargs)

    async def _execute_command(self, target_node: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._execute_command(target_node, *args, **kwargs)
        except (ConnectionError, TimeoutError):
            self._failed = target_node.name
            raise
        except SlotDown:  # its slots may be another's by now
            self._failed, self._initialize = target_node.name, True
            raise

    async def _ask(self) -> None:
        # Nobody is there who could say, or who does in full: the next call that fails has it asked again.
        with suppress(RedisError, RedisClusterException, OSError):
            await self.nodes_manager.initialize(last_failed_node_name=self._failed)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # there is nobody to be told

    async def aclose(self) -> None:
        """Close all connections."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        self._initialize = not self._is_known  # else nothing would be closed
        await super().aclose()
