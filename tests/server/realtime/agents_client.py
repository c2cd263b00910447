"""A conversation of the OpenAI Agents SDK, for ``test_agents_sdk``. It runs in that SDK's own venv.

Usage: agents_client.py URL MESSAGE...

Asks the messages one after another and prints, as JSON, the session's history, the deltas of each
answer, what its function was called with, and every error event there was.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agents import function_tool  # type: ignore[import-not-found]  # only there
from agents.realtime import (  # type: ignore[import-not-found]  # only there
    RealtimeAgent,
    RealtimeRunner,
)

ALL_OF_IT = 60.0


async def converse(url: str, messages: list[str]) -> dict[str, Any]:
    cities: list[str] = []

    @function_tool  # type: ignore[untyped-decorator]
    def get_weather(city: str) -> str:
        """The weather of a city."""
        cities.append(city)
        return f"rain in {city}"

    runner = RealtimeRunner(RealtimeAgent(name="Assistant", instructions="Be brief.", tools=[get_weather]))
    # The SDK names a model in `session.update`, whatever the address says; unset, one of OpenAI's.
    session = await runner.run(model_config={"url": url, "api_key": "key"})
    errors: list[str] = []
    answers: list[str] = []
    kinds: list[str] = []
    async with session:
        await session.send_message(messages[0])
        deltas: list[str] = []
        async for event in session:
            kinds.append(event.type)
            if event.type == "error":
                errors.append(str(event.error))
            elif event.type == "raw_model_event" and event.data.type == "raw_server_event":
                frame = event.data.data
                if frame["type"] == "response.output_text.delta":
                    deltas.append(frame["delta"])
                elif frame["type"] == "response.done" and not calls_in(frame["response"]):
                    answers.append("".join(deltas))
                    deltas.clear()
                    if len(answers) == len(messages):
                        break
                    await session.send_message(messages[len(answers)])
    history = [
        [item.role, "".join(getattr(part, "text", None) or "" for part in item.content)]
        for item in session._history
        if item.type == "message"
    ]
    return {
        "history": history,
        "answers": answers,
        "errors": errors,
        "kinds": sorted(set(kinds)),
        "cities": cities,
    }


def calls_in(response: dict[str, Any]) -> bool:
    """Return whether another response follows by itself: the SDK gives back what the function returned."""
    return any(item["type"] == "function_call" for item in response["output"])


async def main() -> None:
    url, *messages = sys.argv[1:]
    async with asyncio.timeout(ALL_OF_IT):
        result = await converse(url, messages)
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
