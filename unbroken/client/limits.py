"""How much, and for how long: the bounds of a client. Each has a default that does."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits", "Timing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much there may be."""

    turns: int = 64
    """Turns that haven't ended: the one that is answered, and those that wait, perhaps for a connection."""
    message_bytes: int = 60_000
    """Of one frame that is sent. The server's own bound is 64 KiB, unless it is set otherwise."""
    answer_bytes: int = 4 * 1024 * 1024
    """Characters of one turn's answer. It is kept whole until its handle is forgotten."""
    frame_bytes: int = 8 * 1024 * 1024
    """Of one frame that is received. An item of the conversation is one frame."""
    output_bytes: int = 48 * 1024
    """Of what one call of a function returns."""
    calls_at_once: int = 8
    """Calls of functions that run at the same time. Others wait."""
    rounds: int = 16
    """How often in one turn functions are called, and the model goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """For how long, in seconds."""

    handshake: float = 10.0
    """Until a connection is there, with a fresh key where keys are asked for."""
    first_wait: float = 0.5
    """The most that is waited before the first attempt to come back. It doubles; all of it is jitter."""
    longest_wait: float = 15.0
    """The most that is waited between two attempts, unless the server asks for more."""
    stable_after: float = 5.0
    """How long a connection has to last for the next wait to be a short one again."""
    give_up_after: float | None = 900.0
    """How long there may be no connection. None: for ever."""
    refusals: float = 60.0
    """How long a turn is sent again that the server refuses for the moment."""
    function: float = 60.0
    """How long a function may run."""
    ping_interval: float = 10.0
    ping_timeout: float = 10.0
    """A connection on which nobody answers a ping for so long is dead."""
    closing: float = 2.0
    """For the other side to say goodbye."""
