"""A real server that clients of other languages can reach, and what they were shown."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from tests.conformance.node import node
from tests.fakes.proxy import Proxy
from tests.fakes.tls import Certificate, TlsProxy
from tests.server.realtime.client import Frame, whole
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent

__all__ = ["KINDS", "Place", "Seen", "placed"]

KINDS: Final = [
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]
"""What a client is shown of one message and its answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client tells of its conversation."""

    frames: list[Frame]
    errors: list[str]
    """What its SDK reported as one."""
    reconnections: list[int]
    """The close codes before each."""
    closed: int | None
    """The code that ended it for good; None: it left by itself."""

    def answers(self) -> list[tuple[str, str]]:
        """Return each response's status and text, having checked that the frames are whole."""
        return whole(self.frames)

    def types(self) -> list[str]:
        """Return the types of all frames but those that begin a connection."""
        return [frame["type"] for frame in self.frames if frame["type"] != "session.created"]

    def kinds(self) -> list[str]:
        """Return the types, with deltas counted as one: a client that is behind gets fewer."""
        return [kind for kind, _ in itertools.groupby(self.types())]

    def of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == kind]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server can be reached."""

    server: Served[ScriptedAgent]
    network: Proxy
    """What all connections through TLS go by, behind it."""
    tls: TlsProxy
    certificate: Certificate

    @property
    def clear_url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/v1"

    @property
    def secure_url(self) -> str:
        return f"https://127.0.0.1:{self.tls.port}/v1"

    async def run(self, script: str, scenario: str, *messages: str, **environment: str) -> Seen:
        """Have a script for Node.js hold a conversation over TLS."""
        seen: dict[str, Any] = await node(
            script, scenario, self.secure_url, *messages, certificate=self.certificate, **environment
        )
        return Seen(**seen)


@contextlib.asynccontextmanager
async def placed(agent: ScriptedAgent, certificate: Certificate, **settings: Any) -> AsyncIterator[Place]:
    """Run a server with a proxy and TLS before it."""
    async with (
        serving(agent, **settings) as server,
        Proxy(server.port) as network,
        TlsProxy(network.port, certificate) as tls,
    ):
        yield Place(server, network, tls, certificate)
