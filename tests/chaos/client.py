"""One tab: a real client that speaks Realtime, reconnects by the protocol, and notes everything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.chaos.history import Connected, Disconnected, Frame, History, Received, Sent
from unbroken.server.protocols.cursor import parse_cursor

__all__ = ["Place", "Tab"]

_LEAST_PAUSE: Final = 0.05
_MOST_PAUSE: Final = 1.5
_HANDSHAKE: Final = 5.0
"""Seconds after which a handshake is given up: a node may be frozen, or cut off."""
_AGAIN: Final = frozenset({"store_unavailable", "input_queue_full", "server_overloaded", "server_draining"})
"""Refusals after which the same event is sent again."""

Place = Callable[[], tuple[str, int]]
"""Names a node, and the port to reach it by: each time another, perhaps."""


@dataclass(eq=False)
class Tab:
    """Use :meth:`live` as a task; it ends when it is cancelled, or when :attr:`is_gone`.

    Args:
        name: Of the tab, in histories.
        place: Where to connect.
        draw: What it is chancy with.
        patience: Seconds for which it looks at each frame. More than 0: a slow client.
        resume: The token of a session that exists.

    """

    name: str
    place: Place
    draw: random.Random
    patience: float = 0.0
    resume: str | None = None
    is_gone: bool = False
    """Whether the session was not found: the client was told that it has ended."""
    refusals: list[str] = field(default_factory=list)
    """The codes of all errors."""

    def __post_init__(self) -> None:
        self.history = History(self.name)
        self.after: str | None = None
        self.resets = 0  # how often it was told to start over
        self.changed = asyncio.Condition()
        self._owed: dict[str, Frame] = {}  # what is sent until it is acknowledged, by what acknowledges it
        self._items: dict[str, Frame] = {}  # what each question is about
        self._socket: ClientConnection | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it has been let in, and hasn't heard that the connection has ended."""
        return self._socket is not None

    # What is said.

    async def say(self, turn: str, item_id: str) -> None:
        """Say *turn*, and ask for an answer: again and again, until the server has shown to have both.

        The question comes when what it is about is there: either may be refused for a while.
        """
        content = [{"type": "input_text", "text": turn}]
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        self._items[turn] = {"type": "conversation.item.create", "item": item}
        await self._owe(item_id, self._items[turn])
        async with self.changed:
            await self.changed.wait_for(lambda: item_id not in self._owed or self.is_gone)
        request = {"type": "response.create", "response": {"metadata": {"turn": turn}}}
        await self._owe(turn, {**request, "unbroken": {"message_id": f"ask-{item_id}"}})

    async def cancel(self, name: str) -> None:
        """Stop what runs."""
        await self._owe(name, {"type": "response.cancel", "unbroken": {"message_id": name}})

    def forget(self, *names: str) -> None:
        """Send these no more."""
        for name in names:
            self._owed.pop(name, None)
            self._items.pop(name, None)

    async def _owe(self, name: str, event: Frame) -> None:
        self._note(name, event)
        if self._socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._send(self._socket, name)

    def _note(self, name: str, event: Frame) -> None:
        self._owed[name] = {**event, "event_id": f"evt-{name}".replace(" ", "-")}

    async def _start_over(self, socket: ClientConnection, *, is_reset: bool) -> None:
        """Send what is owed. Who was told to start over says again what an open question is about."""
        for name in list(self._owed) if is_reset else []:
            if name in self._items:
                self._note(self._items[name]["item"]["id"], self._items[name])
        for name in list(self._owed):
            if name not in self._items or self._items[name]["item"]["id"] not in self._owed:
                await self._send(socket, name)

    async def _settle(self, name: str) -> None:
        """Note that something is there, and ask what waits for that."""
        if self._owed.pop(name, None) is None or self._socket is None:
            return
        for turn, event in list(self._items.items()):
            if event["item"]["id"] == name and turn in self._owed:
                await self._send(self._socket, turn)

    async def _send(self, socket: ClientConnection, name: str) -> None:
        event = self._owed.get(name)
        if event is None:
            return  # it is owed no more
        self.history.events.append(Sent(event))
        await socket.send(json.dumps(event))

    # Connections.

    def cut(self) -> None:
        """Lose the connection, if there is one, without a word."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.transport.abort()

    async def live(self) -> None:
        """Stay connected."""
        pause = _LEAST_PAUSE
        while not self.is_gone:
            try:
                if await self._connected():
                    pause = _LEAST_PAUSE
            except (OSError, TimeoutError, InvalidHandshake, InvalidMessage, ConnectionClosed, EOFError):
                pass  # refused, cut or without an answer: there are other nodes
            await asyncio.sleep(self.draw.uniform(pause / 2, pause))
            pause = min(2 * pause, _MOST_PAUSE)

    async def _connected(self) -> bool:
        """Connect once, to the connection's end. Return whether the server let us in."""
        node, port = self.place()
        query = {"model": "default"}
        if self.resume is not None:
            query["resume"] = self.resume
        if self.after is not None:
            query["after"] = self.after
        async with connect(
            f"ws://127.0.0.1:{port}/v1/realtime?{urlencode(query)}",
            additional_headers={"Authorization": "Bearer chaos"},
            proxy=None,
            compression=None,
            open_timeout=_HANDSHAKE,
            ping_interval=3,
            ping_timeout=5,
            close_timeout=2,
            max_queue=1 if self.patience else 16,
        ) as socket:
            known = self.after if self.resume is not None else None
            self.history.events.append(Connected(node, known, time.monotonic()))
            is_welcome = False
            try:
                async for data in socket:
                    frame = json.loads(data)
                    is_welcome |= await self._received(socket, frame)
                    if self.patience:
                        await asyncio.sleep(self.patience)
            except ConnectionClosed:
                pass
            finally:
                self._socket = None
            self.history.events.append(Disconnected(_code(socket), time.monotonic()))
            return is_welcome

    async def _received(self, socket: ClientConnection, frame: Frame) -> bool:
        """Note a frame; True: the session has been shown."""
        self.history.events.append(Received(frame))
        kind = frame["type"]
        is_welcome: bool = kind == "session.created"
        if parse_cursor(frame["event_id"]) is not None or is_welcome:
            self.after = frame["event_id"]
        if kind == "error":
            await self._refused(socket, frame["error"])
        if is_welcome:
            session = frame["session"]
            self.resets += session["unbroken"].get("resumed") is False
            self.resume, self.history.session = session["unbroken"]["resume"], session["id"]
            self._socket = socket
            await self._start_over(socket, is_reset=session["unbroken"].get("resumed") is False)
        elif kind == "conversation.item.added":
            await self._settle(frame["item"]["id"])
        elif kind == "response.created":
            self._owed.pop((frame["response"].get("metadata") or {}).get("turn", ""), None)
        async with self.changed:
            self.changed.notify_all()
        return is_welcome

    async def _refused(self, socket: ClientConnection, error: dict[str, Any]) -> None:
        code = error["code"]
        self.refusals.append(code)
        if code == "session_not_found":
            self.is_gone = True
        names = {event["event_id"]: name for name, event in self._owed.items()}
        name = names.get(error.get("event_id") or "")
        if name is None:
            return
        if code in _AGAIN:
            await asyncio.sleep(self.draw.uniform(0.1, 0.3))
            await self._send(socket, name)
        else:
            await self._settle(name)


def _code(socket: ClientConnection) -> int:
    return 1006 if socket.close_code is None else socket.close_code
