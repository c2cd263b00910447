"""The state machine of one attempt at a response.

Rule 1: every state that an attempt can be in, and every transition between
states, is in ``TRANSITIONS`` below. Nothing outside this module assigns a state.

Rule 2: this module performs no I/O and reads no clock. A session has one
machine per response id: at most one in the conversation, and a few beside it.

Rule 3: a machine moves only when an entry is applied, so the machines of two
nodes that read the same log agree.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from unbroken.sessions.errors import IllegalTransition
from unbroken.sessions.ids import ResponseId

__all__ = ["TERMINAL_STATES", "TRANSITIONS", "Attempt", "AttemptState", "Signal"]


class AttemptState(enum.Enum):
    """Where an attempt is between the request for it and its end."""

    QUEUED = "queued"  # accepted; another response runs in the conversation
    STARTING = "starting"  # shown to the client; the responder has produced nothing yet
    STREAMING = "streaming"  # pieces of the answer are in the log
    CANCELLING = "cancelling"  # cancel was accepted; the responder may still be stopping
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"  # cut short by a limit or a filter
    CANCELLED = "cancelled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # its owner was lost, or shut down before the end


class Signal(enum.Enum):
    """What an entry tells an attempt. Past tense: it has happened."""

    STARTED = "started"
    PRODUCED = "produced"
    CANCEL_ACCEPTED = "cancel_accepted"
    COMPLETED = "completed"
    CUT_SHORT = "cut_short"
    STOPPED = "stopped"
    FAILED = "failed"
    OWNER_LOST = "owner_lost"


_A, _S = AttemptState, Signal

_ENDINGS: Final = {
    _S.COMPLETED: _A.COMPLETED,
    _S.CUT_SHORT: _A.INCOMPLETE,
    _S.FAILED: _A.FAILED,
    _S.OWNER_LOST: _A.INTERRUPTED,
}

TRANSITIONS: Final[Mapping[AttemptState, Mapping[Signal, AttemptState]]] = MappingProxyType(
    {
        _A.QUEUED: {
            _S.STARTED: _A.STARTING,
            _S.CANCEL_ACCEPTED: _A.CANCELLING,
            _S.OWNER_LOST: _A.INTERRUPTED,
        },
        _A.STARTING: {
            _S.PRODUCED: _A.STREAMING,
            _S.CANCEL_ACCEPTED: _A.CANCELLING,
            **_ENDINGS,
        },
        _A.STREAMING: {
            _S.PRODUCED: _A.STREAMING,
            _S.CANCEL_ACCEPTED: _A.CANCELLING,
            **_ENDINGS,
        },
        _A.CANCELLING: {
            # A cancelled attempt ends as cancelled, whatever the responder
            # came to in the meantime; what it produced after the cancel is
            # dropped before the log. Only the loss of the owner outranks it,
            # since then nobody knows what the responder did.
            _S.STOPPED: _A.CANCELLED,
            _S.OWNER_LOST: _A.INTERRUPTED,
        },
        _A.COMPLETED: {},
        _A.INCOMPLETE: {},
        _A.CANCELLED: {},
        _A.FAILED: {},
        _A.INTERRUPTED: {},
    }
)

TERMINAL_STATES: Final = frozenset(state for state, row in TRANSITIONS.items() if not row)


class Attempt:
    """One attempt at a response. Tell it what happened; read :attr:`state`."""

    __slots__ = ("_state", "id")

    def __init__(self, response_id: ResponseId, state: AttemptState = AttemptState.STARTING) -> None:
        self.id: Final = response_id
        self._state = state

    @property
    def state(self) -> AttemptState:
        """Where the attempt is."""
        return self._state

    @property
    def is_terminal(self) -> bool:
        """Whether the attempt has ended, for good."""
        return self._state in TERMINAL_STATES

    def accepts(self, signal: Signal) -> bool:
        """Return whether *signal* is possible now."""
        return signal in TRANSITIONS[self._state]

    def tell(self, signal: Signal) -> AttemptState:
        """Move to the state that *signal* leads to, and return it.

        Raises:
            IllegalTransition: The current state can't accept the signal.

        """
        try:
            self._state = TRANSITIONS[self._state][signal]
        except KeyError:
            raise IllegalTransition(self._state.value, signal.value) from None
        return self._state

    def __repr__(self) -> str:
        return f"<Attempt {self.id} {self._state.value}>"
