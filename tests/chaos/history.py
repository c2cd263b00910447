"""What clients saw and did, as they noted it: the only thing, with the logs, that the checker is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msgspec import Struct

__all__ = [
    "Connected",
    "Disconnected",
    "Event",
    "Frame",
    "History",
    "Received",
    "Segment",
    "Sent",
    "Witness",
]

Frame: TypeAlias = dict[str, Any]


class Connected(Struct, frozen=True, tag=True):
    """A connection stands. It goes on after *after*, the last event id; None: there is none."""

    node: str
    after: str | None
    at: float = 0.0
    """Seconds, by a clock that only tells durations."""


class Received(Struct, frozen=True, tag=True):
    """A frame came."""

    frame: Frame


class Sent(Struct, frozen=True, tag=True):
    """An event was handed to the socket: it may never arrive."""

    event: Frame


class Disconnected(Struct, frozen=True, tag=True):
    """The connection has ended. 1006: without a word."""

    code: int
    at: float = 0.0


Event: TypeAlias = Connected | Received | Sent | Disconnected


@dataclass(slots=True)
class Segment:
    """What a client was shown without having been told to forget it."""

    is_reset: bool
    """Whether it begins with how things stand, and not with the beginning, or what follows the last frame."""
    frames: list[Frame] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """One tab: connections to one session, one after another."""

    tab: str
    session: str = ""
    """The session, once it is known."""
    events: list[Event] = field(default_factory=list)
    is_open: bool = False
    """Whether it was connected in the end."""

    def frames(self) -> Iterator[Frame]:
        """Yield all frames."""
        return (event.frame for event in self.events if isinstance(event, Received))

    def turns(self) -> dict[str, str]:
        """Return for each response that was shown what it was asked."""
        begun = [frame["response"] for frame in self.frames() if frame["type"] == "response.created"]
        return {response["id"]: (response.get("metadata") or {}).get("turn", "") for response in begun}

    @property
    def was_alone(self) -> bool:
        """Whether the client was told, at any time, that what it is shown is not saved."""
        told = (frame["session"]["unbroken"] for frame in self.frames() if "session" in frame)
        return any(each.get("durable") is False for each in told)

    def answers(self) -> Iterator[tuple[str, str]]:
        """Yield each item of an answer, with the response that it is of."""
        for frame in self.frames():
            if frame["type"] == "response.output_item.added":
                yield frame["item"]["id"], frame["response_id"]

    def sent(self) -> Iterator[Frame]:
        """Yield all that was sent, as often as it was."""
        return (event.event for event in self.events if isinstance(event, Sent))

    @property
    def resets(self) -> int:
        """How often the client was told to forget what it had."""
        return sum(segment.is_reset for segment in self.segments())

    def segments(self) -> list[Segment]:
        """Cut what was shown where the client was told to start over, or had to."""
        segments = [Segment(is_reset=False)]
        is_fresh = False  # whether the connection asked for everything
        for event in self.events:
            if isinstance(event, Connected):
                is_fresh = event.after is None
            if not isinstance(event, Received):
                continue
            frame = event.frame
            if frame["type"] == "session.created":
                is_reset = frame["session"]["unbroken"].get("resumed") is False
                if is_reset or is_fresh:
                    segments.append(Segment(is_reset=is_reset))
            segments[-1].frames.append(frame)
        return [segment for segment in segments if segment.frames]

    def codes(self) -> list[int]:
        """Return how connections ended; the last one as its client left, if it did."""
        return [event.code for event in self.events if isinstance(event, Disconnected)]

    def gaps(self) -> list[float]:
        """Return for how long the client was without a connection, each time."""
        gaps: list[float] = []
        lost: float | None = None
        for event in self.events:
            if isinstance(event, Disconnected):
                lost = event.at if lost is None else lost
            elif isinstance(event, Connected) and lost is not None:
                gaps.append(event.at - lost)
                lost = None
        return gaps


@dataclass(frozen=True, slots=True)
class Witness:
    """What a person has seen."""

    name: str
    histories: list[History]
    ended: dict[str, int]
    """How turns have ended."""
    refusals: list[str]
    """The codes of all errors."""
