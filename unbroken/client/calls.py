"""The calls of the caller's functions in one round of a turn: each is run once, and its output sent once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, field
from typing import Any

from unbroken.client.wire import output_item

__all__ = ["Call", "Calls"]


@dataclass(slots=True)
class Call:
    """One call."""

    id: str
    name: str
    arguments: str = field(repr=False)
    item_id: str
    """Under which its output becomes an item."""
    output: str | None = field(default=None, repr=False)
    """None: it hasn't returned."""
    is_begun: bool = False
    is_elsewhere: bool = False
    """Whether its output was sent by another process."""


class Calls:
    """Those that one response made. Empty: it made none, or they are done with."""

    def __init__(self, calls: Iterable[Call] = ()) -> None:
        self._calls = list(calls)

    def due(self) -> Iterator[Call]:
        """Yield those that nobody has begun to run, each once."""
        for call in self._calls:
            if not call.is_begun:
                call.is_begun = True
                yield call

    def returned(self, call_id: str, output: str) -> None:
        """Note what a call came to. Only the first output counts."""
        for call in self._calls:
            if call.id == call_id and call.output is None:
                call.output = output

    def returned_elsewhere(self, call_id: str) -> None:
        """Note that another process has sent what a call came to: it isn't run here, nor its output sent."""
        for call in self._calls:
            if call.id == call_id and call.output is None:
                call.output, call.is_begun, call.is_elsewhere = "", True, True

    def lose(self, output: str) -> None:
        """Note that those that have begun to run were lost: *output* says so to the model."""
        for call in self._calls:
            if call.is_begun and call.output is None:
                call.output = output

    @property
    def are_done(self) -> bool:
        """Whether all have returned."""
        return all(call.output is not None for call in self._calls)

    def outputs(self) -> list[dict[str, Any]]:
        """Return the items that tell what those came to that were run here."""
        return [
            output_item(call.item_id, call.id, call.output or "")
            for call in self._calls
            if not call.is_elsewhere
        ]

    def state(self) -> list[tuple[Any, ...]]:
        """Return them for another process, as JSON."""
        return [astuple(call) for call in self._calls]

    @classmethod
    def restore(cls, state: Iterable[Iterable[Any]]) -> Calls:
        """Return what :meth:`state` made *state* of.

        Raises:
            TypeError: It made none of it.

        """
        return cls(Call(*fields) for fields in state)
