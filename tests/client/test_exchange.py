"""A turn moves as its table says, and no other way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from unbroken.client.answer import Restarted, Result
from unbroken.client.errors import AnswerFailed, AnswerTooLong, ClientClosed
from unbroken.client.exchange import Exchange
from unbroken.client.limits import Limits
from unbroken.client.phase import NEXT, Phase
from unbroken.client.wire import Item, ResponseEnded, Usage


@pytest.fixture
def exchange() -> Exchange:
    return Exchange("t", "hi", {}, Limits(rounds=2))


def names() -> Iterator[str]:
    return (f"out_{number}" for number in itertools.count())


def ended(status: str = "completed", *output: Item, code: str | None = None) -> ResponseEnded:
    return ResponseEnded("resp", status, None, code, "it failed", 5.0, Usage(1, 2), output)


def asked(exchange: Exchange) -> None:
    exchange.begin()
    exchange.heard(Item("msg_t", "message"))
    exchange.was_asked = True


CALL = Item("item_1", "function_call", "completed", call_id="k", name="f", arguments="{}")


def test_every_phase_has_a_row_and_one_is_the_last() -> None:
    assert set(NEXT) == set(Phase)
    assert [phase for phase, following in NEXT.items() if not following] == [Phase.OVER]


@pytest.mark.parametrize(("phase", "following"), list(itertools.product(Phase, Phase)))
def test_only_listed_moves_are_made(exchange: Exchange, phase: Phase, following: Phase) -> None:
    exchange._phase = phase
    if following in NEXT[phase]:
        exchange._move(following)
        assert exchange.phase is following
    else:
        with pytest.raises(AssertionError):
            exchange._move(following)


def test_two_rounds(exchange: Exchange) -> None:
    new = names().__next__
    asked(exchange)
    exchange.begun("resp")
    exchange.ended(ended("completed", CALL), new)
    assert exchange.phase is Phase.CALLING
    assert [call.name for call in exchange.due_calls()] == ["f"]
    assert list(exchange.due_calls()) == [], "each once"
    exchange.returned("k", "result")
    exchange.returned("k", "another")
    assert (exchange.phase, exchange.name, exchange.owed) == (Phase.SAYING, "t.1", ["out_0"])
    assert exchange.item("out_0")["output"] == "result"
    exchange.heard(Item("out_0", "function_call_output", call_id="k"))
    exchange.begun("resp")
    exchange.said("resp", "item_2", "it rains")
    exchange.said("other", "item_3", "not ours")
    exchange.ended(ended(), new)

    assert exchange.outcome == Result("it rains", "completed", None, Usage(2, 4))


def test_what_another_process_sent_is_not_sent_again(exchange: Exchange) -> None:
    new = names().__next__
    asked(exchange)
    exchange.begun("resp")
    exchange.ended(ended("completed", CALL, replace(CALL, id="item_2", call_id="l")), new)
    exchange.heard(Item("theirs", "function_call_output", call_id="k"))
    assert [call.id for call in exchange.due_calls()] == ["l"]
    exchange.returned("k", "mine")
    exchange.returned("l", "mine")
    assert (exchange.name, exchange.owed) == ("t.1", ["out_1"])
    exchange.heard(Item("theirs, too", "function_call_output", call_id="l"))

    assert exchange.phase is Phase.ASKING


def test_rounds_have_an_end(exchange: Exchange) -> None:
    new = names().__next__
    asked(exchange)
    exchange.begun("resp")
    exchange.ended(ended("completed", CALL), new)
    exchange.returned("k", "result")
    exchange.settled("out_0")
    exchange.begun("resp")
    exchange.ended(ended("completed", CALL), new)

    assert isinstance(exchange.outcome, AnswerTooLong)


def test_calls_of_a_response_that_was_cut_short_are_not_run(exchange: Exchange) -> None:
    asked(exchange)
    exchange.begun("resp")
    exchange.ended(ended("incomplete", CALL), names().__next__)

    assert list(exchange.due_calls()) == []
    assert exchange.is_over


def test_an_interruption_may_be_followed_by_another_attempt(exchange: Exchange) -> None:
    new = names().__next__
    asked(exchange)
    exchange.begun("resp")
    exchange.said("resp", "item_1", "one")
    assert exchange.answer.take() == "one"
    exchange.ended(ended("failed", code="interrupted"), new)
    assert exchange.is_undecided
    exchange.begun("again")
    exchange.decide(new)
    exchange.said("again", "item_2", "two")

    assert not exchange.is_undecided
    assert str(exchange.answer.take()) == "\ntwo"


def test_an_interruption_that_nothing_follows_is_a_failure(exchange: Exchange) -> None:
    new = names().__next__
    asked(exchange)
    exchange.begun("resp")
    exchange.said("resp", "item_1", "one")
    exchange.ended(ended("failed", code="interrupted"), new)
    exchange.decide(new)
    error = exchange.outcome

    assert isinstance(error, AnswerFailed)
    assert (error.code, error.retry_after, error.text) == ("interrupted", 5.0, "one")
    assert str(error) == "it failed (interrupted)"


@pytest.mark.parametrize("sent", [False, True])
def test_stopping_ends_at_once_what_was_never_asked(exchange: Exchange, sent: bool) -> None:
    exchange.begin()
    exchange.heard(Item("msg_t", "message"))
    exchange.was_asked = sent
    exchange.stop()

    assert exchange.is_over != sent


def test_what_has_ended_stays_as_it_is(exchange: Exchange) -> None:
    exchange.fail(ClientClosed())
    exchange.fail(AnswerFailed("x", "y"))
    exchange.stop()

    assert isinstance(exchange.outcome, ClientClosed)


def test_who_starts_over_is_given_nothing_until_it_is_known_how_it_stands(exchange: Exchange) -> None:
    """Then all of it at once, also where it is as it was."""
    asked(exchange)
    exchange.begun("resp")
    exchange.said("resp", "item_1", "one ")
    assert exchange.answer.take() == "one "
    exchange.said("resp", "item_1", "two ")
    exchange.begin_rebuild()
    assert exchange.answer.take() is None
    exchange.shown(Item("msg_t", "message", "completed", "user", "hi"))
    exchange.begun("resp")
    exchange.said("resp", "item_1", "one two ")
    exchange.said("resp", "item_1", "three ")
    assert exchange.answer.take() is None
    exchange.finish_rebuild(names().__next__)

    assert exchange.answer.take() == Restarted("one two three ")
    assert exchange.answer.take() is None
