"""How much of a node each principal has: sessions, connected or at rest, and their bytes.

Strangers, each of whom is a principal, may count as one holder, and all of them together have a bound, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from unbroken.sessions.actor import Actor
from unbroken.sessions.ids import PrincipalId, SessionId

__all__ = ["Holder", "HolderOf", "Holders", "HoldingLimits"]


class Holder(NamedTuple):
    """For whom a principal's sessions count."""

    name: str
    is_stranger: bool = False


HolderOf: TypeAlias = Callable[[PrincipalId], Holder]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingLimits:
    """What one has for certain, or what many may have together: at the least one session."""

    sessions: int
    bytes: int


@dataclass(slots=True)
class _Holding:
    bytes: int = 0
    actors: dict[SessionId, Actor] = field(default_factory=dict)


class Holders:
    """Who has what. It is told of each session that comes, grows and goes.

    Args:
        one: What one holder may have also where a node is full: its share.
        strangers: What all strangers may have together.
        holder_of: Says for whom a principal's sessions count. Asked when one comes.

    """

    def __init__(self, one: HoldingLimits, strangers: HoldingLimits, holder_of: HolderOf) -> None:
        self._one: Final = one
        self._strangers: Final = strangers
        self._holder_of = holder_of
        self._holders: dict[SessionId, Holder] = {}
        self._sizes: dict[SessionId, int] = {}
        self._holdings: dict[str, _Holding] = {}
        self._strangers_sessions = self._strangers_bytes = 0

    def note(self, actor: Actor, size: int) -> None:
        """Note that *actor* is here, and how large it is."""
        session_id = actor.session.id
        holder = self._holders.get(session_id)
        if holder is None:
            holder = self._holders[session_id] = self._holder_of(actor.principal)
            self._strangers_sessions += holder.is_stranger
        holding = self._holdings.setdefault(holder.name, _Holding())
        holding.actors[session_id] = actor
        self._resize(session_id, holder, holding, size)

    def forget(self, actor: Actor) -> None:
        """Note that *actor* has gone. Harmless for one that wasn't here."""
        session_id = actor.session.id
        holder = self._holders.pop(session_id, None)
        if holder is None:
            return
        holding = self._holdings[holder.name]
        self._resize(session_id, holder, holding, 0)
        del self._sizes[session_id], holding.actors[session_id]
        self._strangers_sessions -= holder.is_stranger
        if not holding.actors:
            del self._holdings[holder.name]

    def _resize(self, session_id: SessionId, holder: Holder, holding: _Holding, size: int) -> None:
        more = size - self._sizes.get(session_id, 0)
        self._sizes[session_id] = size
        holding.bytes += more
        if holder.is_stranger:
            self._strangers_bytes += more

    def has_share(self, principal: PrincipalId) -> bool:
        """Whether whoever *principal* counts as has as many sessions, or bytes, as its share."""
        holding = self._holdings.get(self._holder_of(principal).name)
        return holding is not None and (
            len(holding.actors) >= self._one.sessions or holding.bytes >= self._one.bytes
        )

    def strangers_have_all(self, principal: PrincipalId) -> bool:
        """Whether *principal* is a stranger, and all of them have as many sessions, or bytes, as they may."""
        is_many = self._strangers_sessions >= self._strangers.sessions
        return (is_many and self._holder_of(principal).is_stranger) or self.strangers_have_all_bytes(
            principal
        )

    def strangers_have_all_bytes(self, principal: PrincipalId) -> bool:
        """Whether they have as many bytes."""
        is_much = self._strangers_bytes >= self._strangers.bytes
        return is_much and self._holder_of(principal).is_stranger

    def own_to_spare(self, principal: PrincipalId) -> list[Actor]:
        """Return what whoever *principal* counts as has at rest, the one that was left first ahead.

        Nothing, if it has less than its share.
        """
        if not self.has_share(principal):
            return []
        return _at_rest(self._holdings[self._holder_of(principal).name])

    def to_spare(self, *, of_strangers: bool = False) -> list[Actor]:
        """Return sessions at rest of those who have more than their share, and no more than that.

        Each of them has those ahead that were left first. With *of_strangers*, of strangers alone.
        """
        spare: list[Actor] = []
        for holding in self._holdings.values():
            sessions, size = len(holding.actors), holding.bytes
            if not self._is_beyond(sessions, size) or (of_strangers and not self._is_of_strangers(holding)):
                continue
            for actor in _at_rest(holding):
                if not self._is_beyond(sessions, size):
                    break
                spare.append(actor)
                sessions -= 1
                size -= self._sizes[actor.session.id]
        return spare

    def _is_beyond(self, sessions: int, size: int) -> bool:
        return sessions > self._one.sessions or size > self._one.bytes

    def _is_of_strangers(self, holding: _Holding) -> bool:
        return self._holders[next(iter(holding.actors))].is_stranger

    def strangers(self) -> Iterator[Actor]:
        """Yield all sessions of strangers."""
        for holding in list(self._holdings.values()):
            for session_id, actor in list(holding.actors.items()):
                if self._holders[session_id].is_stranger:
                    yield actor


def _at_rest(holding: _Holding) -> list[Actor]:
    idle = [actor for actor in holding.actors.values() if actor.is_idle]
    return sorted(idle, key=lambda actor: actor.last_active)
