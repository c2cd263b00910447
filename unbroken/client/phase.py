"""The phases of a turn, as a table: every phase, and every way from one to another, is in :data:`NEXT`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

__all__ = ["NEXT", "Phase"]


class Phase(enum.Enum):
    """Where a turn is."""

    WAITING = "waiting"  # nothing of it was ever sent
    SAYING = "saying"  # the server isn't known to have what is said
    ASKING = "asking"  # it has; the answer isn't known to have begun
    ANSWERING = "answering"
    CALLING = "calling"  # functions run here
    OVER = "over"


NEXT: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.WAITING: frozenset({Phase.SAYING, Phase.OVER}),
    # Straight to an answer: where what was said was deleted by somebody else meanwhile.
    Phase.SAYING: frozenset({Phase.ASKING, Phase.ANSWERING, Phase.OVER}),
    # Back to what is said, or straight to what is called: who had to start over finds out how it stands.
    Phase.ASKING: frozenset({Phase.SAYING, Phase.ANSWERING, Phase.CALLING, Phase.OVER}),
    Phase.ANSWERING: frozenset({Phase.ASKING, Phase.CALLING, Phase.OVER}),
    Phase.CALLING: frozenset({Phase.SAYING, Phase.OVER}),
    Phase.OVER: frozenset(),
}
