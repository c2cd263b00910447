from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from tests.server.agents.agent_contract import message
from unbroken.server.agents.base import Prompted
from unbroken.server.agents.calls import answered
from unbroken.server.agents.window import fit
from unbroken.sessions.ids import ItemId
from unbroken.sessions.items import FunctionCall, FunctionOutput, Message


def call(name: str, status: Literal["completed", "incomplete"] = "completed") -> FunctionCall:
    return FunctionCall(ItemId(f"call {name}"), name, "f", "{}", status)


def output(name: str) -> FunctionOutput:
    return FunctionOutput(ItemId(f"output {name}"), name, f"of {name}")


def names(items: tuple[Prompted, ...]) -> list[str]:
    return [item.text if isinstance(item, Message) else item.id for item in items]


def test_outputs_come_right_behind_the_calls_made_together() -> None:
    items: list[Prompted] = [
        message("go"),
        call("a"),
        call("b"),
        message("and?"),
        output("b"),
        output("a"),
        call("c"),
        output("c"),
    ]

    assert names(answered(items)) == [
        *("go", "call a", "call b", "output a", "output b", "and?"),
        *("call c", "output c"),
    ]


def test_calls_made_one_after_the_other_stay_so() -> None:
    items: list[Prompted] = [message("go"), call("a"), output("a"), call("b"), output("b")]

    assert answered(items) == tuple(items)


def test_what_no_model_takes_is_left_out() -> None:
    items: list[Prompted] = [
        message("go"),
        call("a", "incomplete"),
        call("b"),
        output("a"),
        output("gone"),
        message("so?"),
    ]

    assert names(answered(items)) == ["go", "so?"]


@given(
    st.lists(
        st.one_of(
            st.builds(message, st.sampled_from(["x", "y" * 9])),
            st.sampled_from([call(name) for name in "abc"]),
            st.sampled_from([output(name) for name in "abc"]),
        ),
        unique_by=lambda item: id(item) if isinstance(item, Message) else item.id,
        max_size=12,
    ),
    st.integers(20, 200),
)
def test_no_window_parts_a_call_from_its_output(items: list[Prompted], budget: int) -> None:
    arranged = answered(items)
    shown = fit([message("q"), *arranged, message("last")], budget_tokens=budget).messages
    calls = [item.call_id for item in shown if isinstance(item, FunctionCall)]
    outputs = [item.call_id for item in shown if isinstance(item, FunctionOutput)]

    assert sorted(calls) == sorted(outputs)
    assert [item for item in arranged if isinstance(item, Message)] == [
        i for i in items if isinstance(i, Message)
    ]
