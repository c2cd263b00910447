"""How answers are checked, whole and in order, while they come in."""

from __future__ import annotations

from tests.bench.load import LoadError
from tests.bench.workload import stamp_of

__all__ = ["BurstAnswer", "FirstWord", "PacedAnswer", "PassedOn"]

_COMPLETED = b'"status":"completed"'


class BurstAnswer:
    """Compares an answer with the text it must have."""

    __slots__ = ("_expected", "_pieces", "frames")

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self._pieces: list[bytes] = []
        self.frames = 0
        """Frames that carried the text."""

    def take(self, pieces: list[bytes], now: int) -> None:
        self._pieces += pieces

    def finish(self, received: bytes) -> None:
        text = b"".join(self._pieces)
        self.frames = len(self._pieces)
        self._pieces = []
        if text != self._expected:
            raise LoadError(f"wrong text: {_difference(text, self._expected)}")
        _check_end(text, received)


class PacedAnswer:
    """Checks that the words are numbered without gap, and notes how old each was when it came."""

    __slots__ = ("_count", "_pieces", "ages", "yielded")

    def __init__(self, count: int) -> None:
        self._count = count
        self._pieces: list[bytes] = []
        self.ages: list[int] = []
        """From the agent's yield to the client's read, in nanoseconds."""
        self.yielded: list[int] = []
        """When the agent yielded each word."""

    def take(self, pieces: list[bytes], now: int) -> None:
        self._pieces += pieces
        for piece in pieces:
            for word in piece.split():  # merged: as many words as were behind
                number, at = stamp_of(word)
                if number != len(self.yielded):
                    raise LoadError(f"word {number} in the place of {len(self.yielded)}")
                self.yielded.append(at)
                self.ages.append(now - at)

    def finish(self, received: bytes) -> None:
        if len(self.yielded) != self._count:
            raise LoadError(f"{len(self.yielded)} words of {self._count}")
        _check_end(b"".join(self._pieces), received)


class PassedOn(PacedAnswer):
    """Likewise, of an upstream's answer, passed on by a gateway or by nobody; and when each was read."""

    __slots__ = ("read",)

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.read: list[int] = []
        """CLOCK_MONOTONIC, in nanoseconds."""

    def take(self, pieces: list[bytes], now: int) -> None:
        super().take(pieces, now)
        self.read += [now] * (len(self.yielded) - len(self.read))

    def finish(self, received: bytes) -> None:
        if len(self.yielded) != self._count:
            raise LoadError(f"{len(self.yielded)} words of {self._count}: {received[-600:]!r}")


class FirstWord:
    """Notes when an answer began to come."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at: int | None = None
        """CLOCK_MONOTONIC, in nanoseconds. None: it hasn't begun."""

    def take(self, pieces: list[bytes], now: int) -> None:
        if self.at is None:
            self.at = now

    def finish(self, received: bytes) -> None:
        if self.at is None or _COMPLETED not in received[received.rindex(b'"response.done"') :]:
            raise LoadError(f"no answer: {received[-600:]!r}")


def _check_end(text: bytes, received: bytes) -> None:
    """Check that ``response.done`` says that the answer is complete, and repeats its whole text."""
    done = received[received.rindex(b'"response.done"') :]
    if _COMPLETED not in done or text not in done:
        raise LoadError(f"the answer didn't complete, or with other text: {done[:300]!r}")


def _difference(text: bytes, expected: bytes) -> str:
    place = next((i for i, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), len(text))
    around = slice(max(0, place - 20), place + 20)
    return f"{len(text)} bytes of {len(expected)}; at {place}: {text[around]!r}, not {expected[around]!r}"
