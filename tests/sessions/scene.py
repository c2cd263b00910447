"""Where two nodes contend for a session: the nodes, who is connected, and what has happened so far."""

from __future__ import annotations

import asyncio
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Final, cast

from tests.fakes.responder import ManualTurn
from tests.sessions.calls import Calls
from tests.sessions.conversation import World, limits_of
from tests.sessions.ledger import Ledger, Reader
from tests.sessions.repeatable import StillLoop
from tests.sessions.town import Town, distant
from tests.sessions.walking import HELD
from unbroken.sessions.ids import SessionId
from unbroken.sessions.node import Attachment, NodeLimits
from unbroken.sessions.replica import ActorLimits
from unbroken.sessions.run import RunLimits

__all__ = ["Kind", "Scene", "limits_for"]

_HELD: Final = (*HELD, "acquire", "release", "busy", "owners")


class Kind:
    """What may happen on a walk."""

    def __init__(self, draw: random.Random, *, has_outages: bool, has_losses: bool) -> None:
        self.has_outages = has_outages
        """Whether nodes may go on without the store. Else they wait for it."""
        self.has_losses = has_losses
        """Whether the store may lose what it had."""
        self.can_resume = draw.random() < 0.5
        """Whether an upstream keeps what it works on."""
        self.attempts = draw.choice([1, 2])
        self.is_deserted = draw.random() < 0.3
        """Whether nobody is connected when all is well again."""

    @property
    def is_faithful(self) -> bool:
        """Whether all that is done once is done for good."""
        return not (self.has_outages or self.has_losses)


def limits_for(kind: Kind) -> NodeLimits:
    run = RunLimits(stall_timeout=1e6, turn_timeout=1e6)
    return limits_of(
        actor=ActorLimits(run=run, attempts=kind.attempts),
        release_after=5.0,
        sweep_interval=2.0,
        is_strict=not kind.has_outages,
        connections_per_session=64,
    )


class Scene(ABC):
    """Two nodes that live, those that don't any more, and clients that go from one to the other."""

    def __init__(self, town: Town, draw: random.Random, kind: Kind, steps: list[str]) -> None:
        self.town = town
        self.kind = kind
        self.worlds = list(town.worlds)
        """The nodes that live."""
        self.readers: list[Reader] = []
        self.steps: Final = steps
        """What happened, in order."""
        self.said: dict[ManualTurn, list[str]] = {}
        """The agent's words."""
        self.ended: set[ManualTurn] = set()
        """Where the agent has come to its end."""
        self.told: set[str] = set()
        """Names of all that clients have asked for."""
        self.taken: dict[str, set[int]] = {}
        """What clients were told of what they sent: where it is in the log."""
        self.committed: set[str] = set()
        """Names of what was in the store when they were told so."""
        self.is_gone = False
        """Whether the store has lost the session, and nobody else had it."""
        self._draw = draw
        self._calls = Calls(draw, _HELD, steps.append, self._copy)
        self._copied: dict[SessionId, Any] | None = None
        self._names = itertools.count(1)
        self._sent: list[tuple[str, dict[str, Any]]] = []
        self._tasks: list[tuple[World, asyncio.Task[None]]] = []
        self._coming: set[Reader] = set()
        self._left_open: list[
            tuple[World, Attachment]
        ] = []  # of which their nodes don't know that they are dead
        self._frozen: dict[World, tuple[Any, float]] = {}
        self._dead: list[World] = []  # which nobody has noticed
        self._draining: dict[World, asyncio.Task[None]] = {}
        self._kills = 0

    @property
    def ledger(self) -> Ledger:
        return cast(Ledger, self.town.memory)

    @property
    def session_id(self) -> SessionId:
        return SessionId(self.readers[0].session_id or "")

    @property
    def _loop(self) -> StillLoop:
        return cast(StillLoop, asyncio.get_running_loop())

    def _name(self, world: World) -> str:
        return f"node {self.town.worlds.index(world) + 1}"

    def _equip(self, world: World) -> None:
        world.responder.can_resume = self.kind.can_resume
        self._calls.may_hold(distant(world))

    def _reader(self, world: World) -> Reader:
        reader = Reader(world, self.readers[0].session_id if self.readers else None)
        reader.ledger = self.ledger
        reader.is_lossy = self.kind.has_losses
        self.readers.append(reader)
        return reader

    def _begin(self, world: World, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append((world, asyncio.create_task(work)))

    def _pass(self, seconds: float) -> None:
        self._loop.advance(seconds)
        for world in self.worlds:
            if world not in self._frozen:
                world.clock.advance(seconds)

    def _copy(self) -> None:
        if self.kind.has_losses:
            self._copied = self.town.copy()

    @abstractmethod
    def _close(self, reader: Reader) -> None:
        """Have a client's connection end, if it has one."""
