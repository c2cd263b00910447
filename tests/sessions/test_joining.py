"""Items that come with a request for a response: all of them join with it, or none does."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from tests.sessions.told import BUSY, Told, ask, kinds, say
from unbroken.sessions.entries import (
    CreateItem,
    CreateItems,
    CreateResponse,
    DeleteItem,
    ItemAdded,
    Refused,
    Submitted,
    decode_body,
    encode_body,
)
from unbroken.sessions.errors import Refusal
from unbroken.sessions.ids import ItemId, ResponseId
from unbroken.sessions.items import Concurrency, FunctionCall, FunctionOutput, Item, Message, Text
from unbroken.sessions.session import SessionLimits

MOVED_ON: Final = "conversation_moved_on"
NAMES: Final = st.sampled_from("abcdef")
CALLS: Final = st.sampled_from(["call_1", "call_2"])


def message(name: str, text: str = "hello") -> Message:
    return Message(ItemId(name), "user", (Text(text),))


items: st.SearchStrategy[Item] = st.one_of(
    st.builds(message, NAMES, st.sampled_from(["", "xy", 100 * "z"])),
    st.builds(lambda name, call: FunctionCall(ItemId(name), call, "f", "{}"), NAMES, CALLS),
    st.builds(lambda name, call: FunctionOutput(ItemId(name), call, "done"), NAMES, CALLS),
)


def asking(name: str = "r1", *said: Item, removed: tuple[str, ...] = (), **more: Any) -> CreateResponse:
    return replace(ask(name), said=said, removed=tuple(map(ItemId, removed)), **more)


def code_of(told: Told, command: CreateResponse) -> str | None:
    """Do *command*, and return the code it was refused with: then nothing else has come of it."""
    bodies = told.do(command)
    refused = [each for each in bodies if isinstance(each, Refused)]
    assert not refused or bodies == refused
    return refused[0].code if refused else None


@given(st.lists(items, max_size=6), st.lists(NAMES, max_size=3), st.lists(items, max_size=4))
@example(
    [FunctionCall(ItemId("a"), "call", "f", "{}"), FunctionOutput(ItemId("c"), "call", "done")],
    ["c", "a"],
    [],
)
def test_it_comes_to_what_one_by_one_would_or_to_nothing(
    before: list[Item], removed: list[str], said: list[Item]
) -> None:
    limits = SessionLimits(conversation_bytes=600, items=6)
    together, singly = Told(limits=limits), Told(limits=limits)
    for told in (together, singly):
        for item in before:
            told.do(CreateItem(item))
    begun = together.order()
    for name in removed:
        if name in singly.order():
            assert singly.code_of(DeleteItem(name)) is None
    codes = [singly.code_of(CreateItem(item)) for item in said]
    codes.append(singly.code_of(ask("r1")))

    code = code_of(together, asking("r1", *said, removed=tuple(removed)))

    if code is None:
        assert codes == [None] * len(codes)
        assert together.session.items() == singly.session.items()
        assert together.session.conversation_bytes == singly.session.conversation_bytes
        assert together.session.prompt(ResponseId("r1")) == singly.session.prompt(ResponseId("r1"))
    else:
        assert code in codes or "conversation_full" in codes
        assert together.order() == begun
        assert not together.session.is_running


@given(st.lists(items, max_size=6), st.lists(items, max_size=4))
def test_items_without_a_response_come_to_what_one_by_one_would_or_to_nothing(
    before: list[Item], said: list[Item]
) -> None:
    limits = SessionLimits(conversation_bytes=600, items=6)
    together, singly = Told(limits=limits), Told(limits=limits)
    for told in (together, singly):
        for item in before:
            told.do(CreateItem(item))
    begun = together.order()
    codes = [singly.code_of(CreateItem(item)) for item in said]
    command = CreateItems(tuple(said))

    foreseen = refusal_of(together, command)
    code = together.code_of(command)

    assert foreseen == code
    assert not together.session.has_inputs
    if code is None:
        assert codes == [None] * len(codes)
        assert together.session.items() == singly.session.items()
        assert together.session.conversation_bytes == singly.session.conversation_bytes
    else:
        assert code in codes
        assert together.order() == begun


def refusal_of(told: Told, command: CreateItems) -> str | None:
    """Return the code that *command* would be refused with."""
    before = told.session.snapshot()
    try:
        told.session.check(command)
    except Refusal as refusal:
        return refusal.code
    finally:
        assert told.session.snapshot() == before
    return None


def test_items_without_a_response_are_one_input_that_the_last_of_them_answers() -> None:
    told = Told()
    seq = told.submit(CreateItems((message("u1"), message("u2"))))
    bodies = told.session.decide()[1]
    assert [(body.item.id, body.previous, body.input) for body in bodies if isinstance(body, ItemAdded)] == [
        ("u1", None, 0),
        ("u2", "u1", seq),
    ]


def test_all_of_it_is_one_input() -> None:
    told = Told()
    told.do(say("u1"))
    bodies = told.do(asking("r1", message("u2"), message("u3"), removed=("u1",)))

    assert kinds(bodies) == ["ItemDeleted", "ItemAdded", "ItemAdded", "ResponseStarted"]
    assert told.order() == ["u2", "u3"]
    assert not told.session.has_inputs


def test_what_has_its_place_taken_meanwhile_changes_nothing() -> None:
    told = Told()
    told.do(say("u1"))
    assert code_of(told, asking("r1", message("u2"), behind=ItemId("u0"))) == MOVED_ON
    assert code_of(told, asking("r1", message("u2"), behind=None)) == MOVED_ON
    assert told.order() == ["u1"]
    assert code_of(told, asking("r1", message("u2"), behind=ItemId("u1"))) is None
    assert code_of(told, asking("r2", message("u3"), behind=ItemId("u2"))) == MOVED_ON  # r1 runs
    assert told.order() == ["u1", "u2"]


def test_nothing_is_behind_nothing() -> None:
    assert code_of(Told(), asking("r1", message("u1"), behind=None)) is None


def test_where_one_is_refused_for_another_that_runs_nothing_joins() -> None:
    told = Told(Concurrency.REJECT)
    told.do(ask("r1"))
    assert code_of(told, asking("r2", message("u1"))) == BUSY
    assert told.order() == []


@pytest.mark.parametrize("policy", [Concurrency.QUEUE, Concurrency.INTERRUPT, Concurrency.MERGE])
def test_what_waits_has_its_items(policy: Concurrency) -> None:
    told = Told(policy)
    told.do(asking("r1", message("u1")))
    told.produce("r1", "a")
    assert code_of(told, asking("r2", message("u2"))) is None
    assert [item.id for item in told.session.standing() if isinstance(item, Message)] == ["u1", "u2"]
    told.end("r1")
    told.promote()

    assert [item.id for item in told.session.prompt(ResponseId("r2"))] == ["u1", "answer_r1", "u2"]


def test_what_joins_one_that_waits_has_its_items() -> None:
    told = Told(Concurrency.MERGE)
    for number in (1, 2, 3):
        assert code_of(told, asking(f"r{number}", message(f"u{number}"))) is None
    assert told.states() == {"r1": "starting", "r2": "queued"}
    assert told.session.was_merged(ResponseId("r3"))
    told.end("r1")
    told.promote()

    assert [item.id for item in told.session.prompt(ResponseId("r2"))] == ["u1", "u2", "u3"]


def test_of_what_is_being_said_nothing_is_removed() -> None:
    told = Told(Concurrency.QUEUE)
    told.do(asking("r1", message("u1")))
    told.produce("r1", "a")
    assert code_of(told, asking("r2", message("u2"), removed=("answer_r1",))) == "item_in_progress"
    assert told.order() == ["u1"]


def test_a_request_alone_is_written_as_it_always_was() -> None:
    """Nodes of the release before find no field that they don't know."""
    alone = Submitted(ask("r1"), Told().entries[0].body.principal)  # type: ignore[union-attr,arg-type]
    assert {b"said", b"removed", b"behind"}.isdisjoint(encode_body(alone).replace(b'"', b" ").split())
    whole = replace(alone, command=asking("r1", message("u1"), removed=("u0",), behind=None))
    assert decode_body(encode_body(whole)) == whole
    assert asking("r1").behind is UNSET
