"""An upstream that keeps its responses: works on them whether anybody reads or not, and can be read again."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.chaos.words import digest, fails, key_of, pause_of, words_of
from tests.fakes.dialects import Payload, ResponsesDialect
from tests.fakes.upstream import FakeUpstream, RecordedRequest, Script, Wire

__all__ = ["KeepingUpstream"]


@dataclass(eq=False)
class _Work:
    """A response: its events so far, and the task that makes more."""

    dialect: ResponsesDialect
    payloads: list[Payload] = field(default_factory=list)
    grew: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None
    is_over: bool = False


class KeepingUpstream(FakeUpstream):
    """Answers what :func:`~tests.chaos.words.prompt` asks, word by word."""

    def __init__(self) -> None:
        super().__init__()
        self._works: dict[str, _Work] = {}
        self.begun: list[tuple[str, str]] = []
        """For each response that was asked for, the id that it has with who asked, and its turn's key."""
        self.dawdle = 0.0
        """Seconds that each word takes at least."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().__aexit__(exc_type, exc, traceback)

    async def has_said(self, words: int) -> None:
        """Return when the latest response has got so far."""
        work = next(reversed(self._works.values()))
        async with work.grew:
            await work.grew.wait_for(lambda: len(work.payloads) >= len(work.dialect.opening()) + words)

    def _script_for(self, request: RecordedRequest) -> Script:
        url = urlsplit(request.path)
        match request.method, url.path.split("/")[1:]:
            case "POST", ["v1", "responses", response_id, "cancel"]:
                return lambda wire: self._stop(wire, response_id)
            case "GET", ["v1", "responses", response_id]:
                after = parse_qs(url.query).get("starting_after", ["-1"])
                return lambda wire: self._stream(wire, response_id, int(after[0]))
            case _:
                return self._create

    async def _create(self, wire: Wire) -> None:
        said = [(item["role"], _text(item)) for item in wire.request.json["input"] if "role" in item]
        asked = next(text for role, text in reversed(said) if role == "user")
        response_id = f"up_{len(self._works)}"
        self.begun.append((wire.request.headers["idempotency-key"], key_of(asked)))
        work = self._works[response_id] = _Work(ResponsesDialect(response_id))
        work.payloads += work.dialect.opening()
        work.task = asyncio.create_task(self._work(work, asked, digest(said)))
        await self._stream(wire, response_id, -1)

    async def _work(self, work: _Work, asked: str, past: str) -> None:
        words = words_of(asked, past)
        try:
            for word in words:
                await asyncio.sleep(max(pause_of(asked), self.dawdle))
                await self._add(work, [work.dialect.text(word)])
            await self._add(
                work, work.dialect.failing() if fails(asked) else _ending(work.dialect, len(words))
            )
        finally:
            work.is_over = True
            async with work.grew:
                work.grew.notify_all()

    async def _add(self, work: _Work, payloads: list[Payload]) -> None:
        async with work.grew:
            work.payloads += payloads
            work.grew.notify_all()

    async def _stream(self, wire: Wire, response_id: str, after: int) -> None:
        work = self._works.get(response_id)
        if work is None:
            wire.json(404, {"error": {"message": "no", "type": "invalid_request_error", "code": None}})
            return
        wire.head()
        sent = after + 1
        while True:
            while sent < len(work.payloads):
                await wire.event(work.payloads[sent])
                sent += 1
            if work.is_over:
                break
            async with work.grew:
                if sent == len(work.payloads) and not work.is_over:
                    await work.grew.wait()
        wire.end()

    async def _stop(self, wire: Wire, response_id: str) -> None:
        self.cancelled.append(response_id)
        work = self._works.get(response_id)
        if work is not None and work.task is not None:
            work.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work.task
        wire.json(200, ResponsesDialect(response_id).response("cancelled"))


def _ending(dialect: ResponsesDialect, words: int) -> list[Payload]:
    usage = {"prompt_tokens": 1, "completion_tokens": words, "total_tokens": 1 + words}
    return dialect.ending("stop", usage)


def _text(item: dict[str, Any]) -> str:
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
