"""A recogniser that knows a few names and places. No model, and faults on demand."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from unbroken.server.guards.leaks.addresses import Label
from unbroken.server.guards.leaks.recogniser import NamesUnread

__all__ = ["FakeRecogniser"]

_PEOPLE: Final = r"(?:Maria|John|Ann|Émile)(?: (?:Lopez|Smith|Lee|O'Neill))?"
_PLACES: Final = r"Paris|London|Springfield"
_KNOWN: Final = re.compile(rf"\b(?:(?P<PERSON>{_PEOPLE})|(?P<GPE>{_PLACES}))\b")


class FakeRecogniser:
    """A :class:`~unbroken.server.guards.leaks.recogniser.Recogniser`.

    Fault verbs: :meth:`fail`, :meth:`recover`, :meth:`hang`, :meth:`be_busy`.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        """What it was asked for."""
        self.principals: set[str] = set()
        """Whose texts these were."""
        self.is_started = False
        self.is_busy = False
        self._is_down = False
        self._goes_on = asyncio.Event()
        self._goes_on.set()

    def fail(self) -> None:
        """Be unable to read anything from now on."""
        self._is_down = True

    def recover(self) -> None:
        """Read again, what was asked meanwhile too."""
        self._is_down = False
        self._goes_on.set()

    def hang(self) -> None:
        """Never answer from now on."""
        self._goes_on.clear()

    def be_busy(self) -> None:
        """Have much to do."""
        self.is_busy = True

    async def start(self) -> None:
        """Nothing has to be loaded."""
        self.is_started = True

    async def labels(self, text: str, principal: str) -> list[Label]:
        """See :meth:`Recogniser.labels`. Each is read at once."""
        self.texts.append(text)
        self.principals.add(principal)
        await self._goes_on.wait()
        if self._is_down:
            raise NamesUnread("failed")
        return [Label(*found.span(), found.lastgroup or "") for found in _KNOWN.finditer(text)]

    async def stop(self) -> None:
        """Nothing is held."""
        self.is_started = False
