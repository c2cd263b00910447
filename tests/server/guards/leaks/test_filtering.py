"""Answers, from a scripted agent through the pipeline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from tests.fakes.turns import turns_given
from tests.server.guards.leaks.answering import (
    SESSION,
    Upstream,
    arguments,
    collect,
    notes,
    said,
    turn,
)
from tests.server.guards.leaks.samples import SAMPLES, cut
from unbroken.server.agents.base import AgentOutput, Handle, UpstreamCut
from unbroken.server.guards.leaks.answer import AnswerChanged
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, Actions
from unbroken.server.guards.leaks.filtering import LeakFiltering
from unbroken.server.guards.leaks.policy import LeakPolicy, LeakRules, placeholder_of
from unbroken.server.metrics import Metrics
from unbroken.server.pipeline import Pipeline
from unbroken.sessions.ids import ItemId, PrincipalId, SessionId
from unbroken.sessions.items import (
    ApprovalHead,
    ToolError,
    ToolHead,
    Usage,
)
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
CARD: Final = "4111111111111111"
STRICT: Final[Actions] = {**DEFAULT_ACTIONS, "email": "redact"}
NAME: Final = placeholder_of(SECRET, SESSION)
CARD_NAME: Final = NAME("card", CARD)
MAIL_NAME: Final = NAME("email", "aliceexamplecom")


def filtering(clock: FakeClock | None = None, **rules: Any) -> LeakFiltering:
    rules = {"mode": "on", "actions": {"default": STRICT}} | rules
    return LeakFiltering(LeakPolicy(LeakRules(**rules), SECRET), clock or FakeClock())


def pipeline(agent: Upstream, leaks: LeakFiltering) -> Pipeline:
    return Pipeline(agent, Metrics(), FakeClock(), leaks=leaks)


async def answered(*outputs: Output | Exception, given: Turn | None = None, **rules: Any) -> list[Output]:
    agent = Upstream(outputs)  # type: ignore[arg-type]  # tools' outputs come from the loop
    return [each async for each in pipeline(agent, filtering(**rules)).respond(given or turn())]


# Text.


async def test_what_was_redacted_is_told_by_kind_at_the_end_and_never_what_it_was() -> None:
    outputs = await answered(
        "Card ", CARD[:7], CARD[7:], ", mail alice@", "example.com, card ", CARD, Finish()
    )

    assert said(outputs) == f"Card {CARD_NAME}, mail {MAIL_NAME}, card {CARD_NAME}"
    assert notes(outputs) == {"redacted": {"card": 2, "email": 1}}
    assert CARD not in repr(outputs)
    assert outputs[-1] == Finish()


def test_placeholders_are_stable_within_a_session_and_differ_between_sessions() -> None:
    other = placeholder_of(SECRET, SessionId("sess_2"))

    assert NAME("card", "1") == placeholder_of(SECRET, SESSION)("card", "1")
    assert NAME("card", "1") != NAME("card", "2")
    assert NAME("card", "1") != other("card", "1")
    assert NAME("card", "1") != placeholder_of(b"other", SESSION)("card", "1")


async def test_what_blocks_ends_the_answer_as_incomplete_and_the_agent_is_closed() -> None:
    agent = Upstream(["It is ", CARD, " and ", "more", Usage(1, 2)])
    leaks = filtering(actions={"default": {**STRICT, "card": "block"}})
    outputs = [each async for each in pipeline(agent, leaks).respond(turn())]

    assert said(outputs) == "It is "
    assert outputs[-1] == Finish("content_filter")
    assert notes(outputs) == {"blocked": {"card": 1}}
    assert agent.is_closed


async def test_in_shadow_everything_passes_as_it_came_and_is_counted() -> None:
    found: list[tuple[str, str, int]] = []
    policy = LeakPolicy(LeakRules(mode="shadow"), SECRET, count=lambda *each: found.append(each))
    agent = Upstream(["It is 41", "11", "1111", "11111111", " x", Finish()])
    outputs = [each async for each in pipeline(agent, LeakFiltering(policy, FakeClock())).respond(turn())]

    assert outputs == list(agent.outputs)
    assert found == [("card", "redact_shadow", 1)]


async def test_a_plan_has_actions_of_its_own() -> None:
    async def plan_of(turn: Turn) -> str:
        return {"alice": "gold"}.get(turn.principal, "none such")

    rules = LeakRules(mode="on", actions={"default": STRICT, "gold": {**STRICT, "card": "flag"}})
    leaks = LeakFiltering(LeakPolicy(rules, SECRET, plan_of=plan_of), FakeClock())
    for principal, expected in (("alice", CARD), ("bob", CARD_NAME)):
        given = replace(turn(), principal=PrincipalId(principal))
        outputs = [each async for each in pipeline(Upstream([CARD]), leaks).respond(given)]
        assert said(outputs) == expected


INSTRUCTIONS: Final = (
    "You are Ada, the assistant of a bank. Never mention the merger with Contoso, whatever anybody says, "
    "and answer all questions about fees with a link to the price list."
)


@given(places=st.lists(st.integers(0, 300), max_size=12))
@settings(max_examples=6 * settings().max_examples // 10, deadline=None)
def test_of_the_instructions_no_more_than_eleven_words_in_sequence_leave(places: list[int]) -> None:
    text = f"Sure: «{INSTRUCTIONS.upper()}» That was all."
    blocking: Actions = {**STRICT, "instructions": "block"}
    redacting: Actions = {**STRICT, "instructions": "redact"}
    for actions, expected in (
        (blocking, "Sure: «YOU ARE ADA, THE ASSISTANT OF A BANK. NEVER MENTION THE "),
        (
            redacting,
            "Sure: «YOU ARE ADA, THE ASSISTANT OF A BANK. NEVER MENTION THE [instructions] That was all.",
        ),
    ):
        given = turn(INSTRUCTIONS)
        outputs = asyncio.run(answered(*cut(text, places), given=given, actions={"default": actions}))
        assert said(outputs) == expected


async def test_a_few_words_in_common_with_the_instructions_are_nothing() -> None:
    actions: Actions = {**STRICT, "instructions": "block"}
    text = "I am the assistant of a bank. Ask me about fees; here is a link to the price list."

    outputs = await answered(text, given=turn(INSTRUCTIONS), actions={"default": actions})
    assert said(outputs) == text


# H1: calls, and resuming.


@given(places=st.lists(st.integers(0, 80), max_size=6))
@settings(deadline=None)
def test_h1_split_across_pieces_of_arguments_nothing_leaves(places: list[int]) -> None:
    text = f'{{"to": "alice@example.com", "card": {CARD}, "s": "{CARD}"}}'
    pieces = [
        FunctionCallPiece(0, piece, name="" if number else "pay")
        for number, piece in enumerate(cut(text, places))
    ]
    outputs = asyncio.run(answered(*pieces, Finish()))

    assert arguments(outputs) == f'{{"to": "{MAIL_NAME}", "card": "{CARD_NAME}", "s": "{CARD_NAME}"}}'


async def test_h1_text_and_calls_that_come_in_turns_are_each_a_text_of_their_own() -> None:
    outputs = await answered(
        "See 4111", FunctionCallPiece(0, "{1111", name="f"), FunctionCallPiece(1, "[4111", name="g"),
        FunctionCallPiece(0, "1111}"), FunctionCallPiece(1, '111111111111, "x"]'), Finish(),
    )  # fmt: skip

    assert said(outputs) == "See 4111"
    first = [o.arguments for o in outputs if isinstance(o, FunctionCallPiece) and o.index == 0]
    second = [o.arguments for o in outputs if isinstance(o, FunctionCallPiece) and o.index == 1]
    assert "".join(first) == "{11111111}"
    assert "".join(second) == f'["{CARD_NAME}", "x"]'
    assert outputs.index("4111") < next(i for i, o in enumerate(outputs) if isinstance(o, FunctionCallPiece))


@given(
    chosen=st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=3),
    first=st.lists(st.integers(0, 400), max_size=20),
    then=st.lists(st.integers(0, 400), max_size=20),
    taken=st.integers(0, 30),
)
@settings(deadline=None)
def test_h1_a_resumed_answer_goes_on_at_the_very_character_with_nothing_unfiltered(
    chosen: list[tuple[str, str]], first: list[int], then: list[int], taken: int
) -> None:
    """One owner writes some of what leaves and dies; another reads the upstream's answer cut otherwise."""
    text = "".join(f"This is {sample}, so. " for _, sample in chosen)
    whole = said(asyncio.run(answered(text)))
    written = said(asyncio.run(answered(*cut(text, first)))[: taken + 1])
    resumption = Resumption("upstream_1", len(written), (), written, ())
    agent = Upstream(cut(text, then))

    async def resumed() -> list[Output]:
        return [each async for each in pipeline(agent, filtering()).respond(turn("", resumption))]

    rest = asyncio.run(resumed())
    assert written + said(rest) == whole
    assert agent.offset == 0, "the upstream counts what it said, not what left"


async def test_h1_the_calls_of_a_resumed_answer_go_on_too() -> None:
    parts = ('{"a": "4111', '111111111111", "b": "x', 'y"}')
    pieces: list[AgentOutput] = [FunctionCallPiece(0, part, name="f") for part in parts]
    known = f'{{"a": "{CARD_NAME}", '
    resumption = Resumption("upstream_1", 0, (len(known),), "", (known,))
    agent = Upstream([*pieces, Finish()])
    outputs = [each async for each in pipeline(agent, filtering()).respond(turn("", resumption))]

    assert known + arguments(outputs) == f'{{"a": "{CARD_NAME}", "b": "xy"}}'


@pytest.mark.parametrize("known", ["It was ", "It is 4111111111111111 and"])
async def test_a_resumed_answer_that_is_not_what_it_was_is_no_continuation(known: str) -> None:
    """Such as when the rules have changed: what the log holds was written by others."""
    resumption = Resumption("upstream_1", len(known), (), known, ())
    agent = Upstream([f"It is {CARD} and more"])
    outputs: list[Output] = []
    with pytest.raises(AnswerChanged):
        await collect(pipeline(agent, filtering()).respond(turn("", resumption)), outputs)

    assert said(outputs) == ""


# H2: time.


async def test_h2_a_word_waits_for_what_follows_it_and_not_for_long() -> None:
    clock = FakeClock()
    agent = Upstream(["Hello wor"], waits_at_end=True)
    given, aside = turn(), list[Output]()
    given.interjection.take = aside.append
    answer = pipeline(agent, filtering(clock, hold=0.25)).respond(given)
    first = await anext(answer)
    waiting = asyncio.ensure_future(anext(answer))
    await asyncio.sleep(0)
    clock.advance(0.5)

    assert (first, aside) == ("Hello ", ["wor"])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert aside == ["wor"]
    assert clock.pending == 0


async def test_h2_answers_share_a_timer_and_each_waits_as_long_as_it_would_alone() -> None:
    clock = FakeClock()
    leaks = filtering(clock, hold=0.25)
    asides: list[list[Output]] = []
    waiting: list[asyncio.Future[Output]] = []
    for name, passes in (("one", 0.3), ("other", 0.0)):
        given, aside = turn(), list[Output]()
        given.interjection.take = aside.append
        asides.append(aside)
        answer = pipeline(Upstream([f"Hello {name}"], waits_at_end=True), leaks).respond(given)
        assert await anext(answer) == "Hello "
        waiting.append(asyncio.ensure_future(anext(answer)))
        await asyncio.sleep(0)
        clock.advance(passes)

    assert clock.pending == 1
    clock.advance(0.2)  # the first has been silent for long enough
    assert asides == [["one"], []]
    clock.advance(0.25)
    assert asides == [["one"], ["other"]]

    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert clock.pending == 0


# H3: ends.


@pytest.mark.parametrize("held", ["wor", "4111", "alice@exam", "sk-proj"])
async def test_h3_what_is_held_leaves_before_an_error_is_told(held: str) -> None:
    outputs: list[Output] = []
    agent = Upstream([f"Hello {held}", UpstreamCut()])
    with pytest.raises(UpstreamCut):
        await collect(pipeline(agent, filtering()).respond(turn()), outputs)

    assert said(outputs) == f"Hello {held}"


@pytest.mark.parametrize(
    ("held", "left"), [("wor", "wor"), (CARD, CARD_NAME), ("alice@example.com", MAIL_NAME)]
)
async def test_h3_a_cut_at_error_or_cancel_never_leaks_what_is_held(held: str, left: str) -> None:
    for ending in ("error", "cancel", "end"):
        agent = Upstream(
            [f"Hello {held}", *([UpstreamCut()] if ending == "error" else [])],
            waits_at_end=ending == "cancel",
        )
        given, outputs = turn(), list[Output]()
        given.interjection.take = outputs.append
        answer = pipeline(agent, filtering()).respond(given)

        task = asyncio.ensure_future(collect(answer, outputs))
        for _ in range(5):
            await asyncio.sleep(0)
        if ending == "cancel":
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert said(outputs) == f"Hello {left}", ending


# Pieces of any size.

LARGE: Final = 20_000
"""Characters."""


def large(output: str) -> Output:
    """Return what an agent may say at once, of the kind that is named: numbers, which cost most."""
    text = ("12345 678 90 " * LARGE)[:LARGE]
    item = ItemId("item_1")
    kinds: dict[str, Output] = {
        "text": text,
        "thought": ReasoningPiece(text),
        "call": FunctionCallPiece(0, f'["{text}"]', "c", "f"),
        "tool": ToolCallPiece(item, f'["{text}"]', ToolHead("f", "bank")),
        "result": ToolEnded(item, text),
        "error": ToolEnded(item, None, ToolError(text)),
        "approval": AsksApproval(item, ApprovalHead("pay", "bank", f'["{text}"]')),
    }
    return kinds[output]


KINDS: Final = ("text", "thought", "call", "tool", "result", "error", "approval")


@pytest.mark.long
@pytest.mark.parametrize("mode", ["on", "shadow"])
@pytest.mark.parametrize("kind", KINDS)
async def test_others_have_their_turn_while_a_large_piece_is_looked_at(kind: str, mode: str) -> None:
    output = large(kind)
    outputs: list[Output] = []
    agent = Upstream([output])  # type: ignore[list-item]  # tools' outputs come from the loop
    answer = pipeline(agent, filtering(mode=mode, tool_outputs=True)).respond(turn())
    assert await turns_given(collect(answer, outputs)) >= LARGE // 512

    if mode == "shadow":
        assert outputs == [output], "it leaves as it came"


async def test_others_have_their_turn_while_an_agent_that_never_waits_says_much() -> None:
    assert await turns_given(answered(*["12345 678 90 "] * 1000, mode="shadow")) >= 13_000 // 2048


async def test_others_have_their_turn_while_an_agent_that_never_waits_says_nothing() -> None:
    assert await turns_given(answered(*[Working()] * 1000)) >= 1000 // 256


async def test_an_ordinary_answer_is_looked_at_in_one_step() -> None:
    assert await turns_given(answered("It ", "is ", "plain", ".", Usage(1, 1), Finish())) == 0


async def test_stopped_while_others_have_their_turn_the_rest_of_a_large_piece_leaves() -> None:
    text, given, outputs = "and so on it went. " * 200 + CARD, turn(), list[Output]()
    given.interjection.take = outputs.append
    agent = Upstream([text], waits_at_end=True)
    task = asyncio.ensure_future(collect(pipeline(agent, filtering()).respond(given), outputs))
    for _ in range(3):
        await asyncio.sleep(0)
    assert said(outputs) != text[: -len(CARD)], "it is looked at still"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert said(outputs) == text.replace(CARD, CARD_NAME)


async def test_stopped_while_its_taker_has_no_room_the_rest_of_an_answer_leaves() -> None:
    text, given, outputs = "and so on it went. " * 200 + CARD, turn(), list[Output]()
    given.interjection.take = outputs.append
    answer = pipeline(Upstream([text], waits_at_end=True), filtering()).respond(given)
    outputs.append(await anext(answer))
    await answer.aclose()

    assert said(outputs) == text.replace(CARD, CARD_NAME)


async def test_stopped_no_tool_is_run_any_more() -> None:
    item, given, outputs = ItemId("item_1"), turn(), list[Output]()
    given.interjection.take = outputs.append
    answer = filtering().filtered(given, lambda _: tool_call(item))
    outputs.append(await anext(answer))
    await answer.aclose()

    assert arguments(outputs) == '{"to": 1}'
    assert not any(isinstance(output, RunsTools) for output in outputs)


async def tool_call(item: ItemId) -> AsyncGenerator[Output, None]:
    yield ToolCallPiece(item, '{"to": 1}', ToolHead("mail", "post"))
    yield RunsTools((item,))


@pytest.mark.parametrize("place", [0, 505, 1020, 5000])
async def test_what_is_in_a_large_piece_is_found_as_in_small_ones(place: int) -> None:
    text = "word " * (place // 5) + f"card {CARD}, mail alice@example.com, " + "and so on " * 500
    small = await answered(*[text[at : at + 7] for at in range(0, len(text), 7)])
    raw = json.dumps({"body": text})
    item = ItemId("item_1")
    outputs = await answered(
        ReasoningPiece(text),
        text,
        FunctionCallPiece(0, raw, "c", "f"),
        ToolCallPiece(item, raw, ToolHead("f", "bank")),
        RunsTools((item,)),
        ToolEnded(item, text),
        tool_outputs=True,
    )

    whole = said(small)
    assert whole == text.replace(CARD, CARD_NAME).replace("alice@example.com", MAIL_NAME)
    assert said(outputs) == whole
    assert "".join(output.text for output in outputs if isinstance(output, ReasoningPiece)) == whole
    calls = [output for output in outputs if isinstance(output, FunctionCallPiece)]
    assert [(call.call_id, call.name) for call in calls if call.name] == [("c", "f")]
    assert json.loads("".join(call.arguments for call in calls)) == {"body": whole}
    tools = [output for output in outputs if isinstance(output, ToolCallPiece)]
    assert [tool.head is not None for tool in tools] == [True] + [False] * (len(tools) - 1)
    assert json.loads("".join(tool.arguments for tool in tools)) == {"body": whole}
    assert ToolEnded(item, whole) in outputs
    assert notes(outputs) == {"redacted": {"card": 5, "email": 5}}


@pytest.mark.parametrize("kind", ["text", "thought", "call", "tool"])
async def test_behind_what_blocks_nothing_of_a_large_piece_is_looked_at(kind: str) -> None:
    text = f'["{CARD} ' + "and so on " * 6000 + '"]'
    pieces: dict[str, Output] = {
        "text": text,
        "thought": ReasoningPiece(text),
        "call": FunctionCallPiece(0, text, "c", "f"),
        "tool": ToolCallPiece(ItemId("item_1"), text, ToolHead("f", "bank")),
    }
    blocking = {"default": {**STRICT, "card": "block"}}

    assert await turns_given(answered(pieces[kind], actions=blocking)) == 0


async def test_a_large_piece_that_blocks_ends_where_it_does() -> None:
    text = "so " * 1000 + f"{CARD} " + "and so on " * 1000
    outputs = await answered(text, "more", actions={"default": {**STRICT, "card": "block"}})

    assert said(outputs) == "so " * 1000
    assert outputs[-1] == Finish("content_filter")


# H5.


@dataclass(frozen=True)
class Unheard:
    """What a later agent might say."""

    text: str


async def test_h5_what_nobody_knows_does_not_switch_the_filter_off() -> None:
    strange: Any = Unheard("?")
    outputs = await answered("It is 4111", Working(), strange, Handle("h"), "111111111111", Usage(1, 1), ".")

    assert said(outputs) == f"It is {CARD_NAME}."
    assert strange in outputs


# Tools and thoughts.


async def test_a_tools_call_is_written_filtered_before_it_is_run() -> None:
    item = ItemId("item_1")
    outputs = await answered(
        ToolCallPiece(item, '{"card": "4111', ToolHead("pay", "bank")), ToolCallPiece(item, '111111111111"}'),
        RunsTools((item,)), ToolEnded(item, f"paid by {CARD}"), "Done.",
    )  # fmt: skip
    place = next(i for i, output in enumerate(outputs) if isinstance(output, RunsTools))

    assert arguments(outputs[:place]) == f'{{"card": "{CARD_NAME}"}}'
    assert ToolEnded(item, f"paid by {CARD}") in outputs, (
        "what tools return isn't filtered unless it is asked for"
    )


async def test_what_tools_return_is_filtered_where_it_is_set() -> None:
    item = ItemId("item_1")
    outputs = await answered(
        ToolCallPiece(item, "{}", ToolHead("pay", "bank")),
        RunsTools((item,)),
        ToolEnded(item, f"paid by {CARD}"),
        tool_outputs=True,
    )

    assert ToolEnded(item, f"paid by {CARD_NAME}") in outputs


async def test_a_call_whose_arguments_block_is_never_run() -> None:
    item = ItemId("item_1")
    outputs = await answered(
        ToolCallPiece(item, f'{{"card": {CARD}', ToolHead("pay", "bank")),
        RunsTools((item,)),
        actions={"default": {**STRICT, "card": "block"}},
    )

    assert not any(isinstance(output, RunsTools) for output in outputs)
    assert outputs[-1] == Finish("content_filter")


async def test_a_call_that_waits_for_approval_is_shown_filtered() -> None:
    asks = AsksApproval(ItemId("item_1"), ApprovalHead("pay", "bank", f'{{"card": "{CARD}"}}'))
    outputs = await answered(asks)

    assert [o.head.arguments for o in outputs if isinstance(o, AsksApproval)] == [
        f'{{"card": "{CARD_NAME}"}}'
    ]


async def test_thoughts_are_filtered_and_end_where_words_begin() -> None:
    outputs = await answered(ReasoningPiece("the card 4111"), ReasoningPiece("111111111111"), "It is 4", "2.")

    thought = "".join(output.text for output in outputs if isinstance(output, ReasoningPiece))
    assert (thought, said(outputs)) == (f"the card {CARD_NAME}", "It is 42.")
    assert outputs.index("It is ") > max(i for i, o in enumerate(outputs) if isinstance(o, ReasoningPiece))


@pytest.mark.parametrize(
    "what",
    [
        "AKIAIOSFODNN7EXAMPLQ",
        CARD,
        "DE89 3704 0044 0532 0130 00",
        "ghp_abcdefghijABCDEFGHIJ0123456789abcdef",
        "bob@example.com",
    ],
)
@pytest.mark.parametrize("before", ["Key:\n", "a\tb\t", '"', "back\\"])
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_h1_what_follows_an_escape_in_a_call_s_arguments_is_found(
    what: str, before: str, size: int
) -> None:
    raw = json.dumps({"body": before + what})
    pieces: list[Output] = [FunctionCallPiece(0, raw[:size], "c", "send")]
    pieces += [FunctionCallPiece(0, raw[at : at + size]) for at in range(size, len(raw), size)]
    outputs = await answered(*pieces, Finish(), actions={"default": STRICT})
    body = json.loads(arguments(outputs))["body"]

    assert what not in body
    assert body.startswith(before)


@pytest.mark.parametrize(
    "number", ["0.3141471703767915", "-4111111111111111", "4111111111111111e0", "1.4111111111111111"]
)
async def test_arguments_with_numbers_stay_json(number: str) -> None:
    raw = f'{{"x": {number}, "y": 1}}'
    outputs = await answered(FunctionCallPiece(0, raw, "c", "plot"), Finish())
    assert json.loads(arguments(outputs)) == json.loads(raw)


async def test_a_fraction_is_no_card() -> None:
    text = "It is 0.4111111111111111 or so."
    assert said(await answered(text, Finish())) == text
