"""What clients and agents say, and where clients go, while two nodes contend for their session."""

from __future__ import annotations

from typing import Any

import orjson

from tests.fakes.responder import ManualTurn
from tests.sessions.conversation import World
from tests.sessions.ledger import Reader
from tests.sessions.scene import Scene
from unbroken.sessions.attachment import Attachment
from unbroken.sessions.entries import Submitted
from unbroken.sessions.errors import Refusal, ResponderError, SessionError
from unbroken.sessions.responder import Handle

__all__ = ["Talk"]


class Talk(Scene):
    """Agents answer; clients ask, send things again, and come and go."""

    # Agents.

    @property
    def _turn(self) -> ManualTurn | None:
        """One that hasn't been told to end."""
        turns = [turn for world in self.worlds for turn in world.responder.open if turn not in self.ended]
        return self._draw.choice(turns) if turns else None

    def _say(self) -> None:
        if turn := self._turn:
            if self.kind.can_resume and self._draw.random() < (0.1 if turn in self.said else 0.7):
                handle = f"h{next(self._names)}" if self._draw.random() < 0.8 else ""
                self.steps.append(f"handle {handle!r}")
                turn.say(Handle(handle))
            words = [f"w{next(self._names)} " for _ in range(self._draw.randint(1, 3))]
            self.steps.append(f"say {''.join(words)}in {turn.turn.response_id}")
            self.said.setdefault(turn, []).extend(words)
            turn.say(*words)
        else:
            self._send_request()

    def _end(self) -> None:
        if turn := self._turn:
            self.steps.append(f"end {turn.turn.response_id}")
            self.ended.add(turn)
            turn.end()

    def _fail(self) -> None:
        if turn := self._turn:
            self.steps.append(f"fail {turn.turn.response_id}")
            self.ended.add(turn)
            turn.fail(ResponderError("upstream_unavailable", "no"))

    # Clients.

    def _send_item(self) -> None:
        name = f"item{next(self._names)}"
        content = [{"type": "input_text", "text": name}]
        item: dict[str, Any] = {"type": "message", "role": "user", "content": content, "id": name}
        self._send(name, {"type": "conversation.item.create", "item": item})

    def _send_request(self) -> None:
        name = f"ask{next(self._names)}"
        event: dict[str, Any] = {
            "type": "response.create",
            "event_id": name,
            "unbroken": {"message_id": name},
        }
        if self._draw.random() < 0.1:
            event["response"] = {"conversation": "none"}
        self._send(name, event)

    def _send_again(self) -> None:
        if self._sent:
            self._send(*self._draw.choice(self._sent[-4:]))

    def _send_cancel(self) -> None:
        self._send("cancel", {"type": "response.cancel"})

    def _send_policy(self) -> None:
        policy = self._draw.choice(["queue", "interrupt", "merge", "merge", "reject"])
        session = {"type": "realtime", "unbroken": {"concurrency": policy}}
        self._send(policy, {"type": "session.update", "session": session})

    def _send(self, name: str, event: dict[str, Any]) -> None:
        """Have a client send something. One that can't comes back instead."""
        reader = self._draw.choice(self.readers)
        if reader.world in self._frozen or reader in self._coming:
            return
        if reader.is_cut_off:
            self._begin_to_come(reader)
            return
        self.steps.append(f"send {name} to {self._name(reader.world)}")
        if event["type"] in ("conversation.item.create", "response.create"):
            self._sent.append((name, event))
            self.told.add(name)
        self._begin(reader.world, self._submit(reader, name, event))

    async def _submit(self, reader: Reader, name: str, event: dict[str, Any]) -> None:
        assert reader.attachment is not None
        assert reader.connection is not None
        submitted = reader.connection.receive(orjson.dumps(event).decode())
        assert isinstance(submitted, Submitted)
        try:
            receipt = await reader.attachment.submit(submitted)
        except SessionError as exc:
            code = exc.code if isinstance(exc, Refusal) else ""
            self.steps.append(f"{name} isn't taken: {exc!r} {code}")
            assert code != "message_id_reused"
            return
        self.steps.append(f"{name} is taken as {receipt.seq}{' again' if receipt.duplicate else ''}")
        self.taken.setdefault(name, set()).add(receipt.seq)
        stored = self.ledger._sessions.get(self.session_id)
        if stored is not None and submitted.key is not None and submitted.key.name in stored.keys:
            self.committed.add(name)

    def _come(self) -> None:
        """Have a client come to a node, from wherever it is."""
        reader = self._draw.choice(self.readers)
        if reader not in self._coming:
            self._begin_to_come(reader)

    def _begin_to_come(self, reader: Reader) -> None:
        there = [each for each in self.worlds if each not in self._frozen and each not in self._draining]
        if reader not in self._coming and there:
            self._coming.add(reader)
            world = self._draw.choice(there)
            self.steps.append(f"a client of {self._name(reader.world)} comes to {self._name(world)}")
            self._begin(world, self._come_to(reader, world, is_in_a_hurry=self._draw.random() < 0.5))

    async def _come_to(self, reader: Reader, world: World, *, is_in_a_hurry: bool) -> None:
        before, place = reader.attachment, reader.world
        if before is not None and is_in_a_hurry:
            self._close(reader)
            before = None
        reader.world = world
        reader.is_cut_off = True
        try:
            await reader.resume()
        except SessionError as exc:
            self.steps.append(f"a client isn't let in: {exc!r}")
            reader.drop()
        finally:
            if before is not None:
                self._hang_up(place, before)
            self._coming.discard(reader)

    def _close(self, reader: Reader) -> None:
        attachment = reader.attachment
        reader.drop()
        if attachment is not None:
            self._hang_up(reader.world, attachment)

    def _hang_up(self, place: World, attachment: Attachment) -> None:
        if place in self._frozen:
            self._left_open.append((place, attachment))
        elif place in self.worlds:
            attachment.close()

    def _leave(self) -> None:
        leaving = self.readers if self._draw.random() < 0.4 else [self._draw.choice(self.readers)]
        self.steps.append(f"{len(leaving)} leave")
        for reader in leaving:
            if reader not in self._coming:
                self._close(reader)
