"""What the firewall speaks of: passages, evidence, verdicts, and whoever else may be asked.

::

    Exception
    +-- DetectorFailed      a detector has no answer: it is out of reach, too slow, or makes no sense
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "Action",
    "Classifier",
    "Detector",
    "DetectorFailed",
    "Evidence",
    "Origin",
    "Passage",
    "Question",
    "Reader",
    "Verdict",
]


class Origin(enum.Enum):
    """Where a text comes from: what is ordinary in one place is an attack in another."""

    USER = "user"
    """A message, by whichever role, that a client adds to a conversation."""

    INSTRUCTIONS = "instructions"
    """What a client would have the model do: instructions, system messages, descriptions of functions."""

    TOOL = "tool"
    """What a function or a tool returned. Nobody who speaks to the agent wrote it."""


class Action(enum.IntEnum):
    """What becomes of a text."""

    ALLOW = 0
    FLAG = 1
    """It passes, and is counted and logged."""
    BLOCK = 2
    """It goes nowhere."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to be looked at. *param* is the field it came in, as errors name it."""

    origin: Origin
    text: str
    param: str | None = None

    def __repr__(self) -> str:
        return f"<Passage origin={self.origin.value} characters={len(self.text)}>"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason to take a text for an attack."""

    rule: str
    """Which rule says so; ``model`` for the local model."""
    weight: float
    """From 0, none, to 1, certainty."""
    view: str = "text"
    """In which view of the text it was found: as it is, or decoded in some way."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a text, and why."""

    action: Action
    score: float
    """From 0 to 1. Comparable within one configuration only."""
    reasons: tuple[str, ...] = ()
    """Names of rules and models, the weightiest first: safe to log, since none quotes the text."""
    param: str | None = None
    origin: Origin | None = None
    """Of the passage that it is about; None: there was nothing to be said of any."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a heavier detector is asked."""

    passage: Passage
    part: str = ""
    """Of a long text, the part that looks worst, as it is."""
    name: str = ""
    """Under which those wait whose text it is, where they have to take turns."""
    is_aside: bool = False
    """Whether nobody waits for the answer."""


class DetectorFailed(Exception):
    """A detector has no answer. The text says why, and quotes nothing of what it was asked about."""


class Classifier(Protocol):
    """A model in this process. Called from several threads at once, never from the event loop's."""

    @property
    def name(self) -> str:
        """What it is called in reasons and logs."""

    def scores(self, texts: Sequence[str]) -> list[float]:
        """Return for each text how much it looks like an attack, from 0 to 1.

        The same text gets the same score, whatever it comes together with. What is longer than
        the model reads is cut.

        Raises:
            DetectorFailed: The model can't be run.

        """


class Reader(Classifier, Protocol):
    """A classifier that every message may be shown to: it says what reading costs."""

    def fits(self, texts: Sequence[str]) -> bool:
        """Return whether reading all of *texts* takes no longer than reading a long one may."""


class Detector(Protocol):
    """A heavier detector, asked only about what is neither clearly harmless nor clearly an attack."""

    @property
    def name(self) -> str:
        """What it is called in reasons, metrics and logs."""

    async def score(self, question: Question) -> float:
        """Return how much what is asked about looks like an attack, from 0 to 1. Half and more is one.

        Never blocks the event loop. Cancelling it is safe: the caller has a time-out.

        Raises:
            DetectorFailed: It has no answer.

        """

    async def close(self) -> None:
        """Release everything."""
