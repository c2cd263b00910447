"""Questions as people ask them, no two alike: what guards and caches of a server look at."""

from __future__ import annotations

from typing import Final

from tests.bench.workload import Order

__all__ = ["asked"]

_SENTENCES: Final = (
    "I am planning a dinner for {} people and have never cooked for so many.",
    "Our team keeps {} spreadsheets, and nobody remembers which of them is the right one.",
    "The manual says that the pump should be cleaned every {} days, which seems a lot to me.",
    "My daughter has to write about bees for school, and wants to begin with the number {}.",
    "We moved the garden shed by {} steps, so the lawn has a bare patch in the middle.",
    "Could you explain it in plain words, and give an example with the number {}?",
    "I have read page {} of the book twice, and still don't see why the narrator leaves.",
    "Please compare both ways, and say which one you would choose after {} years.",
)
_MOST_SENTENCES: Final = 8


def asked(number: int, order: Order) -> str:
    """Return the message of that *number*, which ends with *order*: one to eight sentences, by turns."""
    count = 1 + number % _MOST_SENTENCES
    said = (_SENTENCES[(number + at) % len(_SENTENCES)].format(number + 3 * at) for at in range(count))
    return f"{' '.join(said)}\n{order.text}"
