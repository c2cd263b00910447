"""Names and addresses in answers, from a scripted agent through the pipeline, read by a scripted model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from tests.fakes.recogniser import FakeRecogniser
from tests.server.guards.leaks.answering import SESSION, Upstream, arguments, collect, notes, said, turn
from tests.server.guards.leaks.samples import SAMPLES, cut
from unbroken.server.agents.base import AgentOutput, TurnInput, UpstreamCut
from unbroken.server.cache.base import StoreLimits, Veto
from unbroken.server.cache.index import PlaceIndex
from unbroken.server.cache.memory import MemoryAnswers
from unbroken.server.cache.rules import CacheRules
from unbroken.server.cache.stage import CacheStage, Produce
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, Actions
from unbroken.server.guards.leaks.filtering import LeakFiltering
from unbroken.server.guards.leaks.name_reading import NameReading
from unbroken.server.guards.leaks.policy import LeakPolicy, LeakRules, placeholder_of
from unbroken.server.guards.leaks.recogniser import NamesUnread, Unread
from unbroken.server.guards.leaks.resumed import AnswerChanged
from unbroken.server.metrics import Metrics
from unbroken.server.pipeline import Pipeline
from unbroken.sessions.ids import ItemId, PrincipalId
from unbroken.sessions.items import ApprovalHead, ToolHead
from unbroken.sessions.responder import (
    AsksApproval,
    Finish,
    FunctionCallPiece,
    Output,
    ReasoningPiece,
    Resumption,
    RunsTools,
    ToolCallPiece,
    ToolEnded,
    Turn,
    Working,
)

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


# Text.


async def test_names_and_addresses_are_replaced_and_told_by_kind_and_a_town_is_not() -> None:
    outputs = await answered(
        "Write to Maria Lo", "pez, 12 High Street, Lon", "don. The capital of France is Paris.", Finish()
    )

    assert said(outputs) == f"Write to {MARIA}, {STREET}. The capital of France is Paris."
    assert notes(outputs) == {"redacted": {"address": 1, "name": 1}}
    assert outputs[-1] == Finish()
    assert "Lo" not in repr(outputs).replace("'content_filter'", "")


WORDS: Final = "Maria Lopez|Ann|Dr. John Smith|at 12 High Street, London|Paris|the|It is|so.|Émile|用户|4"
OTHERS: Final = ["😀", "\n", "\ud83d", "x" * 600, *(sample for _, sample in SAMPLES)]
TEXTS: Final = st.lists(st.sampled_from([*WORDS.split("|"), *OTHERS]), max_size=14).map(" ".join)
PLACES: Final = st.lists(st.integers(0, 900), max_size=20)


@given(text=TEXTS, places=PLACES)
@settings(max_examples=150, deadline=None)
def test_however_the_answer_is_cut_what_leaves_is_the_same(text: str, places: list[int]) -> None:
    whole = said(asyncio.run(answered(text)))

    assert said(asyncio.run(answered(*cut(text, places)))) == whole
    assert said(asyncio.run(answered(*text))) == whole
    assert not any(name in whole for name in ("Maria", "Lopez", "Smith", "High Street"))


@pytest.mark.parametrize("name", ["Maria Lopez", "Dr. Ann Lee", "12 High Street, London"])
def test_split_at_every_place_no_part_of_a_name_leaves(name: str) -> None:
    text = f"Well, {name}'s it is."
    whole = said(asyncio.run(answered(text)))

    assert not set(name.replace(",", "").split()[-2:]) & set(whole.replace("'s", "").split())
    for place in range(len(text)):
        assert said(asyncio.run(answered(text[:place], text[place:]))) == whole


async def test_a_name_has_one_placeholder_in_a_session() -> None:
    outputs = await answered("Ann and ANN? ", "Maria Lopez. Ann's. Mr. Ann.")
    assert said(outputs) == f"{ANN} and ANN? {MARIA}. {ANN}'s. Mr. {ANN}."


async def test_what_has_a_form_is_found_first_and_no_name_takes_anything_from_it() -> None:
    outputs = await answered("Ann pays with 4111 1111 1111 1111, and ", "ann.lee@example.com is hers. Bye")

    assert said(outputs) == f"{ANN} pays with {CARD}, and ann.lee@example.com is hers. Bye"
    assert notes(outputs) == {"redacted": {"card": 1, "name": 1}}


async def test_before_the_first_capital_letter_nothing_waits() -> None:
    server = Server("well, she is with ", "Ann now, and ", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()

    assert said(server.outputs) == "well, she is with "
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert said(server.outputs) == f"well, she is with {ANN} now, and "


async def test_a_name_that_blocks_ends_the_answer_and_the_agent_is_closed() -> None:
    server = Server("It was Ann who did it. ", "More.", actions={**REDACTING, "name": "block"})
    outputs = await server.answer()

    assert said(outputs) == "It was "
    assert outputs[-1] == Finish("content_filter")
    assert notes(outputs) == {"blocked": {"name": 1}}
    assert server.agent.is_closed
    assert server.counted == [("name", "block", 1)]


async def test_a_name_that_blocks_at_the_very_end_does_so_too() -> None:
    outputs = await answered("It was Ann", Finish(), actions={**REDACTING, "name": "block"})
    assert (said(outputs), outputs[-1]) == ("It was ", Finish("content_filter"))


FLAGGING: Final[Actions] = {**REDACTING, "name": "flag", "address": "ignore"}
ONLY_COUNTED: Final = pytest.mark.parametrize("is_shadow", [True, False])


def counting(*outputs: AgentOutput | Exception, is_shadow: bool, **options: Any) -> Server:
    """Return one where names are only counted: in shadow, or as that is what is done about them."""
    actions = REDACTING if is_shadow else FLAGGING
    return Server(*outputs, is_shadow=is_shadow, actions=actions, **options)


@ONLY_COUNTED
async def test_what_is_only_counted_waits_for_no_model(is_shadow: bool) -> None:
    server = counting("It is Maria Lopez. ", "So. ", "It is Ann.", is_shadow=is_shadow)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    assert said(server.outputs) == "It is Maria Lopez. So. It is Ann."
    server.recogniser.recover()
    await task

    assert notes(server.outputs) is None
    assert server.counted == [("name", "redact_shadow" if is_shadow else "flag", 2)]
    assert server.unread == []


@ONLY_COUNTED
async def test_at_its_end_what_could_not_be_read_by_then_is_given_up_and_counted(is_shadow: bool) -> None:
    server = counting("It is Maria Lopez. ", "It is Ann. ", is_shadow=is_shadow)
    server.recogniser.hang()
    await server.answer()

    assert server.recogniser.texts == ["It is Maria Lopez."], "and no more is asked for"
    assert (server.counted, server.unread) == ([], ["late", "late"])
    assert len(asyncio.all_tasks()) == 1


async def test_of_what_is_only_counted_few_sentences_wait() -> None:
    server = counting(*["It is Ann. "] * 100, is_shadow=True, waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    assert said(server.outputs) == "It is Ann. " * 100
    assert server.unread == ["busy"] * 36
    server.recogniser.recover()
    for _ in range(10):
        await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert server.counted == [("name", "redact_shadow", 64)]
    assert server.unread == ["busy"] * 36


@ONLY_COUNTED
@pytest.mark.parametrize("ending", ["error", "cancel"])
async def test_what_is_only_counted_is_when_the_answer_is_cut_short(is_shadow: bool, ending: str) -> None:
    server = counting(
        "It is Maria Lopez. ",
        *([UpstreamCut()] if ending == "error" else []),
        is_shadow=is_shadow,
        waits=ending == "cancel",
    )
    task = asyncio.ensure_future(server.answer())
    await settle()
    if ending == "cancel":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert [count for _, _, count in server.counted] == [1]
    assert len(asyncio.all_tasks()) == 1


async def test_cancelled_nobody_waits_for_what_is_only_counted() -> None:
    server = counting("It is Maria Lopez. ", is_shadow=True, waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    task.cancel()
    await settle()

    assert task.done()
    assert server.unread == ["late"]


async def test_a_word_that_left_while_the_answer_waited_is_counted_too() -> None:
    goes_on = asyncio.Event()

    class Hesitating(Upstream):
        async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
            yield "It is Maria"
            await goes_on.wait()
            yield " Lopez."

    server = counting(is_shadow=False)
    server.agent = Hesitating([])
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(0.5)
    await settle()
    assert said(server.outputs) == "It is Maria"
    goes_on.set()
    await task

    assert said(server.outputs) == "It is Maria Lopez."
    assert server.recogniser.texts == ["It is Maria Lopez."]
    assert server.counted == [("name", "flag", 1)]


async def test_in_shadow_a_model_that_has_much_to_do_is_not_waited_for() -> None:
    server = Server("It is Ann. So.", is_shadow=True)
    server.recogniser.be_busy()
    assert said(await server.answer()) == "It is Ann. So."
    assert (server.recogniser.texts, server.unread) == ([], ["busy"])


async def test_where_nobody_looks_for_names_no_model_is_asked() -> None:
    server = Server("It is Ann.", actions=DEFAULT_ACTIONS)
    assert said(await server.answer()) == "It is Ann."
    assert server.recogniser.texts == []


async def test_sentences_are_read_on_behalf_of_whoever_asked() -> None:
    server = Server("It is Ann.")
    await server.answer(replace(turn(), principal=PrincipalId("bob")))
    assert server.recogniser.principals == {"bob"}
    await server.leaks.finds(turn(), "It is Ann.")
    assert server.recogniser.principals == {"bob", "alice"}


# Time.


async def test_a_sentence_that_does_not_end_in_time_is_read_as_far_as_it_has_come() -> None:
    server = Server("It was Ann who called Maria Lo", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()
    assert said(server.outputs) == "It was "
    server.clock.advance(2.0)
    await settle()
    assert said(server.outputs) == f"It was {ANN} who called ", "what may be half a name waits once more"
    server.clock.advance(2.0)
    await settle()
    assert said(server.outputs) == f"It was {ANN} who called {KNOWN_AS('name', 'maria')} Lo"

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.clock.pending == 0


async def test_an_ordinary_word_that_the_other_filter_let_go_of_late_leaves_then() -> None:
    server = Server("well, she is with ", "peop", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(0.5)
    await settle()

    assert said(server.outputs) == "well, she is with peop"
    assert server.recogniser.texts == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.clock.pending == 0


async def test_a_word_that_is_let_go_of_while_a_sentence_is_read_leaves_behind_it() -> None:
    server = Server("It is Ann. so then", waits=True)
    task = asyncio.ensure_future(server.answer())
    server.recogniser.hang()
    await settle()
    server.clock.advance(0.5)
    await settle()
    assert said(server.outputs) == ""
    server.recogniser.recover()
    await settle()
    server.clock.advance(0.5)
    await settle()

    assert said(server.outputs) == f"It is {ANN}. so then"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_name_that_blocks_when_time_is_up_ends_the_answer_of_a_silent_agent() -> None:
    server = Server("It was Ann who ", waits=True, actions={**REDACTING, "name": "block"})
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(2.0)
    await settle()

    assert task.done()
    assert said(await task) == "It was "
    assert server.outputs[-1] == Finish("content_filter")
    assert notes(server.outputs) == {"blocked": {"name": 1}}
    assert server.agent.is_closed
    assert server.clock.pending == 0
    assert task.cancelling() == 0


async def test_a_time_out_of_the_agents_own_is_its_failure() -> None:
    server = Server("It is Ann", TimeoutError("late"))
    with pytest.raises(TimeoutError, match="late"):
        await server.answer()

    assert said(server.outputs) == f"It is {ANN}"


async def test_a_resumed_answer_that_is_another_when_time_is_up_is_no_continuation_of_a_silent_agent() -> (
    None
):
    server = Server("It was Ann who ", waits=True)
    task = asyncio.ensure_future(
        server.answer(turn("", Resumption("upstream_1", 11, (), "It was Maria", ())))
    )
    await settle()
    server.clock.advance(2.0)
    await settle()

    assert task.done()
    with pytest.raises(AnswerChanged):
        await task
    assert said(server.outputs) == ""


async def test_a_word_that_the_other_filter_let_go_of_late_does_not_wait_for_ever() -> None:
    server = Server("It was Ann", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(0.5)
    await settle()
    assert said(server.outputs) == "It was "
    server.clock.advance(2.0)
    await settle()
    assert said(server.outputs) == f"It was {ANN}"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_each_sentence_has_its_own_time() -> None:
    server = Server("Is it Ann. Is it Maria", waits=True)
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(1.9)
    await settle()
    assert said(server.outputs) == f"Is it {ANN}. Is it "
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_that_time_has_cut_and_that_could_not_be_read_is_tried_again() -> None:
    server = Server("It was Ann who", waits=True)
    server.recogniser.fail()
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(2.0)
    await settle()
    assert (said(server.outputs), server.unread) == ("It was ", ["failed"])
    server.recogniser.recover()
    server.clock.advance(2.0)
    await settle()
    assert said(server.outputs) == f"It was {ANN} who"

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.clock.pending == 0


# Faults.


async def test_what_could_not_be_read_does_not_leave_and_the_answer_fails() -> None:
    server = Server("well, it is Ann. ", "More.")
    server.recogniser.fail()
    with pytest.raises(NamesUnread):
        await server.answer()

    assert said(server.outputs) == "well, it is "
    assert server.unread == ["failed"]
    assert server.agent.is_closed


async def test_or_it_leaves_and_is_counted_where_it_is_set_so() -> None:
    server = Server("It is Ann. ", "Ask Ann.", fails_closed=False)
    server.recogniser.fail()

    assert said(await server.answer()) == "It is Ann. Ask Ann."
    assert server.unread == ["failed", "failed"]


@pytest.mark.parametrize("ending", ["error", "cancel", "end"])
@pytest.mark.parametrize(("held", "left"), [("Ann", ANN), ("Maria Lo", f"{KNOWN_AS('name', 'maria')} Lo")])
async def test_what_is_held_leaves_at_the_end_redacted(ending: str, held: str, left: str) -> None:
    server = Server(
        f"It is {held}", *([UpstreamCut()] if ending == "error" else []), waits=ending == "cancel"
    )
    task = asyncio.ensure_future(server.answer())
    await settle()
    if ending == "cancel":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert said(server.outputs) == f"It is {left}"
    assert server.clock.pending == 0


async def test_cancelled_while_a_sentence_is_read_none_of_it_is_lost_or_shown_unread() -> None:
    server = Server("It is Ann. ", waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    task.cancel()
    await asyncio.sleep(0)
    server.recogniser.recover()
    await asyncio.gather(task, return_exceptions=True)

    assert said(server.outputs) == f"It is {ANN}. "


@pytest.mark.parametrize("text", ["Ann came. and then 12345", "Ann came. " + "and so on. " * 300 + "12345"])
async def test_cancelled_while_a_sentence_is_read_what_follows_it_leaves_too(text: str) -> None:
    server = Server(text, waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    task.cancel()
    await settle()
    server.recogniser.recover()
    await asyncio.gather(task, return_exceptions=True)

    assert said(server.outputs) == text.replace("Ann", ANN)
    assert server.clock.pending == 0


async def test_cancelled_while_time_cuts_a_sentence_what_came_meanwhile_leaves() -> None:
    goes_on = asyncio.Event()

    class Hesitating(Upstream):
        async def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
            yield "It is Ann who "
            await goes_on.wait()
            yield "called, and "
            await asyncio.Event().wait()

    server = Server()
    server.agent = Hesitating([])
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    server.clock.advance(2.0)
    await settle()
    goes_on.set()
    await settle()
    task.cancel()
    await settle()
    server.recogniser.recover()
    await asyncio.gather(task, return_exceptions=True)

    assert said(server.outputs) == f"It is {ANN} who called, and "


@pytest.mark.parametrize(
    "pieces",
    [
        [ReasoningPiece("it is Ann"), "so then"],
        ["it is Ann", ReasoningPiece("so then")],
        ["it is Ann", FunctionCallPiece(0, "so then", name="f")],
        ["it is Ann", ToolCallPiece(ItemId("item_1"), "so then", ToolHead("mail", "post"))],
    ],
)
async def test_cancelled_while_the_end_of_one_output_is_read_the_next_leaves_too(
    pieces: list[Output],
) -> None:
    async def spoken(_: Turn) -> AsyncGenerator[Output, None]:
        for piece in pieces:
            yield piece
        await asyncio.Event().wait()

    server, given = Server(), turn()
    given.interjection.take = server.outputs.append
    server.recogniser.hang()
    task = asyncio.ensure_future(collect(server.leaks.filtered(given, spoken), server.outputs))
    await settle()
    task.cancel()
    await settle()
    server.recogniser.recover()
    await asyncio.gather(task, return_exceptions=True)
    texts = [str(getattr(each, "text", "")) for each in server.outputs]

    assert said(server.outputs) + arguments(server.outputs) + "".join(texts) in (
        f"it is {ANN}so then",
        f"so thenit is {ANN}",  # thoughts come last here
    )


async def test_stopped_while_its_taker_has_no_room_what_is_held_leaves() -> None:
    server, given = Server("It is Ann", waits=True), turn()
    given.interjection.take = server.outputs.append
    answer = server.leaks.filtered(given, Pipeline(server.agent, Metrics(), server.clock).respond)
    server.outputs.append(await anext(answer))
    await answer.aclose()

    assert said(server.outputs) == f"It is {ANN}"
    assert server.clock.pending == 0


async def test_cancelled_by_its_user_an_answer_waits_for_no_model() -> None:
    """What comes after the cancel is dropped: nothing is read for that."""
    server, given = Server("It is Ann. And Maria", waits=True), turn()
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer(given))
    await settle()
    given.interjection.take = None
    task.cancel()
    await settle()

    assert task.done()
    assert said(server.outputs) == ""
    assert server.recogniser.texts == ["It is Ann."]
    assert server.clock.pending == 0


async def test_cancelled_with_a_model_that_hangs_what_is_held_is_dropped() -> None:
    server = Server("It is Ann. And", waits=True)
    server.recogniser.hang()
    task = asyncio.ensure_future(server.answer())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert said(server.outputs) == "It is "


# Calls, thoughts, tools, and resuming.

CALL: Final = json.dumps(
    {"to": "Maria Lopez", "at": "12 High Street, London", "n": 12, "body": "Dear Ann,\nbye"}
)


@given(places=st.lists(st.integers(0, 120), max_size=8))
@settings(deadline=None)
def test_the_arguments_of_calls_stay_json_however_they_come(places: list[int]) -> None:
    pieces = [
        FunctionCallPiece(0, piece, name="" if number else "send")
        for number, piece in enumerate(cut(CALL, places))
    ]
    outputs = asyncio.run(answered("Ok Ann", *pieces, Finish()))
    calls = [each for each in outputs if isinstance(each, FunctionCallPiece)]

    assert json.loads(arguments(outputs)) == {"to": MARIA, "at": STREET, "n": 12, "body": f"Dear {ANN},\nbye"}
    assert calls[0].name == "send"
    assert said(outputs[: outputs.index(calls[0])]) == f"Ok {ANN}"


async def test_a_tools_call_is_written_redacted_before_it_is_run_and_its_result_where_set() -> None:
    item = ItemId("item_1")
    outputs = await answered(
        ToolCallPiece(item, '{"to": "Ann', ToolHead("mail", "post")), ToolCallPiece(item, '"}'),
        RunsTools((item,)), ToolEnded(item, "Sent to Ann."), "Done.", tool_outputs=True,
    )  # fmt: skip
    place = next(number for number, output in enumerate(outputs) if isinstance(output, RunsTools))

    assert arguments(outputs[:place]) == f'{{"to": "{ANN}"}}'
    assert ToolEnded(item, f"Sent to {ANN}.") in outputs


async def test_a_call_that_waits_for_approval_is_shown_redacted() -> None:
    outputs = await answered(AsksApproval(ItemId("item_1"), ApprovalHead("pay", "bank", '{"to": "Ann"}')))
    heads = [each.head.arguments for each in outputs if isinstance(each, AsksApproval)]
    assert heads == [f'{{"to": "{ANN}"}}']


async def test_a_call_whose_arguments_block_is_never_run() -> None:
    item = ItemId("item_1")
    outputs = await answered(
        ToolCallPiece(item, '{"to": "Ann"}', ToolHead("pay", "bank")),
        RunsTools((item,)),
        actions={**REDACTING, "name": "block"},
    )

    assert not any(isinstance(output, RunsTools) for output in outputs)
    assert outputs[-1] == Finish("content_filter")


async def test_thoughts_are_read_and_end_where_words_begin() -> None:
    outputs = await answered(ReasoningPiece("it is An"), ReasoningPiece("n"), "Ann", Working())
    thought = "".join(each.text for each in outputs if isinstance(each, ReasoningPiece))

    assert (thought, said(outputs)) == (f"it is {ANN}", ANN)
    assert Working() in outputs


@given(text=TEXTS, first=PLACES, then=PLACES, taken=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_a_resumed_answer_goes_on_at_the_very_character(
    text: str, first: list[int], then: list[int], taken: int
) -> None:
    whole = said(asyncio.run(answered(text)))
    written = said(asyncio.run(answered(*cut(text, first)))[: taken + 1])
    server = Server(*cut(text, then))
    resumption = Resumption("upstream_1", len(written), (), written, ())

    assert written + said(asyncio.run(server.answer(turn("", resumption)))) == whole


async def test_a_resumed_answer_that_is_not_what_it_was_is_no_continuation() -> None:
    server = Server("It is Ann. And so on.")
    with pytest.raises(AnswerChanged):
        await server.answer(turn("", Resumption("upstream_1", 9, (), "It is Ann", ())))

    assert said(server.outputs) == ""


async def test_a_resumed_call_goes_on_too() -> None:
    pieces: Sequence[FunctionCallPiece] = [
        FunctionCallPiece(0, part, name="f") for part in ('{"a": "An', 'n", "b": "x', 'y"}')
    ]
    known = f'{{"a": "{ANN}", '
    server = Server(*pieces, Finish())
    outputs = await server.answer(turn("", Resumption("upstream_1", 0, (len(known),), "", (known,))))

    assert known + arguments(outputs) == f'{{"a": "{ANN}", "b": "xy"}}'


# The cache.


@pytest.mark.parametrize("fails_closed", [True, False])
async def test_an_answer_with_a_name_in_it_or_that_nobody_could_read_is_not_kept(fails_closed: bool) -> None:
    """Also where it may be said: to one, who asked for it."""
    server = Server(fails_closed=fails_closed)

    assert await server.leaks.finds(turn(), "It is Ann.")
    assert not await server.leaks.finds(turn(), "Paris it is.")
    server.recogniser.fail()
    assert await server.leaks.finds(turn(), "Paris it is.")
    assert not server.unread
    assert not server.counted


async def test_an_answer_that_is_said_is_not_read_once_more_for_the_cache() -> None:
    """The cache has that done behind its end, where it would keep it."""

    class Off(CacheStage):
        async def answer(
            self, turn: TurnInput, produce: Produce, *, may_use_tools: bool, may_join: bool = True
        ) -> AsyncGenerator[Output, None]:
            async for output in produce(Veto()):
                yield output

    server = Server("It is Ann. And Ann again. ", Finish(), is_shadow=True)
    server.recogniser.be_busy()
    server.recogniser.hang()
    cache = Off(CacheRules(), MemoryAnswers(server.clock, StoreLimits(), PlaceIndex), server.clock)
    answer = Pipeline(server.agent, Metrics(), server.clock, leaks=server.leaks, cache=cache).respond(turn())
    await collect(answer, server.outputs)

    assert server.outputs == ["It is Ann. And Ann again. ", Finish()]
    assert server.recogniser.texts == []


async def test_where_the_model_has_much_to_do_an_answer_is_not_read_for_the_cache_and_not_kept() -> None:
    server = Server()
    server.recogniser.be_busy()

    assert await server.leaks.finds(turn(), "Paris it is.")
    assert server.recogniser.texts == []


async def test_an_answer_is_read_for_the_cache_up_to_the_first_name() -> None:
    server = Server()

    assert await server.leaks.finds(turn(), "It is Ann. " + "So it goes on. " * 100 + "It is Maria.")
    assert "It is Maria." not in server.recogniser.texts
