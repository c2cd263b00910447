"""The live sessions of one node: found by id, counted, bounded."""

from __future__ import annotations

from collections.abc import Iterator

from unbroken.sessions.actor import Actor
from unbroken.sessions.holders import Holders
from unbroken.sessions.ids import ResponseId, SessionId
from unbroken.sessions.turn import AttemptState
from unbroken.sessions.turn_cap import TurnCap

__all__ = ["Hub"]


class Hub:
    """A node's actors, and how much they hold together.

    Args:
        turns: Counts their responses for those whose they are. None: nobody does.
        holders: Counts them likewise, and their bytes.

    """

    def __init__(self, turns: TurnCap | None = None, holders: Holders | None = None) -> None:
        self._turns = turns
        self._holders = holders
        self._actors: dict[SessionId, Actor] = {}
        self._sizes: dict[SessionId, int] = {}
        self.size = 0
        """Bytes that all sessions take together, roughly."""
        self._waiting: dict[SessionId, int] = {}  # of those with a response: how many wait behind another
        self.waiting = 0
        """How many responses wait behind another of their session."""

    def __len__(self) -> int:
        return len(self._actors)

    def __iter__(self) -> Iterator[Actor]:
        """Iterate over the actors there are now."""
        return iter(list(self._actors.values()))

    def get(self, session_id: SessionId) -> Actor | None:
        """Return the live session of that id, if it is on this node."""
        return self._actors.get(session_id)

    def holds(self, actor: Actor) -> bool:
        """Return whether *actor* is here, and no other one of the same session."""
        return self._actors.get(actor.session.id) is actor

    def add(self, actor: Actor) -> None:
        """Take *actor* in."""
        self._actors[actor.session.id] = actor
        self.account(actor)

    def account(self, actor: Actor) -> None:
        """Note how much *actor* holds by now. Harmless for one that isn't here."""
        session_id = actor.session.id
        if self._actors.get(session_id) is actor:
            size = actor.size
            self.size += size - self._sizes.get(session_id, 0)
            self._sizes[session_id] = size
            if self._holders is not None:
                self._holders.note(actor, size)
            self._note_responses(actor)
            if self._turns is not None:
                self._turns.note(actor)

    def _note_responses(self, actor: Actor) -> None:
        session_id = actor.session.id
        self.waiting -= self._waiting.pop(session_id, 0)
        if actor.session.is_running and actor.feed.ended is None:
            states = [each.attempt.state for each in actor.session.responses.values()]
            count = states.count(AttemptState.QUEUED)
            self._waiting[session_id] = count
            self.waiting += count

    def waiting_in(self, session_id: SessionId) -> list[ResponseId]:
        """Return which responses of a session wait behind another. None of one that isn't here."""
        actor = self._actors.get(session_id)
        if actor is None:
            return []
        responses = actor.session.responses.values()
        return [each.id for each in responses if each.attempt.state is AttemptState.QUEUED]

    def remove(self, actor: Actor) -> None:
        """Forget *actor*. Harmless for one that isn't here."""
        session_id = actor.session.id
        if self._actors.get(session_id) is actor:
            del self._actors[session_id]
            self.size -= self._sizes.pop(session_id, 0)
            self.waiting -= self._waiting.pop(session_id, 0)
            if self._holders is not None:
                self._holders.forget(actor)
            if self._turns is not None:
                self._turns.forget(actor)

    def clear(self, session_id: SessionId) -> None:
        """Forget what is here of a session. Harmless if nothing is."""
        if (actor := self._actors.get(session_id)) is not None:
            self.remove(actor)

    @property
    def running(self) -> int:
        """How many sessions have a response that hasn't ended; those that were given up aside.

        As far as :meth:`account` was told: asking costs no walk through the sessions.
        """
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether any session of this node's own has something left to say; those given up aside."""
        return any(
            actor.is_owner and actor.session.is_busy
            for actor in self._actors.values()
            if actor.feed.ended is None
        )

    @property
    def connections(self) -> int:
        """How many connections there are on all sessions."""
        return sum(len(actor.feed) for actor in self._actors.values())
