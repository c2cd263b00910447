"""An archive in memory, and its queue, which fail when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from unbroken.server.archive.base import ArchiveUnavailable, Delivery, Due, NewTurn
from unbroken.sessions.finished import FinishedTurn

__all__ = ["MemoryArchive", "MemoryQueue"]


class MemoryArchive:
    """What an archiver needs. Fault verbs: :attr:`is_out`, :attr:`loses_answers`, :attr:`refuses`."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], FinishedTurn] = {}
        self.queued: list[Delivery] = []
        self.is_out = False
        self.loses_answers = False
        """Whether what is to be written is, and nobody hears of it."""
        self.refuses: set[str] = set()
        """Responses at which it fails, for a reason that nobody has thought of."""
        self.calls = 0

    async def write(self, turns: Sequence[NewTurn], at: float) -> int:
        self.calls += 1
        await asyncio.sleep(0)
        if self.is_out:
            raise ArchiveUnavailable("planted")
        if any(new.turn.response_id in self.refuses for new in turns):
            raise ZeroDivisionError
        count = 0
        for new in turns:
            key = new.turn.session_id, new.turn.response_id
            if new.is_kept and key in self.kept:
                continue
            count += 1
            if new.is_kept:
                self.kept[key] = new.turn
            self.queued += [each for each in new.deliveries if each not in self.queued]
        await asyncio.sleep(0)
        if self.loses_answers:
            raise ArchiveUnavailable("planted")
        return count


class MemoryQueue:
    """A queue of webhooks. Fault verbs: :attr:`is_out`."""

    def __init__(self) -> None:
        self.waiting_for: dict[tuple[str, str], tuple[Delivery, int, float, float]] = {}
        """Each with how often it was tried, when it was made and when it is due."""
        self.buried: list[Delivery] = []
        self.is_out = False

    def put(self, *deliveries: Delivery, at: float) -> None:
        for each in deliveries:
            self.waiting_for[each.message_id, each.endpoint] = each, 0, at, at

    async def due(self, endpoint: str, now: float, limit: int, *, until: float) -> list[Due]:
        await asyncio.sleep(0)
        if self.is_out:
            raise ArchiveUnavailable("planted")
        found: list[Due] = []
        for key, (delivery, tries, made_at, due_at) in list(self.waiting_for.items()):
            if delivery.endpoint == endpoint and due_at <= now and len(found) < limit:
                self.waiting_for[key] = delivery, tries, made_at, until
                found.append(Due(delivery, tries, made_at))
        return found

    async def sent(self, due: Due) -> None:
        if self.is_out:
            raise ArchiveUnavailable("planted")
        del self.waiting_for[due.delivery.message_id, due.delivery.endpoint]

    async def put_off(self, due: Due, at: float) -> None:
        self.waiting_for[due.delivery.message_id, due.delivery.endpoint] = (
            due.delivery,
            due.tries + 1,
            due.made_at,
            at,
        )

    async def bury(self, due: Due, now: float) -> None:
        del self.waiting_for[due.delivery.message_id, due.delivery.endpoint]
        self.buried.append(due.delivery)

    async def forget(self, before: float, endpoints: Sequence[str], limit: int) -> int:
        return 0

    async def waiting(self) -> Mapping[str, int]:
        return {}
