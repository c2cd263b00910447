"""One sentence that is read for names and addresses: what is found in it, and what leaves of it.

A model labels its words, and :mod:`~unbroken.server.guards.leaks.people` and
:mod:`~unbroken.server.guards.leaks.addresses` say which of the labels count.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from unbroken.server.guards.leaks.addresses import addresses
from unbroken.server.guards.leaks.entities import Actions, Entity, Match, merged
from unbroken.server.guards.leaks.people import is_worth_reading, people
from unbroken.server.guards.leaks.recogniser import NamesUnread, Recogniser, Unread
from unbroken.server.guards.leaks.sentences import Passage
from unbroken.server.guards.leaks.stream import Placeholder
from unbroken.sessions.ids import PrincipalId
from unbroken.sessions.items import Note

__all__ = ["NameReader", "NameReading", "NamesAside", "acts_on_names", "looks_for_names"]

_READ: Final[tuple[Entity, ...]] = ("name", "address")
"""What a model is needed for."""

_MOST_WAITING: Final = 64
"""Sentences of an answer that wait for being read, where they are only counted."""

_TOLD: Final = {"redact": "redacted", "block": "blocked"}


def looks_for_names(actions: Actions) -> bool:
    """Return whether names or addresses are looked for at all."""
    return any(actions.get(entity, "ignore") != "ignore" for entity in _READ)


def acts_on_names(actions: Actions) -> bool:
    """Return whether one may be kept from leaving. Else nothing has to wait."""
    return any(actions.get(entity) in _TOLD for entity in _READ)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameReading:
    """What reads, and what becomes of what it couldn't read."""

    recogniser: Recogniser
    hold: float = 2.0
    """Seconds that the beginning of a sentence waits for its end."""
    fails_closed: bool = True
    """Whether an answer fails of a sentence that couldn't be read, rather than say it."""
    unread: Callable[[Unread], None] = lambda _: None
    """Told of each sentence that wasn't read."""


class NameReader:
    """Reads the sentences of one answer.

    Args:
        reading: What reads.
        actions: What is done about what is found.
        placeholder: Makes what stands in its place.
        principal: Whose answer it is: they take turns.
        is_held: Whether the answer waits for it. Else what is found is only counted.
        gives_way: Whether a model that has much to do isn't asked. It never is for what isn't held.

    """

    def __init__(
        self,
        reading: NameReading,
        actions: Actions,
        placeholder: Placeholder,
        *,
        principal: PrincipalId,
        is_held: bool,
        gives_way: bool,
    ) -> None:
        self._reading = reading
        self._actions = actions
        self._placeholder = placeholder
        self._principal = principal
        self._is_held = is_held
        self._gives_way = gives_way or not is_held
        self.found: Counter[tuple[Entity, str]] = Counter()
        """How much was found, by kind and by what was done."""
        self.is_blocked = False
        """Whether nothing more may leave."""
        self.sentences = 0
        """How many have been read, or parts of such."""

    def leave_out(self, why: Unread) -> None:
        """Count a sentence that isn't read."""
        self._reading.unread(why)

    async def read(self, passage: Passage, out: list[str]) -> None:
        """Put to *out* what leaves of *passage*. Nothing is put there, or counted, where this is cancelled.

        Raises:
            NamesUnread: It couldn't be read, and this fails closed.

        """
        matches = await self._matches(passage)
        self.sentences += passage.context is not None
        position = 0
        for match in matches:
            action = self._actions.get(match.entity, "ignore")
            self.found[match.entity, action] += 1
            if action == "flag":
                continue
            out.append(passage.part(position, match.start))
            position = match.end
            if action == "block":
                self.is_blocked = self._is_held
                if self.is_blocked:
                    return
            known_by = "".join(filter(str.isalnum, passage.text[match.start : match.end])).casefold()
            out.append(self._placeholder(match.entity, known_by))
        out.append(passage.part(position, len(passage.text)))

    async def _matches(self, passage: Passage) -> list[Match]:
        if passage.context is None or not is_worth_reading(passage.text):
            return []
        try:
            if self._gives_way and self._reading.recogniser.is_busy:
                raise NamesUnread("busy")  # who has to wait for it comes first
            return await self._found(passage.context, passage.text)
        except NamesUnread as exc:
            self._reading.unread(exc.reason)
            if self._is_held and self._reading.fails_closed:
                raise
            return []

    async def _found(self, context: str, text: str) -> list[Match]:
        whole, start = context + text, len(context)
        labels = await self._reading.recogniser.labels(whole, self._principal)
        found = [Match(*place, "address") for place in addresses(whole, labels)]
        found += [
            Match(*place, "name")
            for place in people(whole, labels)
            if not any(place[0] < each.end and each.start < place[1] for each in found)
        ]
        wanted = [
            match._replace(start=max(match.start - start, 0), end=match.end - start)
            for match in found
            if match.end > start and self._actions.get(match.entity, "ignore") != "ignore"
        ]
        return merged(wanted, self._actions)

    def told(self, notes: Mapping[str, Note]) -> dict[str, Note]:
        """Return *notes* with what the response's end says of what was kept from leaving."""
        told: dict[str, Note] = dict(notes)
        for (entity, action), count in sorted(self.found.items()):
            if action in _TOLD:
                before = told.get(_TOLD[action])
                told[_TOLD[action]] = {**(before if isinstance(before, dict) else {}), entity: count}
        return told


class NamesAside:
    """Sentences of one answer that are only counted: few of them wait, and the answer for none."""

    def __init__(self, reader: NameReader) -> None:
        self._reader = reader
        self.waiting: deque[Passage] = deque()
        """Those that have yet to be read."""

    def add(self, passages: deque[Passage]) -> None:
        """Have *passages* be read when there is time for it, those for which there is room."""
        while passages:
            passage = passages.popleft()
            if passage.context is None or not is_worth_reading(passage.text):
                continue
            if len(self.waiting) < _MOST_WAITING:
                self.waiting.append(passage)
            else:
                self._reader.leave_out("busy")

    async def read(self) -> None:
        """Read what waits, until nothing does. Cancelled, it can be called again."""
        while self.waiting:
            await self._reader.read(self.waiting[0], [])
            self.waiting.popleft()

    def skip(self) -> None:
        """Count what still waits as unread."""
        while self.waiting:
            self.waiting.popleft()
            self._reader.leave_out("late")
