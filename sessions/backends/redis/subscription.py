"""A node's own channel: heard, and subscribed to anew where nobody else sees it listen.

A subscription can be left behind. After a failover, a server that has become a
replica may keep one, and answer as ever, while all others ask, and tell,
another server. So a node looks for itself where it looks for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from redis.asyncio.client import PubSub

from unbroken.sessions.backends.redis.channels import Channels, close
from unbroken.sessions.ids import NodeId

__all__ = ["Subscription"]

_OPENING: Final = 5.0
_MOST_PAUSE: Final = 60.0


class Subscription:
    """What a node is told on its channel. Raises what the client does.

    Args:
        channels: All nodes'.
        silence: Seconds after which a channel that is silent is asked whether it is still one.
        pause: Seconds after it was ended because nobody saw it in which it isn't ended for that again; twice
            as many after each further time.
        on_text: Told what is told. Doesn't raise.

    """

    def __init__(
        self, channels: Channels, *, silence: float, pause: float, on_text: Callable[[str], None]
    ) -> None:
        self._channels = channels
        self._silence = silence
        self._pauses = self._pause = pause
        self._on_text = on_text
        self._pubsub: PubSub | None = None
        self._hearing: asyncio.Timeout | None = None  # set while it is heard
        self._ends_at = float("-inf")  # from when on it may be ended if nobody sees it
        self.is_deaf = False
        """Whether somebody else may see nobody listen, though the node lives."""

    @property
    def current(self) -> object | None:
        """What is subscribed to now, to be told from what is so later; None: nothing."""
        return self._pubsub

    async def open(self, node: NodeId) -> None:
        """Subscribe to *node*'s channel. Returns when the server has confirmed it."""
        async with asyncio.timeout(_OPENING):
            self._pubsub = await self._channels.listen(node)

    async def hear(self) -> None:
        """Hear what is told, until that ends, and raise why it does."""
        assert self._pubsub is not None
        hearing = asyncio.timeout(None)
        try:
            async with hearing:
                self._hearing = hearing
                await self._hear(self._pubsub)
        except TimeoutError:
            if not hearing.expired():
                raise
            raise ConnectionError("nobody is seen to listen to the channel") from None
        finally:
            self._hearing = None
            self.is_deaf = True
            await self.aclose()

    async def _hear(self, pubsub: PubSub) -> None:
        task = asyncio.current_task()
        assert task is not None
        is_asked = False
        while not task.cancelling():  # the client may take a cancellation for its own, and go on
            message = await pubsub.get_message(timeout=self._silence)
            if message is not None:
                is_asked = False
                if message["type"] in ("message", "smessage"):
                    self._on_text(message["data"].decode())
                elif message["type"].endswith("unsubscribe"):
                    raise ConnectionError("the channel has moved to another server")
            elif is_asked:
                raise ConnectionError("the channel is silent")
            else:
                await pubsub.ping()
                is_asked = True

    def check(self, asked: object | None, *, is_seen: bool) -> bool:
        """Take in whether somebody is seen to listen. Return whether :attr:`is_deaf` has changed.

        Where nobody is, :meth:`hear` ends, for it to be opened anew.

        Args:
            asked: What was :attr:`current` when that was asked.
            is_seen: What was found.

        """
        if self._pubsub is None or asked is not self._pubsub:
            return False
        was_deaf, self.is_deaf = self.is_deaf, not is_seen
        if is_seen:
            self._pause = self._pauses
        elif self._hearing is not None and (now := asyncio.get_running_loop().time()) >= self._ends_at:
            self._hearing.reschedule(now)
            self._hearing = None
            self._ends_at = now + self._pause
            self._pause = min(2 * self._pause, _MOST_PAUSE)
        return self.is_deaf != was_deaf

    async def aclose(self) -> None:
        """End it. Harmless if it wasn't opened."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            await close(pubsub)
