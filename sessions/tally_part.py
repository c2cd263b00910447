"""What one part of a tally is asked and told: one call at a time, for all who have something meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

import structlog

from unbroken.sessions.backends.tally import Claim, Kind, Tally
from unbroken.sessions.errors import StoreUnavailable

__all__ = ["Key", "TallyPart"]

_BATCH: Final = 256
"""Numbers in one call."""

Key: TypeAlias = tuple[Kind, str]
"""What is counted, and whose."""


class _Asker(NamedTuple):
    most: int
    answer: asyncio.Future[bool]


class TallyPart:
    """The numbers that are of one part. Another part that is out of reach, or late, holds none of them up.

    Of all that is held it is told, or is to be told, or is being told: so it knows what is its own.

    Args:
        name: The part's; empty: there is but one, or it isn't known which.
        tally: Whose part it is.
        held: What this node has of everything. What is given is added here.
        on_alone: Told of each that is let in without having been asked for, as it is out of reach.
        on_failure: Called when a call failed; :meth:`begin` is to be called after a while.
        find_part: Returns the part that has somebody's numbers by now.

    """

    def __init__(
        self,
        name: str,
        tally: Tally,
        held: MutableMapping[Key, int],
        *,
        on_alone: Callable[[Kind], None],
        on_failure: Callable[[TallyPart], None],
        find_part: Callable[[str], TallyPart],
    ) -> None:
        self.name: Final = name
        self.is_open = False
        """Whether anything is asked and told."""
        self.is_alone = False
        """Whether it failed when it was last asked."""
        self._tally = tally
        self._held = held
        self._on_alone = on_alone
        self._on_failure = on_failure
        self._find_part = find_part
        self._told: dict[Key, int] = {}  # what it has of this node's, as far as that is known
        self._changed: dict[Key, None] = {}  # what it may have to be told
        self._askers: dict[Key, deque[_Asker]] = {}  # those who wait for its word, in order
        self._suspects: list[Key] = []  # what may be another part's by now, after a failure
        self._asked: frozenset[Key] = frozenset()  # what the call is about that is under way
        self._task: asyncio.Task[None] | None = None  # makes calls, while there is something to call for

    def __contains__(self, key: Key) -> bool:
        """Whether something is known of *key* here, or to be told or asked."""
        return key in self._told or key in self._changed or key in self._asked or key in self._askers

    @property
    def is_unused(self) -> bool:
        """Whether nothing at all is."""
        return not (self._told or self._changed or self._askers or self._task or self.is_alone)

    def waiting(self, key: Key, room: int) -> int:
        """Return how many wait for its word. Those who gave up are among them where fewer than *room* asked:
        else all are walked through.
        """
        count = len(self._askers.get(key, ()))
        if count < room:
            return count
        return sum(not asker.answer.done() for asker in self._askers.get(key, ()))

    def ask(self, key: Key, most: int) -> asyncio.Future[bool]:
        """Ask for one more. The answer is whether it is held by then."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._askers.setdefault(key, deque()).append(_Asker(most, answer))
        self.begin()
        return answer

    def note(self, key: Key) -> None:
        """Tell what is held of *key*, if that isn't known there."""
        if self._told.get(key) == self._held.get(key, 0):
            self._changed.pop(key, None)
        else:
            self._changed[key] = None
            self.begin()

    def give_away(self, key: Key) -> bool:
        """Have nothing more to tell of *key*, and return whether there was something."""
        if key not in self._changed:
            return False
        del self._changed[key]
        return True

    def suspects(self, count: int) -> list[Key]:
        """Return *count* of those that may be another part's by now, others each time."""
        taken, self._suspects = self._suspects[:count], self._suspects[count:]
        return taken

    def renew(self) -> None:
        """Tell everything: it may have lost something."""
        self._changed.update(dict.fromkeys(self._told))
        self._told.clear()
        self.begin()

    async def take_back(self) -> None:
        """Tell that this node has nothing any more, unless it is out of reach."""
        if self._task is not None:
            await asyncio.wait({self._task})
        with suppress(StoreUnavailable):
            while self._told and not self.is_alone:
                keys = list(islice(self._told, _BATCH))
                await self._tally.settle([Claim(*key, held=0) for key in keys])
                for key in keys:
                    del self._told[key]

    def stop(self) -> asyncio.Task[None] | None:
        """Ask and tell nothing more: cancel what is under way, and return that. Then :meth:`let_in`."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    def let_in(self) -> None:
        """Let everybody in who waits: there is room for them on this node."""
        for key, askers in list(self._askers.items()):
            self._changed[key] = None
            for _ in range(self._answer(key, len(askers), len(askers))):
                self._on_alone(key[0])

    def begin(self, *, is_retry: bool = False) -> None:
        """Ask and tell what there is. Nothing that has failed is asked before it is time for that."""
        if self._task is None and self.is_open and (is_retry or not self.is_alone):
            # What is logged there must not bear the ids of the connection that came first.
            self._task = asyncio.get_running_loop().create_task(self._work(), context=contextvars.Context())

    async def _work(self) -> None:
        batch: list[Claim] = []
        try:
            while batch := self._batch():
                self._asked = frozenset(_keys(batch))
                try:
                    given = await self._tally.settle(batch)
                except StoreUnavailable:
                    if not self._hand_over(batch):
                        raise  # it is this part that fails
                else:
                    self._answered(batch, given)
        except StoreUnavailable as exc:
            self._go_alone(batch, str(exc), None)
        except Exception as exc:  # noqa: BLE001 - the boundary: whoever waits must not wait for ever
            self._go_alone(batch, type(exc).__name__, exc)
        else:
            self._note_reached()  # also where there was nothing to tell
        finally:
            self._task, self._asked = None, frozenset()

    def _hand_over(self, batch: Sequence[Claim]) -> bool:
        """Have what failed be asked and told again: each by the part that has it by now.

        Return whether anything was another's. What is left is without it when it is asked again.
        """
        moved = {key: part for key in _keys(batch) if (part := self._find_part(key[1])) is not self}
        if moved:
            for key in _keys(batch):
                self._told.pop(key, None)  # it may hold what was to be told, or not
                self._changed[key] = None
            for key, part in moved.items():
                del self._changed[key]
                part.take_over(key, self._askers.pop(key, deque()))
        return bool(moved)

    def take_over(self, key: Key, askers: Iterable[_Asker]) -> None:
        """Tell what is held of *key*, and answer those who have asked another part for more."""
        if waiting := [*self._askers.get(key, ()), *askers]:
            self._askers[key] = deque(waiting)
        self._changed[key] = None
        if self.is_alone:
            self.let_in()
        self.begin()

    def _batch(self) -> list[Claim]:
        """Return what to ask and to tell now: who waits comes first."""
        batch: list[Claim] = []
        for key in list(self._askers):
            if len(batch) == _BATCH // 2:  # and what has gone makes room for others
                break
            askers = self._waiting_for(key)
            if not askers:
                continue
            self._changed.pop(key, None)
            # They may not all be allowed as many: those behind the first who isn't are asked for next.
            most = askers[0].most
            wanted = next((i for i, asker in enumerate(askers) if asker.most != most), len(askers))
            batch.append(Claim(*key, self._held.get(key, 0), wanted=wanted, most=most))
        while self._changed and len(batch) < _BATCH:
            key = next(iter(self._changed))
            del self._changed[key]
            held = self._held.get(key, 0)
            if self._told.get(key) != held:
                batch.append(Claim(*key, held))
        return batch

    def _waiting_for(self, key: Key) -> Sequence[_Asker]:
        """Return who still waits for a number, and forget who gave up. While no call is about it."""
        askers = self._askers[key] = deque(each for each in self._askers[key] if not each.answer.done())
        if not askers:
            del self._askers[key]
        return askers

    def _answered(self, batch: Sequence[Claim], given: Sequence[int]) -> None:
        for claim, count in zip(batch, given, strict=True):
            key = claim.kind, claim.whose
            self._answer(key, claim.wanted, count)
            told = claim.held + count
            if told:
                self._told[key] = told
            else:
                self._told.pop(key, None)
            if self._held.get(key, 0) != told:  # somebody has gone, or has given up waiting
                self._changed[key] = None
        self._note_reached()

    def _note_reached(self) -> None:
        if self.is_alone:
            self.is_alone = False
            self._suspects.clear()
            structlog.get_logger().info("caps hold on all nodes again", part=self.name or None)
            self.renew()

    def _answer(self, key: Key, asked: int, given: int) -> int:
        """Let the first *given* in, of the first *asked* who still wait, and refuse the others."""
        askers = self._askers.get(key, deque())
        count = 0
        for _ in range(asked):
            answer = askers.popleft().answer
            if not answer.done():
                answer.set_result(count < given)
                count += count < given
        self._askers.pop(key, None)
        if askers:
            self._askers[key] = askers  # behind the others: their turn is next
        if count:
            self._held[key] = self._held.get(key, 0) + count
        return count

    def _go_alone(self, batch: Sequence[Claim], reason: str, exc: Exception | None) -> None:
        was_alone, self.is_alone = self.is_alone, True
        if not was_alone:
            structlog.get_logger().warning(
                "caps hold on this node alone", part=self.name or None, reason=reason, exc_info=exc
            )
        self.let_in()
        self._changed.update(dict.fromkeys(_keys(batch)))
        self._changed.update(dict.fromkeys(self._told))
        self._told.clear()
        # All of it in an outage, a few each time; and what was asked for in vain each time.
        rest = self._suspects if was_alone else self._changed
        self._suspects = list(dict.fromkeys([*_keys(batch), *rest]))
        self._on_failure(self)


def _keys(batch: Iterable[Claim]) -> Iterable[Key]:
    return ((claim.kind, claim.whose) for claim in batch)
