"""What calls of the client's functions are called: both names are the agent's words, too."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.turns import turns_given
from tests.server.guards.leaks.answering import SESSION, Upstream, arguments, notes, said, turn
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, Actions
from unbroken.server.guards.leaks.filtering import LeakFiltering
from unbroken.server.guards.leaks.policy import LeakPolicy, LeakRules, placeholder_of
from unbroken.server.metrics import Metrics
from unbroken.server.pipeline import Pipeline
from unbroken.server.plan_tables import Mode
from unbroken.sessions.ids import new_call_id
from unbroken.sessions.items import FunctionTool, ResponseRequest, SessionConfig
from unbroken.sessions.outputs import Outputs
from unbroken.sessions.responder import Finish, FunctionCallPiece, Output, Resumption, Turn

SECRET: Final = b"a secret of at least 32 characters"
CARD: Final = "4111111111111111"
KEY: Final = "sk-proj-4fQz8LmN2pRtVwXy6ZaBcD"
CANARY: Final = "Zebra-4711-Kiwi"
CARD_NAME: Final = placeholder_of(SECRET, SESSION)("card", CARD)
IN_A_NAME: Final = CARD_NAME[1:-1].replace(" ", "_")
BLOCKING: Final[Actions] = {**DEFAULT_ACTIONS, "card": "block"}


class Answered:
    """An answer of an agent that says a list: what left, and what was counted."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.counted: list[tuple[str, str, int]] = []

    async def run(
        self, *said: Output, mode: Mode = "on", actions: Actions = DEFAULT_ACTIONS, given: Turn | None = None
    ) -> None:
        policy = LeakPolicy(
            LeakRules(mode=mode, actions={"default": actions}),
            SECRET,
            canaries_of=lambda _: (CANARY,),
            count=lambda *each: self.counted.append(each),
        )
        agent = Upstream(said)  # type: ignore[arg-type]  # as the other tests have it
        answer = Pipeline(agent, Metrics(), FakeClock(), leaks=LeakFiltering(policy, FakeClock()))
        self.outputs = [each async for each in answer.respond(given or turn())]

    @property
    def calls(self) -> list[FunctionCallPiece]:
        """The pieces that say what is called, and by what name."""
        pieces = [each for each in self.outputs if isinstance(each, FunctionCallPiece)]
        return [each for each in pieces if each.name or each.call_id]


async def answered(
    *said: Output, mode: Mode = "on", actions: Actions = DEFAULT_ACTIONS, given: Turn | None = None
) -> Answered:
    answer = Answered()
    await answer.run(*said, mode=mode, actions=actions, given=given)
    return answer


def with_tools(*names: str) -> Turn:
    tools = tuple(FunctionTool(name) for name in names)
    return replace(turn(), config=SessionConfig("m", tools=tools))


# The name of the function.


@pytest.mark.parametrize("size", [1, 1000])
async def test_what_is_redacted_of_a_functions_name_leaves_a_name_that_a_function_can_have(size: int) -> None:
    raw = '{"amount": 5}' + " " * size
    answer = await answered(FunctionCallPiece(0, raw, "c", f"pay_{CARD}"), Finish())

    assert [each.name for each in answer.calls] == [f"pay_{IN_A_NAME}"]
    assert arguments(answer.outputs) == raw
    assert notes(answer.outputs) == {"redacted": {"card": 1}}
    assert answer.counted == [("card", "redact", 1)]
    assert answer.outputs[-1] == Finish()
    assert Outputs(10_000).add(answer.calls[0]), "the session takes it"


async def test_a_redacted_name_is_no_longer_than_a_functions_can_be() -> None:
    answer = await answered(FunctionCallPiece(0, "{}", "c", f"{'x' * 52}_460-89-9847"))

    assert [each.name[:64] for each in answer.calls] == [f"{'x' * 52}_national_id"]
    assert Outputs(10_000).add(answer.calls[0])


@pytest.mark.parametrize("name", [f"pay_{CARD}", f"say_{CANARY}", "z_e_b_r_a_4711_kiwi", "iwik1174arbez"])
async def test_a_name_that_blocks_ends_the_answer_and_nothing_of_the_call_leaves(name: str) -> None:
    answer = await answered(
        "So: ", FunctionCallPiece(0, "{}", "c", name), FunctionCallPiece(0, "[]"), "more", actions=BLOCKING
    )

    entity = "card" if CARD in name else "canary"
    assert not any(isinstance(each, FunctionCallPiece) for each in answer.outputs)
    assert said(answer.outputs) == "So: "
    assert notes(answer.outputs) == {"blocked": {entity: 1}}
    assert answer.counted == [(entity, "block", 1)]
    assert answer.outputs[-1] == Finish("content_filter")


async def test_a_name_that_one_of_the_turns_tools_has_says_nothing() -> None:
    name = f"pay_{CARD}"
    asked = replace(turn(), request=ResponseRequest(tools=(FunctionTool(name),)))
    for given in (with_tools("other", name), asked):
        answer = await answered(FunctionCallPiece(0, "{}", "c", name), given=given)
        assert [each.name for each in answer.calls] == [name]
        assert answer.counted == []

    answer = await answered(FunctionCallPiece(0, "{}", "c", name), given=with_tools("pay"))
    assert [each.name for each in answer.calls] == [f"pay_{IN_A_NAME}"]


async def test_what_is_flagged_in_a_name_is_counted_and_passes() -> None:
    actions: Actions = {**DEFAULT_ACTIONS, "card": "flag"}
    call = FunctionCallPiece(0, "{}", f"call_{CARD}", f"pay_{CARD}")
    answer = await answered(call, actions=actions)

    assert [(each.call_id, each.name) for each in answer.calls] == [(call.call_id, call.name)]
    assert answer.counted == [("card", "flag", 2)]


# The name of the call.


@pytest.mark.parametrize("call_id", [f"call_{CARD}", KEY])
@pytest.mark.parametrize("action", ["redact", "block"])
async def test_a_calls_name_in_which_something_is_found_is_made_up_anew(call_id: str, action: str) -> None:
    actions: Actions = {**DEFAULT_ACTIONS, **({"card": action, "secret": action})}  # type: ignore[dict-item]
    answer = await answered(
        FunctionCallPiece(0, '{"a"', call_id, "pay"),
        FunctionCallPiece(0, ": 1}", call_id, "pay"),
        Finish(),
        actions=actions,
        given=with_tools("pay"),
    )

    entity = "secret" if call_id == KEY else "card"
    (call,) = answer.calls
    assert call_id not in repr(answer.outputs)
    assert call.call_id.startswith("call_")
    assert len(call.call_id) == len(new_call_id())
    assert call.name == "pay"
    assert arguments(answer.outputs) == '{"a": 1}'
    assert answer.counted == [(entity, "redact", 1)], "by chance, often: no reason to end an answer"
    assert answer.outputs[-1] == Finish()


async def test_a_canary_in_a_calls_name_ends_the_answer() -> None:
    answer = await answered(
        FunctionCallPiece(0, "{}", f"call_{CANARY}", "pay"), "more", given=with_tools("pay")
    )

    assert not any(isinstance(each, FunctionCallPiece) for each in answer.outputs)
    assert notes(answer.outputs) == {"blocked": {"canary": 1}}
    assert answer.outputs[-1] == Finish("content_filter")


@pytest.mark.parametrize(
    "call_id", ["", "call_4fQz8LmN2pRtVwXy6ZaBcD", "0", "toolu_01A09q90qw90lq917835lq9", "functions.pay:12"]
)
async def test_a_call_by_an_ordinary_name_passes_as_it_comes(call_id: str) -> None:
    answer = await answered(FunctionCallPiece(0, '{"a": 1}', call_id, "get_weather"), Finish())

    assert [(each.call_id, each.name) for each in answer.calls] == [(call_id, "get_weather")]
    assert arguments(answer.outputs) == '{"a": 1}'
    assert answer.counted == []


# Either.


async def test_what_later_pieces_of_a_call_are_called_does_not_leave() -> None:
    answer = await answered(
        FunctionCallPiece(0, "[", "c", "f"), FunctionCallPiece(0, "]", f"call_{CARD}", f"pay_{CANARY}")
    )

    assert [(each.call_id, each.name) for each in answer.calls] == [("c", "f")]
    assert arguments(answer.outputs) == "[]"
    assert answer.counted == []


@pytest.mark.parametrize("size", [2, 2000])
async def test_in_shadow_calls_pass_as_they_came_and_are_counted(size: int) -> None:
    calls = [
        FunctionCallPiece(0, "[" * size, f"call_{CARD}", f"pay_{CARD}"),
        FunctionCallPiece(0, "]" * size, f"call_{CARD}", f"pay_{CARD}"),
        FunctionCallPiece(1, "{}", "c", f"say_{CANARY}"),
    ]
    answer = await answered(*calls, Finish(), mode="shadow")

    assert answer.outputs == [*calls, Finish()]
    assert sorted(answer.counted) == [("canary", "block_shadow", 1), ("card", "redact_shadow", 2)]


async def test_text_that_blocks_where_a_call_begins_lets_nothing_of_the_call_follow() -> None:
    answer = await answered(f"It is {CARD}", FunctionCallPiece(0, '{"a": 1}', "c", "f"), actions=BLOCKING)

    assert not any(isinstance(each, FunctionCallPiece) for each in answer.outputs)
    assert answer.outputs[-1] == Finish("content_filter")


async def test_a_resumed_call_is_called_what_it_was() -> None:
    """The log has the name; what is found in it is counted again, as all of the answer is."""
    pieces = [FunctionCallPiece(0, part, f"call_{CARD}", f"pay_{CARD}") for part in ('{"a": ', "1}")]
    given = turn("", Resumption("upstream_1", 0, (5,), "", ('{"a":',)))
    answer = await answered(*pieces, Finish(), given=given)

    assert arguments(answer.outputs) == " 1}"
    assert CARD not in repr(answer.outputs)


async def test_others_have_their_turn_while_a_long_name_is_looked_at() -> None:
    name = ("12345_678_90_" * 2000)[:20_000]
    for call in (FunctionCallPiece(0, "{}", "c", name), FunctionCallPiece(0, "{}", name, "f")):
        assert await turns_given(answered(call)) >= len(name) // 512
