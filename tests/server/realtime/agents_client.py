"""Conversations of the OpenAI Agents SDK, for ``test_agents_sdk``. It runs in that SDK's own venv.

Usage: agents_client.py SCENARIO URL MESSAGE...

Prints, as JSON, every frame that the SDK took, the session's history, what its function was called with,
which kinds of events there were, and every error among them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias
from urllib.parse import urlencode

from agents import function_tool  # type: ignore[import-not-found]  # only there
from agents.realtime import (  # type: ignore[import-not-found]  # only there
    RealtimeAgent,
    RealtimeModelSendRawMessage,
    RealtimeRunner,
    RealtimeSession,
)
from websockets.exceptions import WebSocketException

ALL_OF_IT = 60.0

Frame: TypeAlias = dict[str, Any]


class Conversation:
    """What is seen of a session, and of the one that goes on with it."""

    def __init__(self, url: str) -> None:
        self.frames: list[Frame] = []
        self.errors: list[str] = []
        self.cities: list[str] = []
        self.kinds: set[str] = set()
        self.closed: list[str] = []
        """What the SDK raised whenever its connection was lost."""
        self.is_lost = False
        self.session: RealtimeSession
        self._url = url
        self._events: AsyncIterator[Any]

    async def open(self, **query: str) -> None:
        """Connect; with *query*, to what was begun."""

        @function_tool  # type: ignore[untyped-decorator]
        def get_weather(city: str) -> str:
            """The weather of a city."""
            self.cities.append(city)
            return f"rain in {city}"

        runner = RealtimeRunner(
            RealtimeAgent(name="Assistant", instructions="Be brief.", tools=[get_weather])
        )
        # The SDK names a model in `session.update`, whatever the address says; unset, one of OpenAI's.
        address = "&".join(filter(None, (self._url, urlencode(query))))
        self.session = await runner.run(model_config={"url": address, "api_key": os.environ["KEY"]})
        await self.session.enter()
        self.is_lost = False
        self._events = aiter(self.session)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Take events until what was seen of them is so."""
        while not holds():
            event = await anext(self._events)
            self.kinds.add(event.type)
            if event.type == "error":
                self.errors.append(getattr(event.error, "code", None) or str(event.error))
            elif event.type == "raw_model_event" and event.data.type == "raw_server_event":
                self.frames.append(event.data.data)

    def lose(self, error: Exception) -> None:
        """Note that the connection is lost, with *error*."""
        self.closed.append(str(error))
        self.is_lost = True

    async def ask(self, text: str) -> None:
        """Say *text*, and wait for the answer, or for an error."""
        ends, errors = self.ends(), len(self.errors)
        await self.session.send_message(text)
        await self.until(lambda: self.ends() > ends or len(self.errors) > errors)

    def ends(self) -> int:
        """Return how many answers have ended. Behind a call another response follows by itself."""
        done = [frame["response"] for frame in self.frames if frame["type"] == "response.done"]
        return sum(all(item["type"] != "function_call" for item in each["output"]) for each in done)

    def said(self) -> str:
        """Return what has been said, piece by piece."""
        return "".join(each["delta"] for each in self.frames if each["type"] == "response.output_text.delta")

    def report(self) -> dict[str, Any]:
        history = [
            [item.role, "".join(getattr(part, "text", None) or "" for part in item.content)]
            for item in self.session._history
            if item.type == "message"
        ]
        seen = {"frames": self.frames, "errors": self.errors, "cities": self.cities, "closed": self.closed}
        return {**seen, "kinds": sorted(self.kinds), "history": history}


async def converse(conversation: Conversation, messages: list[str]) -> None:
    """One message after another."""
    await conversation.open()
    for message in messages:
        await conversation.ask(message)


async def cancel(conversation: Conversation, messages: list[str]) -> None:
    """Interrupts the first answer, and asks the second message."""
    await conversation.open()
    await conversation.session.send_message(messages[0])
    await conversation.until(lambda: conversation.said().endswith("word3"))
    await conversation.session.interrupt()
    await conversation.until(lambda: conversation.ends() == 1)
    await conversation.ask(messages[1])


async def refuse(conversation: Conversation, messages: list[str]) -> None:
    """Isn't let in."""
    try:
        await conversation.open()
    except WebSocketException as exc:
        conversation.lose(exc)


async def mistake(conversation: Conversation, messages: list[str]) -> None:
    """Asks for what isn't there, and goes on."""
    await conversation.open()
    asked: Any = {"type": "conversation.item.retrieve", "other_data": {"item_id": "gone"}}
    await conversation.session.model.send_event(RealtimeModelSendRawMessage(message=asked))
    await conversation.until(lambda: len(conversation.errors) == 1)
    await conversation.ask(messages[0])


async def attack(conversation: Conversation, messages: list[str]) -> None:
    """Says what is refused, as is the request for an answer that the SDK sends in one breath; and goes on."""
    await conversation.open()
    await conversation.session.send_message(messages[0])
    await conversation.until(lambda: len(conversation.errors) == 2)
    await conversation.ask(messages[1])


async def resume(conversation: Conversation, messages: list[str]) -> None:
    """Loses its connection in mid-answer, and connects again to where it was. The SDK doesn't by itself."""
    await conversation.open()
    for number, message in enumerate(messages, 1):
        await conversation.session.send_message(message)
        while conversation.ends() < number:
            try:
                if conversation.is_lost:
                    await connect_again(conversation)
                await conversation.until(lambda: conversation.ends() == number)  # noqa: B023 - it is waited for
            except (WebSocketException, OSError) as exc:
                conversation.lose(exc)
                await asyncio.sleep(0.2)  # before the next try


async def connect_again(conversation: Conversation) -> None:
    await conversation.session.close()
    created = [frame for frame in conversation.frames if frame["type"] == "session.created"]
    token, place = created[-1]["session"]["unbroken"]["resume"], conversation.frames[-1]["event_id"]
    await conversation.open(resume=token, after=place)


SCENARIOS: dict[str, Callable[[Conversation, list[str]], Coroutine[Any, Any, None]]] = {
    "converse": converse,
    "cancel": cancel,
    "refuse": refuse,
    "mistake": mistake,
    "attack": attack,
    "resume": resume,
}


async def main() -> None:
    scenario, url, *messages = sys.argv[1:]
    conversation = Conversation(url)
    async with asyncio.timeout(ALL_OF_IT):
        await SCENARIOS[scenario](conversation, messages)
        await conversation.session.close()
    sys.stdout.write(json.dumps(conversation.report()))


if __name__ == "__main__":
    asyncio.run(main())
