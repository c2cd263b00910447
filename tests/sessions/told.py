"""A session without a node around it: what it decides is written, and applied, at once."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from unbroken.sessions.entries import (
    Body,
    CancelResponse,
    Command,
    CreateItem,
    CreateItems,
    CreateResponse,
    DeleteItem,
    Deltas,
    Entry,
    Failure,
    HandleNoted,
    Refused,
    SessionOpened,
    Submitted,
    UpdateConfig,
)
from unbroken.sessions.ids import ChainId, ItemId, Nonce, PrincipalId, ResponseId, SessionId
from unbroken.sessions.items import Concurrency, Message, ResponseRequest, SessionConfig, Text
from unbroken.sessions.outputs import Taken
from unbroken.sessions.response import Outcome
from unbroken.sessions.session import Session, SessionLimits
from unbroken.sessions.turn import AttemptState

__all__ = [
    "BUSY",
    "CANCELLED",
    "CHAIN",
    "COMPLETED",
    "FAILURE",
    "ID",
    "STATES",
    "Driven",
    "Told",
    "ask",
    "kinds",
    "say",
    "steps",
    "together",
    "told_in",
]


ID: Final = SessionId("sess_1")
CHAIN: Final = ChainId("c1")
COMPLETED: Final = Outcome(status="completed")
CANCELLED: Final = Outcome(status="cancelled")
FAILURE: Final = Failure("agent_error", "The agent failed.")


class Told:
    """A session and the log it lives by: what it decides is written at once."""

    def __init__(self, policy: Concurrency = Concurrency.REJECT, limits: SessionLimits | None = None) -> None:
        self.session = Session(ID, limits or SessionLimits())
        self.entries: list[Entry] = []
        self.write(SessionOpened(PrincipalId("alice"), SessionConfig("m", concurrency=policy)))

    def write(self, *bodies: Body) -> None:
        for body in bodies:
            entry = Entry(self.session.applied + 1, Nonce(7), body)
            self.session.apply(entry)
            self.entries.append(entry)

    def submit(self, command: Command, event_id: str | None = None) -> int:
        self.write(Submitted(command, CHAIN, event_id))
        return self.session.applied

    def answer(self) -> list[Body]:
        seq, bodies = self.session.decide()
        self.write(*bodies)
        self.session.consume(seq)
        return bodies

    def do(self, command: Command) -> list[Body]:
        self.submit(command)
        return self.answer()

    def code_of(self, command: Command) -> str | None:
        """Do *command*, and return the code it was refused with."""
        bodies = self.do(command)
        return bodies[0].code if bodies and isinstance(bodies[0], Refused) else None

    def produce(self, name: str, *parts: str) -> None:
        response = self.session.responses[ResponseId(name)]
        item_id = ItemId(f"answer_{name}")
        if not response.outputs:
            begun = Taken(0, item_id, None, [])
            self.write(*self.session.write(response.id, [begun], response.ordinal))
        if parts:
            self.write(Deltas(response.id, item_id, list(parts), response.ordinal))

    def end(self, name: str, outcome: Outcome = COMPLETED) -> list[Body]:
        bodies = list(self.session.finish(ResponseId(name), outcome))
        self.write(*bodies)
        return bodies

    def promote(self) -> list[Body]:
        bodies = self.session.promote()
        self.write(*bodies)
        return bodies

    def order(self) -> list[str]:
        return [item.id for item in self.session.items()]

    def states(self) -> dict[str, str]:
        return {each.id: each.attempt.state.value for each in self.session.responses.values()}


def say(name: str, previous: str | None = None, text: str = "hello") -> CreateItem:
    return CreateItem(Message(ItemId(name), "user", (Text(text),)), previous)


def together(*names: str) -> CreateItems:
    return CreateItems(tuple(say(name).item for name in names))


def ask(
    name: str,
    *,
    beside: bool = False,
    metadata: dict[str, str] | None = None,
    given: tuple[Message, ...] | None = None,
    plan: str | None = None,
) -> CreateResponse:
    request = ResponseRequest(in_conversation=not beside, metadata=metadata, input=given, plan=plan)
    return CreateResponse(ResponseId(name), request)


def kinds(bodies: list[Body]) -> list[str]:
    return [type(body).__name__ for body in bodies]


def told_in(state: str) -> Told:
    """Return a session in which response ``r1`` is in *state*; in all but the first there is item ``u1``."""
    told = Told()
    if state == "empty":
        return told
    told.do(say("u1"))
    if state == "item":
        return told
    told.do(ask("r1"))
    if state in ("streaming", "cancelling", "ended"):
        told.produce("r1", "a")
    if state == "cancelling":
        told.do(CancelResponse())
    if state == "ended":
        told.end("r1")
    return told


STATES: Final = ("empty", "item", "starting", "streaming", "cancelling", "ended")
BUSY: Final = "conversation_already_has_active_response"
NAMES: Final = ("a", "b", "c", "d")
commands: Final[st.SearchStrategy[Command]] = st.one_of(
    st.builds(
        say, st.sampled_from(NAMES), st.sampled_from([None, "root", *NAMES]), st.sampled_from(["", "é", "xy"])
    ),
    st.lists(st.sampled_from(NAMES), max_size=3).map(lambda names: together(*names)),
    st.builds(DeleteItem, st.sampled_from([*NAMES, "answer_r1", "answer_r2"])),
    st.builds(UpdateConfig, instructions=st.sampled_from(["x", "y"])),
    st.builds(UpdateConfig, max_output_tokens=st.sampled_from([None, 3])),
    st.builds(UpdateConfig, concurrency=st.sampled_from(Concurrency)),
    st.builds(CancelResponse, st.sampled_from([None, "r1", "r2", "r3"])),
)
asks: Final = st.builds(lambda beside: ("ask", beside), st.booleans())
progress: Final = st.one_of(
    st.just(("answer",)),
    st.just(("promote",)),
    st.tuples(st.just("produce"), st.integers(0, 9), st.lists(st.sampled_from(["", "a", "é😀"]), max_size=3)),
    st.tuples(st.just("handle"), st.integers(0, 9)),
    st.tuples(
        st.just("end"),
        st.integers(0, 9),
        st.sampled_from(["completed", "failed", "cancelled", "interrupted"]),
    ),
)
steps: Final = st.lists(
    st.one_of(commands, asks, progress, progress, st.just(("answer",))), min_size=8, max_size=40
)


class Driven(Told):
    """A session that random steps are tried on; a step that can't be made now is skipped."""

    def __init__(self, policy: Concurrency) -> None:
        super().__init__(policy, SessionLimits(conversation_bytes=1_000, items=4, beside=2, queued=1))
        self.asked = 0

    def step(self, step: object) -> object:
        """Make one step, and return what the session decided."""
        responses = list(self.session.responses.values())
        match step:
            case ("ask", bool(beside)):
                self.asked += 1
                self.submit(ask(f"r{self.asked}", beside=beside), f"e{self.asked}")
            case ("answer",) if self.session.has_inputs:
                return self.answer()
            case ("promote",):
                return self.promote()
            case ("produce", int(index), list(parts)) if responses:
                response = responses[index % len(responses)]
                if response.attempt.state in (AttemptState.STARTING, AttemptState.STREAMING):
                    self.produce(response.id, *parts)
            case ("handle", int(index)) if responses:
                response = responses[index % len(responses)]
                if response.ordinal:
                    self.write(HandleNoted(response.id, "h", response.ordinal))
            case ("end", int(index), str(status)) if responses:
                response = responses[index % len(responses)]
                if response.attempt.state is AttemptState.QUEUED:
                    return None
                if status == "cancelled" and response.attempt.state is not AttemptState.CANCELLING:
                    return None
                return self.end(response.id, Outcome(status=status))  # type: ignore[arg-type]
            case CreateItem() | CreateItems() | DeleteItem() | UpdateConfig() | CancelResponse():
                self.submit(step)
            case _:
                pass
        return None
