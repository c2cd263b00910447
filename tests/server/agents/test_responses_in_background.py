"""The agent behind the Responses API in background mode: what is cut goes on, and nobody asks twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes.agent import FakeAgent
from tests.fakes.clock import FakeClock
from tests.fakes.dialects import RESPONSE_ID, ResponsesDialect
from tests.fakes.upstream import FakeUpstream
from tests.server.agents.agent_contract import collect, text_of, turn
from tests.server.agents.upstream_contract import KEY, SECRET, fails, made
from unbroken.server.agents.base import (
    AgentOutput,
    Finish,
    FunctionCallPiece,
    Handle,
    Parameters,
    ReasoningPiece,
    Reattaching,
    ResponseGone,
    ResponseShorter,
    UpstreamCut,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamReportedError,
    Usage,
    Working,
)
from unbroken.server.agents.fallback import FallbackAgent, Member
from unbroken.server.agents.responses import ResponsesAgent
from unbroken.server.cache.flight import Flights
from unbroken.sessions.custody import Custody

PIECES = ("Grüße, ", "世界", " ", "🎉", " und mehr")
WHOLE = "".join(PIECES)


@pytest.fixture
async def background(upstream: FakeUpstream) -> AsyncIterator[ResponsesAgent]:
    agent = made(
        ResponsesAgent, model="m-1", base_url=upstream.base_url, api_key=KEY, max_retries=0, background=True
    )
    await agent.start()
    yield agent
    await agent.stop()


async def test_handle_comes_before_the_text(background: ResponsesAgent, upstream: FakeUpstream) -> None:
    upstream.keep(*PIECES)

    outputs = [o for o in await collect(background, turn("hi")) if not isinstance(o, Working)]

    assert isinstance(background, Reattaching)
    assert outputs == [Handle(RESPONSE_ID), *PIECES, Usage(7, len(PIECES)), Finish("completed")]


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("place", range(1, 4 + len(PIECES) + 4))
async def test_stream_that_is_cut_anywhere_goes_on(
    background: ResponsesAgent, upstream: FakeUpstream, place: int, how: Any
) -> None:
    upstream.keep(*PIECES, cuts=[place], how=how)

    outputs = await collect(background, turn("hi"))

    assert text_of(outputs) == WHOLE
    assert [o for o in outputs if isinstance(o, Handle)] == [Handle(RESPONSE_ID)]
    assert outputs[-2:] == [Usage(7, len(PIECES)), Finish("completed")]
    assert upstream.cancelled == []
    posted = [request for request in upstream.requests if request.method == "POST"]
    assert len(posted) == 1, "nothing is asked twice"


async def test_stream_that_is_cut_again_and_again_goes_on(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    """As long as each stream gets further; also when the cuts go back and forth."""
    upstream.keep(*PIECES, cuts=[5, 2, 6, 3, 7, 1, 1, 8])

    assert text_of(await collect(background, turn("hi"))) == WHOLE


async def test_stream_that_gets_no_further_is_given_up(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    upstream.keep(*PIECES, cuts=[5] * 100)

    _, outputs = await fails(background, UpstreamCut)

    await background.stop()
    assert text_of(outputs) == PIECES[0]
    assert len(upstream.requests) < 10
    assert upstream.cancelled == [RESPONSE_ID]


async def test_response_that_is_not_kept_is_cut(background: ResponsesAgent, upstream: FakeUpstream) -> None:
    """The failure that is told is the first one, and not that the upstream knows no such response."""
    upstream.cut_after(1)

    await fails(background, UpstreamCut)


@pytest.mark.parametrize("offset", range(len(WHOLE) + 1))
async def test_reattaching_goes_on_after_any_character(
    background: ResponsesAgent, upstream: FakeUpstream, offset: int
) -> None:
    """Also when its stream is cut in its turn, at a place before the offset or behind it."""
    for place in (None, 1, 5, 6, 8):
        upstream.keep(*PIECES, cuts=[] if place is None else [place])

        outputs = [o async for o in background.reattach(turn("hi"), Handle(RESPONSE_ID), offset)]

        assert text_of(outputs) == WHOLE[offset:]
        assert outputs[-2:] == [Usage(7, len(PIECES)), Finish("completed")]


async def test_reattaching_to_what_is_unknown_is_refused(background: ResponsesAgent) -> None:
    with pytest.raises(ResponseGone):
        [o async for o in background.reattach(turn("hi"), Handle("resp_other"), 0)]


async def test_a_response_that_failed_is_told_as_such_to_who_reattaches(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    """Also where it was refused: that is how it ended, and no way to say that it isn't there."""
    dialect = ResponsesDialect()
    error = {"code": "invalid_prompt", "message": SECRET}
    kept = upstream.keep("a")
    kept.payloads[-1] = dialect.event("response.failed", response=dialect.response("failed", error=error))

    with pytest.raises(UpstreamRejected) as caught:
        [o async for o in background.reattach(turn("hi"), Handle(RESPONSE_ID), 0)]
    assert not caught.value.is_rest_lost


async def test_reattaching_behind_the_end_fails(background: ResponsesAgent, upstream: FakeUpstream) -> None:
    """What the session holds isn't the beginning of this response."""
    upstream.keep("short")

    with pytest.raises(ResponseShorter):
        [o async for o in background.reattach(turn("hi"), Handle(RESPONSE_ID), 6)]


async def test_what_goes_on_elsewhere_is_not_cancelled_upstream(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    """Its new owner reads the same response."""
    upstream.keep(*PIECES)
    custody = Custody()
    async with aclosing(background.respond(replace(turn("hi"), custody=custody))) as outputs:
        async for output in outputs:
            if isinstance(output, str):
                break
        custody.pass_on()
    rest = [o async for o in background.reattach(turn("hi"), Handle(RESPONSE_ID), len(PIECES[0]))]

    assert upstream.cancelled == []
    assert text_of(rest) == WHOLE[len(PIECES[0]) :]


@pytest.mark.parametrize("is_closed", [True, False])
async def test_stopping_cancels_upstream_once(
    background: ResponsesAgent, upstream: FakeUpstream, is_closed: bool
) -> None:
    upstream.never_ending()
    has_text = asyncio.Event()

    async def consume() -> None:
        async with aclosing(background.respond(turn("hi"))) as outputs:
            async for output in outputs:
                if isinstance(output, str):
                    has_text.set()
                    if is_closed:
                        return

    task = asyncio.create_task(consume())
    await has_text.wait()
    if not is_closed:
        task.cancel()
    await asyncio.wait([task])

    await upstream.requests[0].disconnected.wait()
    await background.stop()
    assert upstream.cancelled == [RESPONSE_ID]


async def test_what_may_be_another_s_is_cancelled_when_the_log_has_its_end(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    """The stream that was read is closed at once, which stops nothing."""
    upstream.keep(*PIECES)
    custody = Custody(is_sole=False)
    async with aclosing(background.respond(replace(turn("hi"), custody=custody))) as outputs:
        async for output in outputs:
            if isinstance(output, str):
                break
    rest = [o async for o in background.reattach(turn("hi"), Handle(RESPONSE_ID), len(PIECES[0]))]
    assert text_of(rest) == WHOLE[len(PIECES[0]) :]
    assert upstream.cancelled == []
    custody.settle()
    await background.stop()

    assert upstream.cancelled == [RESPONSE_ID]


@pytest.mark.parametrize("how", ["silent", "cut"])
async def test_a_fallback_has_it_cancelled_before_its_own_first_word(
    background: ResponsesAgent, upstream: FakeUpstream, how: str
) -> None:
    """Once the log says that the answer goes on without it."""
    if how == "silent":
        upstream.stall_after(0)
    else:
        upstream.keep(*PIECES, cuts=[2, 2, 2, 2])
    second = FakeAgent([None])
    second.is_ready = True
    members = [Member(name="a", agent=background), Member(name="b", agent=second)]
    chain, custody = FallbackAgent(members, FakeClock(), patience=1.5), Custody(is_sole=False)
    said: list[str] = []
    async with aclosing(chain.respond(replace(turn("hi"), custody=custody))) as outputs:
        async for output in outputs:
            if isinstance(output, Handle):
                said.append(output.value)
            if said == [f"a:{RESPONSE_ID}", ""]:
                break
        assert upstream.cancelled == []
        custody.give_up().settle()
        assert await anext(outputs) == Working()
        pending = asyncio.ensure_future(anext(outputs))
        await second.hanging.wait()
        await background.stop()
        assert upstream.cancelled == [RESPONSE_ID]
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


async def test_an_answer_that_several_follow_is_cancelled_with_the_last(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    """Also if the first of them, who asked for it, has long ended."""
    upstream.never_ending()
    flights, custody = Flights(), Custody(is_sole=False)

    async def keep(_: object) -> None:
        pass

    async def ask() -> AsyncGenerator[AgentOutput, None]:
        return background.respond(replace(turn("hi"), custody=custody))

    first, second = (flights.board("hi", ask, keep) for _ in range(2))
    async with aclosing(first.follow()) as outputs:
        async for output in outputs:
            if isinstance(output, str):
                break
    await flights.leave(first)
    custody.settle()
    async with aclosing(second.follow()) as outputs:
        assert len([await anext(outputs) for _ in range(10)]) == 10
    assert upstream.cancelled == []
    await flights.leave(second)
    await background.stop()

    assert upstream.cancelled == [RESPONSE_ID]


async def test_stopping_a_reattached_response_cancels_it(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    upstream.keep(*PIECES)
    async with aclosing(background.reattach(turn("hi"), Handle(RESPONSE_ID), 0)) as outputs:
        async for output in outputs:
            if isinstance(output, str):
                break

    await background.stop()
    assert upstream.cancelled == [RESPONSE_ID]


async def test_answer_that_is_complete_is_not_cancelled(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    await collect(background, turn("hi"))

    assert upstream.cancelled == []


async def test_cancel_that_is_not_answered_is_not_waited_for(
    background: ResponsesAgent, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.server.agents.responses._CANCEL_SECONDS", 0.5)
    upstream.never_ending()
    upstream.stall_cancels()
    with capture_logs() as logs:
        async with aclosing(background.respond(turn("hi"))) as outputs:
            async for output in outputs:
                if isinstance(output, str):
                    break
        await background.stop()

    assert upstream.cancelled == [RESPONSE_ID]
    assert [log["event"] for log in logs] == ["upstream did not confirm a cancel"]


async def test_cancel_outlives_who_asked_for_it(
    background: ResponsesAgent, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping the agent waits for it."""
    monkeypatch.setattr("unbroken.server.agents.responses._CANCEL_SECONDS", 0.5)
    upstream.never_ending()
    upstream.stall_cancels()
    has_text = asyncio.Event()
    outputs: list[AgentOutput] = []

    async def consume() -> None:
        async for output in background.respond(turn("hi")):
            outputs.append(output)
            if isinstance(output, str):
                has_text.set()

    task = asyncio.create_task(consume())
    await has_text.wait()
    task.cancel()
    await asyncio.wait([task])
    request = await upstream.request(1)

    assert task.cancelled()
    assert not request.disconnected.is_set()
    await background.stop()
    await request.disconnected.wait()
    assert upstream.cancelled == [RESPONSE_ID]


@pytest.mark.parametrize("place", range(1, 13))
async def test_calls_survive_a_cut_stream(
    background: ResponsesAgent, upstream: FakeUpstream, place: int
) -> None:
    upstream.keep(
        "a", "b", calls=[("f", ["{", "}"]), ("g", []), ("h", ["[", "1", "]"])], cuts=[place, place + 1]
    )
    outputs = await collect(background, turn("hi"))

    calls = [output for output in outputs if isinstance(output, FunctionCallPiece)]
    arguments = ["".join(call.arguments for call in calls if call.index == index) for index in range(3)]
    assert text_of(outputs) == "ab"
    assert [(call.name, call.call_id) for call in calls if call.name] == [
        ("f", "call_0"),
        ("g", "call_1"),
        ("h", "call_2"),
    ]
    assert arguments == ["{}", "", "[1]"]


CALLS = [("f", ["{", '"é', "\ud83d", '\ude00"', "}"]), ("g", []), ("h", ["[1", "]"])]


@pytest.mark.parametrize("known", [[], [0], [1], [4], [6], [6, 0], [6, 0, 0], [6, 0, 2], [6, 0, 3]], ids=str)
async def test_reattaching_begins_no_call_again(
    background: ResponsesAgent, upstream: FakeUpstream, known: list[int]
) -> None:
    """Whatever the session holds of calls and text, and wherever the stream is cut once more."""
    whole = ['{"é😀"}', "", "[1]"]
    for place in (None, 6, 9, 12):
        upstream.keep("a", "b", calls=CALLS, cuts=[] if place is None else [place])

        pieces = background.reattach(turn("hi"), Handle(RESPONSE_ID), 1, known)
        outputs = [output async for output in pieces]

        calls = [output for output in outputs if isinstance(output, FunctionCallPiece)]
        rest = ["".join(call.arguments for call in calls if call.index == index) for index in range(3)]
        assert text_of(outputs) == "b"
        assert [call.name for call in calls if call.name] == ["f", "g", "h"][len(known) :]
        assert rest == [text[length:] for text, length in zip(whole, [*known, 0, 0, 0], strict=False)]


@pytest.mark.parametrize("known", [[8], [6, 1], [6, 0, 3, 0]], ids=str)
async def test_reattaching_to_fewer_calls_than_are_known_fails(
    background: ResponsesAgent, upstream: FakeUpstream, known: list[int]
) -> None:
    upstream.keep("a", calls=CALLS)

    with pytest.raises(ResponseShorter):
        [output async for output in background.reattach(turn("hi"), Handle(RESPONSE_ID), 0, known)]


async def test_what_ends_an_answer_is_found_across_a_new_owner(
    background: ResponsesAgent, upstream: FakeUpstream
) -> None:
    """What was passed on ends ahead of whatever may begin it: so it is whole to whoever goes on."""
    upstream.keep("one S", "TOP", " two")

    outputs = [
        output
        async for output in background.reattach(
            turn("hi", parameters=Parameters(stop=("STOP",))), Handle(RESPONSE_ID), len("one ")
        )
    ]

    assert text_of(outputs) == ""
    assert outputs[-1] == Finish("completed")


async def test_background_is_asked_for_and_kept(background: ResponsesAgent, upstream: FakeUpstream) -> None:
    await collect(background, turn("hi"))

    [request] = upstream.requests
    assert (request.json["background"], request.json["store"]) == (True, True)


@pytest.mark.parametrize("place", range(1, 9))
async def test_reasoning_survives_a_cut_stream(
    background: ResponsesAgent, upstream: FakeUpstream, place: int
) -> None:
    upstream.keep("a", "b", thoughts=["Hm", ", so"], cuts=[place, place + 1])
    outputs = await collect(background, turn("hi"))

    assert "".join(each.text for each in outputs if isinstance(each, ReasoningPiece)) == "Hm, so"
    assert text_of(outputs) == "ab"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        ("failed", {"code": "server_error", "message": SECRET}, UpstreamReportedError),
        ("failed", {"code": "rate_limit_exceeded", "message": SECRET}, UpstreamRateLimited),
        ("failed", {"code": "invalid_prompt", "message": SECRET}, UpstreamRejected),
        ("failed", None, UpstreamReportedError),
        ("cancelled", None, UpstreamReportedError),
    ],
)
async def test_response_that_fails_is_a_failure_by_its_kind(
    background: ResponsesAgent, upstream: FakeUpstream, status: str, error: object, kind: Any
) -> None:
    dialect = ResponsesDialect()
    upstream.events(
        *dialect.opening(),
        dialect.text("a"),
        dialect.event(f"response.{status}", response=dialect.response(status, error=error)),
    )

    _, outputs = await fails(background, kind)

    assert text_of(outputs) == "a"
    assert upstream.cancelled == [], "it has ended by itself"
