"""Walks at random: two nodes over one store, of which now the one and now the other owns a session.

Nodes stand still and come back, are taken for dead and live on, die, drain, and are handed what they wish
for; their calls of the store are held, fail or are lost. Then all is well again, and everything ends.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

from tests.sessions.conversation import settle
from tests.sessions.fates import Fates
from tests.sessions.scene import Kind
from tests.sessions.talk import Talk
from tests.sessions.town import Town, distant

__all__ = ["Contest"]

_ROUNDS: Final = 45
"""In which everything has come to its end: a session that nobody follows is found within 30 polls."""


class Contest(Fates, Talk):
    """One walk."""

    def __init__(self, town: Town, draw: random.Random, kind: Kind, steps: list[str]) -> None:
        super().__init__(town, draw, kind, steps)
        kinds: dict[Callable[[], Awaitable[None] | None], float] = {
            self._say: 0.25,
            self._end: 0.06,
            self._fail: 0.02,
            self._send_item: 0.05,
            self._send_request: 0.06,
            self._send_again: 0.05,
            self._send_cancel: 0.03 * (draw.random() < 0.4),
            self._send_policy: 0.03,
            self._come: 0.07,
            self._leave: 0.04,
            self._let_store_be_out: 0.04,
            self._let_answers_be_lost: 0.03,
            self._let_time_pass: 0.14,
            self._let_a_call_go: 0.14,
            self.town.poll: 0.06,
            self._freeze: 0.05,
            self._thaw: 0.05,
            self._presume_dead: 0.05,
            self._see_alive: 0.05,
            self._be_silent: 0.03,
            self._kill: 0.015,
            self._drain: 0.03,
            self._stay: 0.01,
            self._lose: 0.04 * kind.has_losses,
        }
        self._kinds = list(kinds)
        # What is rare together on most walks is frequent on some.
        self._weights = [weight * draw.choice([0.3, 1, 3]) for weight in kinds.values()]

    async def go(self) -> None:
        """Take all steps, and come to rest."""
        await self._set_out()
        for _ in range(self._draw.randint(30, 90)):
            step = self._draw.choices(self._kinds, self._weights)[0]()
            if step is not None:
                await step
            await settle(3000)
            await self._look()
        await self._come_to_rest()

    async def _set_out(self) -> None:
        self.ledger._draw = self._draw.getrandbits
        for world in self.worlds:
            self._equip(world)
        reader = self._reader(self.worlds[0])
        await reader.connect()
        await reader.ask()
        if self._draw.random() < 0.6:
            self._send_policy()
            await settle()
        for _ in range(self._draw.randint(0, 2)):
            tab = self._reader(self._draw.choice(self.worlds))
            await tab.connect()
            await settle()
        self._calls.is_calm = False

    async def _look(self) -> None:
        """Let clients see what there is, and do what they are told to."""
        for _, task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
        self._tasks = [each for each in self._tasks if not each[1].done()]
        for reader in self.readers:
            if reader.world in self._frozen or reader in self._coming:
                continue
            if reader.world in self._draining:
                reader.look()
                attachment = reader.attachment
                if reader.is_cut_off or (attachment is not None and attachment.is_finished):
                    self._begin_to_come(reader)
            elif self._draw.random() < 0.6:
                reader.look(self._draw.choice([None, None, 1, 3]))
        for world, task in list(self._draining.items()):
            if task.done() and world not in self._frozen:
                self.steps.append(f"{self._name(world)} is drained")
                task.result()
                self.town.lost.add(world.node.id)
                await self._replace(world)
        await settle(3000)

    async def _come_to_rest(self) -> None:
        self.steps.append("all is well")
        self._calls.is_calm = True
        self._thaw()
        self._see_alive()
        self.town.is_silent = False
        while self._dead:
            self._find_dead(self._dead.pop())
        if self._draw.random() < 0.5:
            await self._stay()
        if self.kind.is_deserted:
            await self._round()
            for reader in self.readers:
                if reader not in self._coming:
                    self._close(reader)
            await self._rounds(are_connected=False)
        await self._rounds(are_connected=True)

    async def _rounds(self, *, are_connected: bool) -> None:
        at_rest = 0
        for _ in range(_ROUNDS):
            await self._round()
            if are_connected:
                for reader in self.readers:
                    if reader.is_cut_off:
                        self._begin_to_come(reader)
                await settle(3000)
            at_rest = at_rest + 1 if self._is_at_rest(are_connected=are_connected) else 0
            if at_rest == 3:  # what was lost, or missed, may come out late
                return
        raise AssertionError("something stands still")

    def _is_at_rest(self, *, are_connected: bool) -> bool:
        stored = self.ledger._sessions.get(self.session_id)
        if stored is None and self.kind.has_losses:
            self.is_gone = not any(world.node.hub.get(self.session_id) for world in self.worlds)
            if self.is_gone:
                return True
        actors = [world.node.hub.get(self.session_id) for world in self.worlds]
        return (
            not self._draining
            and not self._tasks
            and not any(world.responder.open for world in self.worlds)
            and not (stored is not None and stored.has_work)
            and not any(actor is not None and (actor.session.is_busy or actor._runs) for actor in actors)
            and not (are_connected and any(reader.is_cut_off for reader in self.readers))
        )

    async def _round(self) -> None:
        """Let two seconds pass in which nothing is amiss, and everybody comes to an end."""
        self._calls.let_all_go()
        for world in self.worlds:
            distant(world).is_out = distant(world).loses_answers = False
            for turn in world.responder.open:
                if turn not in self.ended:
                    self.ended.add(turn)
                    turn.end()
        for _ in range(4):
            self._pass(0.5)
            await settle(3000)
        await self._look()
        for reader in self.readers:
            reader.look()
        self.town.poll()
        await settle(3000)

    async def let_go(self) -> None:
        """Have everybody leave, and the nodes forget what is idle."""
        for reader in self.readers:
            self._close(reader)
        for _ in range(8):
            await self._round()
