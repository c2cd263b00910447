"""The table is exhausted, the stories are named."""

from __future__ import annotations

import itertools

import pytest

from unbroken.sessions.errors import IllegalTransition
from unbroken.sessions.ids import ResponseId
from unbroken.sessions.turn import TERMINAL_STATES, TRANSITIONS, Attempt, AttemptState, Signal


def attempt_in(state: AttemptState) -> Attempt:
    return Attempt(ResponseId("resp_1"), state)


def test_every_state_has_a_row() -> None:
    """A state without a row is caught here, not in production."""
    assert set(AttemptState) == set(TRANSITIONS)


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(AttemptState, Signal)))
def test_only_listed_transitions_are_accepted(state: AttemptState, signal: Signal) -> None:
    """Anything that isn't in the table raises, and leaves the state alone."""
    attempt = attempt_in(state)

    if signal in TRANSITIONS[state]:
        assert attempt.accepts(signal)
        assert attempt.tell(signal) is TRANSITIONS[state][signal]
    else:
        assert not attempt.accepts(signal)
        with pytest.raises(IllegalTransition, match=f"is {state.value} can't accept {signal.value}"):
            attempt.tell(signal)
        assert attempt.state is state


@pytest.mark.parametrize("state", list(AttemptState))
def test_every_state_leads_to_an_end(state: AttemptState) -> None:
    """From wherever an attempt is, a terminal state can be reached: none can hang."""
    reached, grown = {state}, True
    while grown:
        grown = False
        for each in tuple(reached):
            for target in TRANSITIONS[each].values():
                if target not in reached:
                    reached.add(target)
                    grown = True

    assert reached & TERMINAL_STATES


def test_an_owner_may_be_lost_in_any_state_that_is_no_end() -> None:
    """A new owner can end whatever it finds."""
    for state in set(AttemptState) - TERMINAL_STATES:
        assert attempt_in(state).tell(Signal.OWNER_LOST) is AttemptState.INTERRUPTED


def test_a_cancelled_attempt_ends_as_cancelled_only() -> None:
    """What the responder came to in the meantime doesn't count."""
    assert set(TRANSITIONS[AttemptState.CANCELLING]) == {Signal.STOPPED, Signal.OWNER_LOST}
