"""What becomes of nodes, of their store, and of time, where two nodes contend for a session."""

from __future__ import annotations

import asyncio

from tests.sessions.conversation import World, settle
from tests.sessions.scene import Scene
from tests.sessions.town import distant
from unbroken.sessions.ids import SessionId

__all__ = ["Fates"]


class Fates(Scene):
    """Nodes stand still and come back, are taken for dead, die and drain; their store comes and goes."""

    # Nodes.

    def _freeze(self) -> None:
        world = self._draw.choice(self.worlds)
        if not self._frozen and world.node.id in self.town.neighbours:
            self.steps.append(f"freeze {self._name(world)}")
            self._frozen[world] = self.town.neighbours.pop(world.node.id), self._loop.time()
            self._calls.stand_still(distant(world))
            if self._draw.random() < 0.5:
                self._presume_dead()

    def _thaw(self) -> None:
        for world, (neighbour, since) in list(self._frozen.items()):
            self.steps.append(f"thaw {self._name(world)}")
            del self._frozen[world]
            world.clock.block(self._loop.time() - since)
            self.town.neighbours[world.node.id] = neighbour
            self._calls.go_on(distant(world))
            for place, attachment in self._left_open:
                if place is world:
                    attachment.close()
            self._left_open = [each for each in self._left_open if each[0] is not world]
            match self._draw.randrange(3):
                case 0:
                    neighbour.on_news([self.session_id])
                case 1:
                    neighbour.on_gap()
            if self._draw.random() < 0.5:
                self.town.lost.discard(world.node.id)

    def _presume_dead(self) -> None:
        """Have a node found dead: one that is, or that stands still, or one that is well. Never both."""
        if self._dead:
            self._find_dead(self._dead.pop())
        elif not any(world.node.id in self.town.lost for world in self.worlds):
            self._find_dead(self._draw.choice([*self._frozen, *self._frozen, *self.worlds]))

    def _find_dead(self, world: World) -> None:
        self.steps.append(f"{self._name(world)} is found dead")
        self.town.notice(world)

    def _see_alive(self) -> None:
        for world in self.worlds:
            if world not in self._frozen and world.node.id in self.town.lost:
                self.steps.append(f"{self._name(world)} is seen alive")
                self.town.lost.discard(world.node.id)

    def _be_silent(self) -> None:
        self.town.is_silent = not self.town.is_silent
        self.steps.append(f"nodes hear nothing: {self.town.is_silent}")

    async def _kill(self) -> None:
        world = self._draw.choice(self.worlds)
        if self._kills < 2 and len(self._frozen.keys() - {world}) == 0:
            self._kills += 1
            self.steps.append(f"kill {self._name(world)}")
            if world.node.id not in self.town.lost:
                self._dead.append(world)
            await self._replace(world)

    def _drain(self) -> None:
        world = self._draw.choice(self.worlds)
        if not self._draining and world not in self._frozen:
            timeout = self._draw.choice([0, 0, 3.0, 60.0])
            self.steps.append(f"drain {self._name(world)} within {timeout} seconds")
            world.node.begin_drain()
            self._draining[world] = asyncio.create_task(world.node.drained(timeout))

    async def _stay(self) -> None:
        for world, task in list(self._draining.items()):
            if world not in self._frozen:
                self.steps.append(f"{self._name(world)} stays")
                task.cancel()
                await asyncio.wait([task])
                world.node.end_drain()
                del self._draining[world]

    async def _replace(self, world: World) -> None:
        """Have a process end, and another one come."""
        if (task := self._draining.pop(world, None)) is not None:
            task.cancel()
            await asyncio.wait([task])
        if world in self._frozen:
            self._frozen.pop(world)
            self._calls.go_on(distant(world))
        self.town.kill(world)
        for at, task in self._tasks:
            if at is world:
                task.cancel()
        self._left_open = [each for each in self._left_open if each[0] is not world]
        for reader in self.readers:
            if reader.world is world:
                reader.drop()
        self.worlds.remove(world)
        born = await self.town.node()
        self._equip(born)
        self.worlds.append(born)
        await settle(3000)

    # The store, and time.

    def _let_store_be_out(self) -> None:
        world = self._draw.choice(self.worlds)
        store = distant(world)
        store.is_out = not store.is_out
        self.steps.append(f"out of {self._name(world)}'s reach: {store.is_out}")
        if store.is_out and self._draw.random() < 0.5:
            world.node._outages.of(SessionId("")).note_failure(SessionId(""))  # somebody noticed
            if self.kind.has_outages and world not in self._frozen:
                world.clock.advance(3.0)  # its patience is over

    def _let_answers_be_lost(self) -> None:
        world = self._draw.choice(self.worlds)
        store = distant(world)
        store.loses_answers = not store.loses_answers
        self.steps.append(f"answers to {self._name(world)} are lost: {store.loses_answers}")

    def _let_time_pass(self) -> None:
        seconds = self._draw.choice([0.1, 0.6, 0.6, 1.2, 3.0, 6.0])
        self.steps.append(f"{seconds} seconds")
        self._pass(seconds)

    def _let_a_call_go(self) -> None:
        if self._calls:
            self._calls.let_go()
            self.steps.append("let a call go")

    def _lose(self) -> None:
        """Have the store lose what was last heard of late, and all since; at times, everything."""
        self.town.lose(self._copied if self._draw.random() < 0.8 else None)
        self._copied = None
        self.steps.append("lose")
