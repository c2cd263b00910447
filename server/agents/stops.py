"""Ends an answer at a text that its client named, for agents whose upstream can't.

What may be the beginning of such a text is held back until it is known not to be one. So what has been
passed on never holds a part of the text at which the answer ends, and whoever goes on with a response
behind what was passed on finds that text whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from unbroken.server.agents.base import AgentOutput, Finish, FunctionCallPiece

__all__ = ["Stops", "until_stop"]


class Stops:
    """Looks for texts in an answer that comes piece by piece.

    Args:
        texts: What is looked for. None of them is empty.

    """

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._held = ""
        self.is_found = False
        """Whether one has come: then nothing more is passed on."""

    def feed(self, piece: str) -> str:
        """Return what of the answer may be passed on, now that *piece* has come."""
        said = self._held + piece
        found = [place for text in self._texts if (place := said.find(text)) >= 0]
        if found:
            self.is_found = True
            self._held = ""
            return said[: min(found)]
        begin = self._beginning(said)
        self._held = said[begin:]
        return said[:begin]

    def rest(self) -> str:
        """Return what was held back: no more comes that would make one of it."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, said: str) -> int:
        """Return where one of the texts may have begun at the end of *said*; its length: nowhere."""
        first = len(said)
        for text in self._texts:
            place = said.find(text[0], max(0, len(said) - len(text) + 1))
            while 0 <= place < first and not text.startswith(said[place:]):
                place = said.find(text[0], place + 1)
            if 0 <= place < first:
                first = place
        return first


def until_stop(
    outputs: AsyncGenerator[AgentOutput, None], texts: tuple[str, ...]
) -> AsyncGenerator[AgentOutput, None]:
    """Return *outputs* up to the first of *texts* in the answer, which isn't part of it."""
    return _cut(outputs, Stops(texts)) if texts else outputs


async def _cut(outputs: AsyncGenerator[AgentOutput, None], stops: Stops) -> AsyncGenerator[AgentOutput, None]:
    async with aclosing(outputs):
        async for output in outputs:
            if isinstance(output, str):
                if passed := stops.feed(output):
                    yield passed
                if stops.is_found:
                    yield Finish("completed")
                    return
                continue
            if isinstance(output, FunctionCallPiece) and (held := stops.rest()):
                yield held
            yield output
        if held := stops.rest():
            yield held
