"""A scripted agent behind the filter, and a scripted model that reads what it says for names."""

from __future__ import annotations

import asyncio
from typing import Final

from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from tests.fakes.recogniser import FakeRecogniser
from tests.server.guards.leaks.answering import SESSION, Upstream, collect, turn
from unbroken.server.agents.base import AgentOutput
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, Actions
from unbroken.server.guards.leaks.filtering import LeakFiltering
from unbroken.server.guards.leaks.name_reading import NameReading
from unbroken.server.guards.leaks.policy import LeakPolicy, LeakRules, placeholder_of
from unbroken.server.guards.leaks.recogniser import Unread
from unbroken.server.metrics import Metrics
from unbroken.server.pipeline import Pipeline
from unbroken.sessions.responder import Output, Turn

__all__ = [
    "ANN",
    "CARD",
    "KNOWN_AS",
    "MARIA",
    "PLACES",
    "REDACTING",
    "SECRET",
    "STREET",
    "Server",
    "answered",
    "settle",
]

SECRET: Final = b"a secret of at least 32 characters"
REDACTING: Final[Actions] = {**DEFAULT_ACTIONS, "name": "redact", "address": "redact"}
KNOWN_AS: Final = placeholder_of(SECRET, SESSION)
MARIA: Final = KNOWN_AS("name", "marialopez")
ANN: Final = KNOWN_AS("name", "ann")
STREET: Final = KNOWN_AS("address", "12highstreetlondon")
CARD: Final = KNOWN_AS("card", "4111111111111111")


class Server:
    """One agent behind the filter, and what was counted."""

    def __init__(
        self,
        *outputs: AgentOutput | Exception,
        actions: Actions = REDACTING,
        is_shadow: bool = False,
        fails_closed: bool = True,
        tool_outputs: bool = False,
        waits: bool = False,
    ) -> None:
        self.recogniser = FakeRecogniser()
        self.clock = FakeClock()
        self.counted: list[tuple[str, str, int]] = []
        self.unread: list[Unread] = []
        rules = LeakRules(
            mode="shadow" if is_shadow else "on", actions={"default": actions}, tool_outputs=tool_outputs
        )
        policy = LeakPolicy(rules, SECRET, count=lambda *each: self.counted.append(each))
        reading = NameReading(
            recogniser=self.recogniser, hold=2.0, fails_closed=fails_closed, unread=self.unread.append
        )
        self.leaks = LeakFiltering(policy, self.clock, reading)
        self.agent = Upstream(outputs, waits_at_end=waits)
        self.aside: list[Output] = []
        self.outputs: list[Output] = []

    async def answer(self, given: Turn | None = None) -> list[Output]:
        given = given or turn()
        given.interjection.take = self.outputs.append
        await collect(
            Pipeline(self.agent, Metrics(), self.clock, leaks=self.leaks).respond(given), self.outputs
        )
        return self.outputs


async def answered(*outputs: Output | Exception, **options: object) -> list[Output]:
    return await Server(*outputs, **options).answer()  # type: ignore[arg-type]  # tools' outputs come from the loop


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


PLACES: Final = st.lists(st.integers(0, 900), max_size=20)
