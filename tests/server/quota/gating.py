"""A gate before a ledger in memory, and one turn that goes through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from typing import Any

from tests.fakes.clock import FakeClock
from unbroken.server.agents.base import TurnInput
from unbroken.server.auth.directory import MemoryDirectory
from unbroken.server.auth.principal import Principal
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import Mode
from unbroken.server.quota.base import Decision, Scope, UsageRecord
from unbroken.server.quota.gate import Gate
from unbroken.server.quota.memory import MemoryLedger
from unbroken.server.quota.plans import Plans
from unbroken.server.quota.prices import Price, Prices
from unbroken.server.quota.share import Share
from unbroken.server.quota_settings import PlanQuota
from unbroken.sessions.admission import SessionLimits
from unbroken.sessions.entries import CreateResponse, Entry, ResponseDone, ResponseStarted, SessionOpened
from unbroken.sessions.ids import ItemId, Nonce, ResponseId, SessionId
from unbroken.sessions.items import Message, ResponseRequest, SessionConfig, Text, Usage
from unbroken.sessions.responder import Finish, Output, Turn
from unbroken.sessions.session import Session

__all__ = ["ALICE", "LONG", "PRICE", "RESPONSE", "SESSION", "World", "given_of", "turn_of"]

ALICE = Principal("alice", tenant="acme")
SESSION, RESPONSE = SessionId("sess_1"), ResponseId("resp_1")
PRICE = Price.of(Decimal(1), Decimal(10), Decimal("0.1"))
"""A millionth for a token that is read, ten for one that is said."""


class World:
    """A gate, and one turn of alice's."""

    def __init__(
        self,
        *,
        is_strict: bool = False,
        mode: Mode = "on",
        shadow: Sequence[str] = (),
        ledger: type[MemoryLedger] = MemoryLedger,
        directory: type[MemoryDirectory] = MemoryDirectory,
        **quota: Any,
    ) -> None:
        self.clock = FakeClock()
        self.ledger = ledger(self.clock)
        self.directory = directory(self.clock)
        modes: dict[str, Mode] = {"default": mode, "free": "off", **dict.fromkeys(shadow, "shadow")}
        plans = Plans({"default": PlanQuota(**quota)}, modes)
        prices = Prices({"m": PRICE})
        self.waiting: list[ResponseId] = []
        """What waits behind the turn that runs."""
        self.metrics = Metrics()
        self.gate = Gate(
            self.ledger,
            plans,
            prices,
            self.directory,
            self.clock,
            self.metrics,
            is_strict=is_strict,
            waiting=lambda _: self.waiting,
        )
        self.session = Session(SESSION, SessionLimits())
        self.session.apply(Entry(1, Nonce(1), SessionOpened(ALICE.id, SessionConfig("m"))))
        self.share = Share()
        self.asked = False
        self.rounds = 0
        """How often its agent was asked, of one that answers in rounds."""
        self.most = 0
        """Tokens that were reserved when it was."""

    async def reserve(
        self,
        request: ResponseRequest | None = None,
        response_id: ResponseId = RESPONSE,
        address: bytes | None = None,
    ) -> Decision:
        await self.directory.note(ALICE)
        asker = self.gate.asker(ALICE, address)
        assert asker is not None
        return await asker.reserve(self.session, CreateResponse(response_id, request or ResponseRequest()))

    async def answer(self, *outputs: Output, text: str = "", resumed: Any = None) -> list[Output]:
        """Return what is let through of an answer to *text*."""
        return [output async for output in self.metered(outputs, text, resumed)]

    def metered(
        self, outputs: Sequence[Output], text: str = "", resumed: Any = None, attempt: int = 1
    ) -> AsyncGenerator[Output, None]:
        return self.answer_to(turn_of(text, resumed, attempt), outputs, text)

    def answer_to(
        self, turn: Turn, outputs: Sequence[Output], text: str = ""
    ) -> AsyncGenerator[Output, None]:
        async def said() -> AsyncGenerator[Output, None]:
            self.asked = True
            for output in outputs:
                yield output

        return self.gate.metered(turn, given_of(text), said(), self.share)

    async def answer_in_rounds(self, *rounds: tuple[str, Sequence[Output]], text: str = "") -> list[Output]:
        """Return what is let through of an answer in rounds: what each sends, and what comes of it."""
        turn = turn_of(text)

        async def said() -> AsyncGenerator[Output, None]:
            for number, (sent, outputs) in enumerate(rounds):
                if not await self.gate.may_ask(turn, given_of(sent), number):
                    yield Finish("quota_exceeded")
                    return
                self.rounds += 1
                self.most = max(self.most, (await self.used())["td"])
                for output in outputs:
                    yield output

        return [output async for output in self.gate.metered(turn, given_of(text), said())]

    def begin(self, plan: str | None) -> None:
        """Have the session's log say that the turn was asked for by *plan*."""
        started = ResponseStarted(RESPONSE, ResponseRequest(plan=plan), turn=1)
        self.session.apply(Entry(self.session.applied + 1, Nonce(1), started))

    async def end(self, status: Any = "completed", usage: Usage | None = None, text: str = "") -> UsageRecord:
        """Return the record of the turn that has ended so."""
        output = (Message(ItemId("a1"), "assistant", (Text(text),)),) if text else ()
        self.gate.ended(self.session, ResponseDone(RESPONSE, status, 1, output, usage=usage))
        await self.gate.settled()
        return (await self.ledger.records("acme", 1))[0]

    async def used(self) -> dict[str, int]:
        return dict((await self.ledger.look("acme", [Scope("u", ALICE.id)]))[0])


def items_of(text: str) -> tuple[Message, ...]:
    return (Message(ItemId("u1"), "user", (Text(text),)),)


def turn_of(text: str = "", resumed: Any = None, attempt: int = 1, plan: str | None = None) -> Turn:
    return Turn(
        session_id=SESSION,
        response_id=RESPONSE,
        principal=ALICE.id,
        attempt=attempt,
        config=SessionConfig("m"),
        request=ResponseRequest(plan=plan),
        items=items_of(text),
        resumption=resumed,
    )


def given_of(text: str) -> TurnInput:
    return TurnInput(
        session_id=SESSION,
        response_id=RESPONSE,
        principal=ALICE.id,
        model="m",
        instructions="",
        items=items_of(text) if text else (),
    )


LONG = "x" * 40_000
"""Ten thousand tokens."""
