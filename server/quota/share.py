"""One turn's part in what a call comes to that several may wait for. No I/O, no clock.

Whoever makes one call of several says here who of them pays; the turn's meter counts by it. It isn't told in
what the turn is given alone, as a turn may end at any moment: before the next piece, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from unbroken.sessions.responder import Output

__all__ = ["Share"]


class Share:
    """What one turn owes."""

    __slots__ = ("owes", "rest")

    def __init__(self) -> None:
        self.owes = True
        """Whether what nobody has billed yet is this turn's to pay. It is where it asks for itself."""
        self.rest: Sequence[Output] = ()
        """What was said beside what the turn is given from now on, and is its to pay."""
