"""Nodes behind HAProxy that go in mid-answer, over an upstream that keeps its answers.

So also a killed node's answer goes on, at the very character.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.upstream import KeepingUpstream
from tests.chaos.words import answer_to, digest, prompt
from tests.deploy.balanced import PATIENCE, Balanced, Nodes
from tests.deploy.test_haproxy import HAProxy
from tests.fakes.tls import Certificate, make_certificate
from tests.fakes.valkey import Server
from tests.server.realtime.serving import eventually

__all__ = ["ANSWERS", "ASKED", "CODES", "KILLED", "Place", "conversation", "losing", "spoken"]

ASKED: Final = [prompt("drained", 100, 0.02), prompt("killed", 100, 0.02), prompt("last", 3, 0.0)]


def conversation(instructions: str = "") -> list[tuple[str, str]]:
    """Return how the answers are to end, and what they say: each knows what was said before it."""
    said = [("system", instructions)] if instructions else []
    for asked in ASKED:
        said.append(("user", asked))
        said.append(("assistant", answer_to(asked, digest(said))))
    return [("completed", text) for author, text in said if author == "assistant"]


ANSWERS: Final = conversation()
CODES: Final = [1012, 1006]
"""How a client learns that its node goes: by a farewell, and by nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    balanced: Balanced
    upstream: KeepingUpstream
    certificate: Certificate

    @contextlib.asynccontextmanager
    async def losing_owners(self) -> AsyncIterator[None]:
        """Have the first answer's node drained, and the second's killed, each once twenty words were said."""
        losing = asyncio.create_task(self._lose_owners())
        try:
            yield
            await losing
        finally:
            losing.cancel()
            await asyncio.wait([losing])
            self.upstream.dawdle = 0.0

    async def _lose_owners(self) -> None:
        drained = await self._owner_of(1)
        # The answer isn't to end before its client has been sent elsewhere; the balancer cuts off the silent.
        self.upstream.dawdle = 0.5
        await self._drain(drained)
        self.upstream.dawdle = 0.0
        await asyncio.to_thread(self.balanced.nodes.kill, await self._owner_of(2))

    @contextlib.asynccontextmanager
    async def killing_owner(self) -> AsyncIterator[None]:
        """Have the node of the answer after the first be killed once twenty words were said."""

        async def kill() -> None:
            await asyncio.to_thread(self.balanced.nodes.kill, await self._owner_of(2))

        killing = asyncio.create_task(kill())
        try:
            yield
            await killing
        finally:
            killing.cancel()
            await asyncio.wait([killing])

    async def drain_connected(self) -> None:
        """Have the node be drained that the only client is connected to, while nothing is answered."""
        for number in range(len(self.balanced.nodes.ports)):
            if await self._connections_of(number):
                await self._drain(number)
                return
        raise AssertionError("Nobody is connected.")

    async def _drain(self, number: int) -> None:
        """Have a node be drained, and return when its clients have left."""
        self.balanced.nodes.terminate(number)
        async with asyncio.timeout(PATIENCE):
            while await self._connections_of(number):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _connections_of(self, number: int) -> float:
        return await asyncio.to_thread(self.balanced.nodes.measure, number, "unbroken_connections")

    async def _owner_of(self, answer: int) -> int:
        await eventually(lambda: len(self.upstream.begun) == answer)
        await asyncio.wait_for(self.upstream.has_said(20), PATIENCE)
        owner = await asyncio.to_thread(self.balanced.nodes.answering)
        assert owner is not None
        return owner

    async def mend(self) -> None:
        """Have all nodes serve, as if nothing had been asked yet."""
        await asyncio.to_thread(self.balanced.nodes.mend)
        await self.balanced.all_serve()
        self.upstream.begun.clear()

    def asked(self) -> list[str]:
        """Return what the upstream was asked for, by turn: each costs."""
        return [key for _, key in self.upstream.begun]


def spoken(asked: list[str]) -> list[tuple[str, str]]:
    """Return the conversation in which *asked* is said: each answer knows what was said before it."""
    said: list[tuple[str, str]] = []
    for text in asked:
        said.append(("user", text))
        said.append(("assistant", answer_to(text, digest(said))))
    return said


KILLED: Final = [prompt("first", 3, 0.0), prompt("killed", 100, 0.02), prompt("last", 3, 0.0)]


@contextlib.asynccontextmanager
async def losing(folder: Path, **settings: str) -> AsyncIterator[Place]:
    """Run the upstream, three nodes with these *settings*, and HAProxy before them."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(KeepingUpstream())
        valkey = stack.enter_context(Server(folder / "valkey").running())
        nodes = Nodes(
            folder,
            valkey.url,
            3,
            UNBROKEN_AGENT="openai",
            UNBROKEN_OPENAI_API="responses",
            UNBROKEN_OPENAI_BACKGROUND="true",
            UNBROKEN_OPENAI_BASE_URL=upstream.base_url,
            UNBROKEN_OPENAI_API_KEY="none",
            UNBROKEN_MODEL="fake",
            **settings,
        )
        stack.callback(nodes.stop)
        await asyncio.to_thread(nodes.start)
        port, log = stack.enter_context(HAProxy().running(folder, nodes.ports))
        yield Place(Balanced(nodes, port, log), upstream, make_certificate(folder))
