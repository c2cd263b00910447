"""Requests that are merged while a response runs. The other policies are in ``test_session_responses``."""

from __future__ import annotations

import pytest
from hypothesis import given
from msgspec import UNSET
from msgspec.structs import replace

from tests.sessions.told import CANCELLED, Driven, Told, ask, kinds, say, steps
from unbroken.sessions.entries import (
    Body,
    CancelResponse,
    CreateResponse,
    DeleteItem,
    Refused,
    ResponseDone,
    ResponseMerged,
    ResponseQueued,
    ResponseStarted,
    Submitted,
    UpdateConfig,
)
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.items import Concurrency, FunctionTool, Message
from unbroken.sessions.session import SessionLimits


def merging(limits: SessionLimits | None = None) -> Told:
    """Return a session that merges, in which ``r1`` answers ``u1``."""
    told = Told(Concurrency.MERGE, limits)
    told.do(say("u1"))
    told.do(ask("r1"))
    return told


def request(told: Told, command: CreateResponse, event_id: str | None = None) -> list[Body]:
    told.submit(command, event_id)
    return told.answer()


def prompt(told: Told, name: str) -> list[str]:
    return [item.id for item in told.session.prompt(ResponseId(name))]


def test_requests_that_come_while_one_runs_become_one_response() -> None:
    """It names the requests that it answers, both when it begins and when it ends."""
    told = merging()
    told.do(say("u2"))
    (queued,) = request(told, ask("r2"), "e2")
    told.produce("r1", "a")
    told.do(say("u3"))
    (third,) = request(told, ask("r3"))
    (fourth,) = request(told, ask("r4"), "e4")
    told.do(say("u4"))
    told.end("r1")
    (started,) = told.promote()
    told.do(say("u5"))
    done = told.end("r2")[-1]

    assert isinstance(queued, ResponseQueued)
    assert isinstance(started, ResponseStarted)
    assert (third, fourth) == (
        ResponseMerged(queued.response_id, "", third.input),  # type: ignore[union-attr]
        ResponseMerged(queued.response_id, "e4", fourth.input),  # type: ignore[union-attr]
    )
    assert started.requests == ("e2", "", "e4")
    assert isinstance(done, ResponseDone)
    assert done.requests == ("e2", "", "e4")
    assert told.states() == {}


def test_requests_by_different_plans_are_not_merged() -> None:
    """None is answered by the plan of another, and each keeps its own until it runs."""
    told = merging()
    for name, plan in (("r2", "free"), ("r3", "free"), ("r4", "pro"), ("r5", "free")):
        told.do(ask(name, plan=plan))

    waiting = list(told.session.responses.values())[1:]
    assert [(each.id, each.request.plan) for each in waiting] == [
        ("r2", "free"),
        ("r4", "pro"),
        ("r5", "free"),
    ]
    told.end("r1")
    told.promote()
    assert told.session.ended_plan is None
    told.end("r2")
    assert told.session.ended_plan == "free"


def test_a_merged_response_answers_what_was_said_until_it_starts() -> None:
    told = merging()
    request(told, ask("r2"))
    told.produce("r1", "a")
    told.do(say("u2"))
    told.do(DeleteItem("u1"))
    told.end("r1")
    told.promote()
    told.do(say("u3"))
    told.produce("r2", "b")

    assert prompt(told, "r2") == ["answer_r1", "u2"]
    told.end("r2")
    assert told.order() == ["answer_r1", "u2", "answer_r2", "u3"]


def test_a_request_that_waited_alone_is_told_as_always() -> None:
    told = merging()
    request(told, ask("r2"), "e2")
    told.end("r1")
    (started,) = told.promote()

    assert isinstance(started, ResponseStarted)
    assert started.requests is UNSET


@pytest.mark.parametrize(
    "wish",
    [
        {"metadata": {"k": "v"}},
        {"instructions": "Be brief."},
        {"max_output_tokens": 3},
        {"tools": (FunctionTool("f"),)},
        {"tool_choice": "none"},
        {"parallel_tool_calls": False},
        {"input": (Message("i", "user", ()),)},  # type: ignore[arg-type]
    ],
    ids=lambda wish: next(iter(wish)),
)
def test_another_wish_waits_for_itself(wish: dict[str, object]) -> None:
    """Nobody's wish is lost in somebody else's, and the order stays: only the last that waits is joined."""
    told = merging()
    other = CreateResponse(ResponseId("r3"), replace(ask("r3").request, **wish))
    kinds_of = [
        kinds(request(told, command))
        for command in (ask("r2"), other, replace(other, response_id=ResponseId("r4")), ask("r5"))
    ]

    repeated = "ResponseQueued" if "input" in wish else "ResponseMerged"
    assert kinds_of == [["ResponseQueued"], ["ResponseQueued"], [repeated], ["ResponseQueued"]]


def test_each_of_those_that_wait_answers_what_was_said_until_it_starts() -> None:
    told = merging()
    request(told, ask("r2"))
    request(told, ask("r3", metadata={"k": "v"}))
    for name in ("r1", "r2"):
        told.produce(name, "a")
        told.do(say(f"during {name}"))
        told.end(name)
        told.promote()

    assert prompt(told, "r3") == ["u1", "answer_r1", "during r1", "answer_r2", "during r2"]


def test_an_idle_conversation_has_nothing_to_merge() -> None:
    told = Told(Concurrency.MERGE)

    (started,) = told.do(ask("r1"))

    assert isinstance(started, ResponseStarted)


def test_a_request_joins_what_is_about_to_start() -> None:
    told = merging()
    request(told, ask("r2"))
    told.end("r1")

    assert kinds(request(told, ask("r3"))) == ["ResponseMerged"]


def test_a_running_response_is_not_joined() -> None:
    told = merging()
    request(told, ask("r2"))
    told.end("r1")
    told.promote()

    assert kinds(request(told, ask("r3"))) == ["ResponseQueued"]


def test_what_is_cancelled_takes_its_requests_along_and_no_new_one() -> None:
    told = merging()
    request(told, ask("r2"), "e2")
    request(told, ask("r3"), "e3")
    told.do(CancelResponse("r2"))
    (queued,) = request(told, ask("r4"), "e4")
    (done,) = told.end("r2", CANCELLED)
    told.end("r1")
    told.promote()

    assert isinstance(queued, ResponseQueued)
    assert isinstance(done, ResponseDone)
    assert (done.status, done.requests, done.ordinal) == ("cancelled", ("e2", "e3"), 0)
    assert told.states() == {"r4": "starting"}


def test_an_interruption_stops_what_was_merged() -> None:
    told = merging()
    request(told, ask("r2"), "e2")
    request(told, ask("r3"), "e3")
    told.do(UpdateConfig(concurrency=Concurrency.INTERRUPT))
    request(told, ask("r4"))

    assert told.states() == {"r1": "cancelling", "r2": "cancelling", "r4": "queued"}


def test_what_waits_keeps_to_the_policy_it_came_under() -> None:
    """One that was queued answers what had been said, and isn't joined; one that merges goes on so."""
    told = merging()
    told.do(UpdateConfig(concurrency=Concurrency.QUEUE))
    request(told, ask("r2"))
    told.do(UpdateConfig(concurrency=Concurrency.MERGE))
    (third,) = request(told, ask("r3"))
    told.do(UpdateConfig(concurrency=Concurrency.REJECT))
    told.do(say("u2"))
    told.end("r1")
    told.promote()
    second = prompt(told, "r2")
    told.end("r2")
    told.promote()

    assert isinstance(third, ResponseQueued)
    assert second == ["u1"]
    assert prompt(told, "r3") == ["u1", "u2"]


def test_responses_beside_the_conversation_are_not_merged() -> None:
    told = merging()
    request(told, ask("r2"))

    assert kinds(request(told, ask("r3", beside=True))) == ["ResponseStarted"]
    assert kinds(request(told, ask("r4", beside=True))) == ["ResponseStarted"]


def test_one_response_answers_so_many_requests() -> None:
    """It names them all, and the log and its frames have a bound."""
    told = merging()
    for number in range(64):
        request(told, ask(f"more{number}"))
    (refused,) = request(told, ask("last"))

    assert isinstance(refused, Refused)
    assert refused.code == "response_queue_full"
    told.end("r1")
    (started,) = told.promote()
    assert isinstance(started, ResponseStarted)
    assert started.requests == ("",) * 64


def test_different_wishes_wait_up_to_the_bound_of_the_queue() -> None:
    told = merging(SessionLimits(queued=2))
    outcomes = [kinds(request(told, ask(f"w{n}", metadata={"n": str(n)}))) for n in range(3)]

    assert outcomes == [["ResponseQueued"], ["ResponseQueued"], ["Refused"]]


@given(steps)
def test_each_request_has_one_answer(taken: list[object]) -> None:
    """It is refused, or answered by the one response that says so, which ends."""
    live = Driven(Concurrency.MERGE)
    for step in taken:
        live.step(step)
    bodies = [entry.body for entry in live.entries]
    asked = {
        entry.seq: entry.body.event_id
        for entry in live.entries
        if isinstance(entry.body, Submitted)
        and isinstance(entry.body.command, CreateResponse)
        and entry.seq <= live.session.consumed
    }
    answers: list[int] = [body.input for body in bodies if isinstance(body, ResponseQueued | ResponseMerged)]
    answers += [body.input for body in bodies if isinstance(body, Refused) and body.input in asked]
    queued = {body.response_id for body in bodies if isinstance(body, ResponseQueued)}
    started = [body for body in bodies if isinstance(body, ResponseStarted)]
    answers += [body.turn for body in started if body.response_id not in queued]
    assert sorted(answers) == sorted(asked)

    merged = {body.response_id for body in bodies if isinstance(body, ResponseMerged)}
    for body in bodies:
        if isinstance(body, ResponseDone):
            names = () if body.requests is UNSET else body.requests
            joined = [each for each in bodies if isinstance(each, ResponseMerged | ResponseQueued)]
            own = [each for each in joined if each.response_id == body.response_id]
            assert names == (tuple(asked[each.input] for each in own) if body.response_id in merged else ())


def test_a_merged_request_that_comes_twice_is_answered_once() -> None:
    """Its first arrival was taken for lost: the second carries the id that was made for it, and no name."""
    told = merging()
    request(told, ask("r2"))
    (merged,) = request(told, ask("r3"))
    assert isinstance(merged, ResponseMerged)
    again = request(told, ask("r3"))
    told.end("r1")
    told.promote()
    told.end("r2")
    late = request(told, ask("r3"))

    assert (again, late) == ([], [])
    assert told.states() == {}
