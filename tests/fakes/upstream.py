"""A fake upstream that speaks the Chat Completions and the Responses API, badly where a test asks for it.

It listens on loopback, on a port of its own. Each verb queues what the next
request gets; when nothing is queued, a request gets ``Hello world``::

    async with FakeUpstream() as upstream:
        upstream.cut_after(2)
        ...
        [request] = upstream.requests
        await request.disconnected.wait()

The path of a request says which of the APIs it gets. A response that was kept
(:meth:`FakeUpstream.keep`) can be read again by its id; responses can be cancelled.

Nothing here sleeps unless a delay was asked for: a test waits for the events
of a :class:`RecordedRequest`, and lets the upstream go on by those it gives.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.dialects import (
    RESPONSE_ID,
    ChatDialect,
    Dialect,
    Payload,
    ResponsesDialect,
    chunk,
)

__all__ = ["RESPONSE_ID", "FakeUpstream", "Framing", "Kept", "RecordedRequest", "Wire", "chunk", "tokens"]

_REASONS = {
    200: "OK",
    301: "Moved Permanently",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How an event stream is cut into lines and network writes."""

    newline: bytes = b"\n"
    write_bytes: int | None = None
    """Bytes to one write. None: an event to a write."""


@dataclass(slots=True, eq=False)
class RecordedRequest:
    """A request as it came, and what became of it."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    sent: int = 0
    """How many pieces of text were sent."""
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closed the connection before its answer's end."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the script has come to its end, however."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True, eq=False)
class Kept:
    """A response that the upstream holds: complete, while its streams may be cut."""

    payloads: list[Payload]
    cuts: deque[int]
    """After how many events each of its next streams is cut. None left: they aren't."""
    how: Literal["reset", "end"]

    async def stream(self, wire: Wire, after: int | None = None) -> None:
        """Send the events that follow the one with that number, or all."""
        left = self.cuts.popleft() if self.cuts else None
        wire.head()
        for payload in self.payloads:
            if after is not None and payload["sequence_number"] <= after:
                continue
            if left == 0:
                break
            await wire.event(payload)
            left = None if left is None else left - 1
        if left == 0 and self.how == "reset":
            wire.reset()
        else:
            wire.end()


class _Disconnected(Exception):
    """The client has gone."""


class Wire:
    """What a script writes its response with."""

    def __init__(
        self, transport: asyncio.Transport, request: RecordedRequest, may_write: asyncio.Event
    ) -> None:
        self.request = request
        self.framing = Framing()
        self.dialect: Dialect = (
            ResponsesDialect() if request.path.startswith("/v1/responses") else ChatDialect()
        )
        self._transport = transport
        self._may_write = may_write

    def head(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Write a response's head. Its body is chunked unless a length is given."""
        fields = {"Content-Type": "text/event-stream", **(headers or {})}
        if "Content-Length" not in fields:
            fields["Transfer-Encoding"] = "chunked"
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Whatever')}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self._transport.write("\r\n".join([*lines, "", ""]).encode())

    async def write(self, data: bytes) -> None:
        """Write a piece of the body, one HTTP chunk to each of the framing's writes."""
        size = self.framing.write_bytes or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            await self._may_write.wait()
            if self._transport.is_closing():
                raise _Disconnected
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0)

    async def event(self, payload: object) -> None:
        """Write an event with *payload* as JSON, or as it is if it is a string."""
        data = payload if isinstance(payload, str) else json.dumps(payload)
        newline = self.framing.newline
        # As OpenAI does: the type is in the event's head too, where the payload has one.
        kind = payload.get("type") if isinstance(payload, dict) else None
        head = b"event: " + kind.encode() + newline if isinstance(kind, str) else b""
        await self.write(head + b"data: " + data.encode() + newline + newline)

    async def begin(self) -> None:
        """Write the head, and what precedes the text."""
        self.head()
        for payload in self.dialect.opening():
            await self.event(payload)

    async def text(self, token: str) -> None:
        """Write a piece of the answer."""
        await self.event(self.dialect.text(token))
        self.request.sent += 1

    async def finish(self) -> None:
        """Write what ends the answer, and end the body."""
        for payload in self.dialect.ending("stop", _counts(self.request.sent)):
            await self.event(payload)
        self.end()

    def json(self, status: int, payload: object, headers: Mapping[str, str] | None = None) -> None:
        """Write a whole response, of one JSON object."""
        body = json.dumps(payload).encode()
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self.head(status, {**fields, **(headers or {})})
        self._transport.write(body)

    def end(self) -> None:
        """End the body."""
        self._transport.write(b"0\r\n\r\n")

    def reset(self) -> None:
        """Break the connection off."""
        self._transport.abort()

    async def hold(self) -> None:
        """Do nothing until the client has gone."""
        await self.request.disconnected.wait()
        raise _Disconnected


Script = Callable[[Wire], Awaitable[None]]


def tokens(number: int) -> list[str]:
    """Return *number* different tokens."""
    return [f"t{index} " for index in range(number)]


def _counts(number: int) -> dict[str, object]:
    return {"prompt_tokens": 7, "completion_tokens": number, "total_tokens": 7 + number}


class FakeUpstream:
    """The server. An async context manager: it listens inside, and has let go of everything after."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.connections = 0
        """How many were ever made."""
        self.cancelled: list[str] = []
        """The responses that somebody asked to cancel."""
        self._kept: dict[str, Kept] = {}
        self._answers_cancels = True
        self._scripts: deque[Script] = deque()
        self._arrived = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._open):
            await connection.close()
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        """What to give to a client."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def request(self, number: int = 0) -> RecordedRequest:
        """Return the request of that number, from 0, once it is there."""
        while len(self.requests) <= number:
            self._arrived.clear()
            await self._arrived.wait()
        return self.requests[number]

    # What the next request gets.

    def answer(
        self,
        *pieces: str,
        delay: float = 0.0,
        finish_reason: str | None = "stop",
        usage: Mapping[str, object] | None = None,
        is_done_sent: bool = True,
        framing: Framing | None = None,
        gate: asyncio.Event | None = None,
        thoughts: Sequence[str] = (),
    ) -> None:
        """Answer with *pieces*, *delay* seconds before each, after *gate* was set; *thoughts* come first."""

        async def script(wire: Wire) -> None:
            wire.framing = framing or Framing()
            if gate is not None:
                await gate.wait()
            await wire.begin()
            for thought in thoughts:
                await wire.event(wire.dialect.reasoning(thought))
            for piece in pieces:
                if delay:
                    await asyncio.sleep(delay)
                await wire.text(piece)
            for payload in wire.dialect.ending(finish_reason, {**_counts(len(pieces)), **(usage or {})}):
                await wire.event(payload)
            if is_done_sent and isinstance(wire.dialect, ChatDialect):
                await wire.event("[DONE]")
            wire.end()

        self._scripts.append(script)

    def call(self, *calls: tuple[str, str], text: str = "") -> None:
        """Say *text*, and call functions: pairs of a name and arguments. Their ids are call_0, call_1 ..."""

        async def script(wire: Wire) -> None:
            await wire.begin()
            if text:
                await wire.text(text)
            for index, (name, arguments) in enumerate(calls):
                await wire.event(wire.dialect.call(index, name, f"call_{index}"))
                for start in range(0, len(arguments), 4):
                    await wire.event(wire.dialect.arguments(index, arguments[start : start + 4]))
            for payload in wire.dialect.ending("tool_calls", _counts(1)):
                await wire.event(payload)
            wire.end()

        self._scripts.append(script)

    def status(
        self,
        code: int,
        error: Mapping[str, object] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse, with an error as OpenAI words them."""
        body = {"error": {"message": "no", "type": None, "code": None, **(error or {})}}

        async def script(wire: Wire) -> None:
            wire.json(code, body, headers)

        self._scripts.append(script)

    def cut_after(self, number: int, how: Literal["reset", "end"] = "reset") -> None:
        """Send *number* tokens; then break off, or end the body as if that were all."""

        async def script(wire: Wire) -> None:
            await self._begin(wire, number)
            if how == "end":
                wire.end()
            else:
                wire.reset()

        self._scripts.append(script)

    def stall_after(self, number: int) -> None:
        """Send *number* tokens, then nothing, for as long as the client stays."""

        async def script(wire: Wire) -> None:
            await self._begin(wire, number)
            await wire.hold()

        self._scripts.append(script)

    def stall_before_head(self) -> None:
        """Take the request and send nothing at all."""
        self._scripts.append(Wire.hold)

    def never_ending(self) -> None:
        """Send tokens for as long as the client stays."""

        async def script(wire: Wire) -> None:
            await wire.begin()
            for number in count():
                await wire.text(f"t{number} ")

        self._scripts.append(script)

    def malformed(self, payload: str = "{not json", *, after: int = 1) -> None:
        """Send *after* tokens, then an event of which nothing can be made."""
        self._in_place_of_text(after, lambda _: payload)

    def error_object(self, error: object, *, after: int = 1) -> None:
        """Send *after* tokens, then an error in place of a chunk."""
        self._in_place_of_text(after, lambda dialect: dialect.error(error))

    def keep(
        self,
        *pieces: str,
        response_id: str = RESPONSE_ID,
        cuts: Sequence[int] = (),
        how: Literal["reset", "end"] = "reset",
        finish_reason: str | None = "stop",
        calls: Sequence[tuple[str, Sequence[str]]] = (),
        thoughts: Sequence[str] = (),
    ) -> Kept:
        """Answer with *thoughts*, *pieces* and *calls*, and hold the response.

        It can be read by its id, from any place. Its streams are cut after so many events each.
        """
        dialect = ResponsesDialect(response_id)
        payloads = [*dialect.opening(), *map(dialect.reasoning, thoughts), *map(dialect.text, pieces)]
        for index, (name, arguments) in enumerate(calls):
            payloads.append(dialect.call(index, name, f"call_{index}"))
            payloads += [dialect.arguments(index, piece) for piece in arguments]
        payloads += dialect.ending(finish_reason, _counts(len(pieces)))
        kept = self._kept[response_id] = Kept(payloads, deque(cuts), how)
        self._scripts.append(kept.stream)
        return kept

    def stall_cancels(self) -> None:
        """From now on, take requests to cancel and answer none."""
        self._answers_cancels = False

    def events(self, *payloads: object) -> None:
        """Send these payloads, as JSON or as they are, and end the body."""

        async def script(wire: Wire) -> None:
            wire.head()
            for payload in payloads:
                await wire.event(payload)
            wire.end()

        self._scripts.append(script)

    def script(self, script: Script) -> None:
        """Do whatever *script* does."""
        self._scripts.append(script)

    async def _begin(self, wire: Wire, number: int) -> None:
        await wire.begin()
        for token in tokens(number):
            await wire.text(token)

    def _in_place_of_text(self, after: int, payload: Callable[[Dialect], object]) -> None:
        async def script(wire: Wire) -> None:
            await self._begin(wire, after)
            await wire.event(payload(wire.dialect))
            wire.end()

        self._scripts.append(script)

    def _script_for(self, request: RecordedRequest) -> Script:
        url = urlsplit(request.path)
        match request.method, url.path.split("/")[1:]:
            case "POST", ["v1", "responses", response_id, "cancel"]:
                return lambda wire: self._cancel(wire, response_id)
            case "GET", ["v1", "responses", response_id]:
                after = parse_qs(url.query).get("starting_after")
                return lambda wire: self._read_again(wire, response_id, int(after[0]) if after else None)
            case _:
                return self._next_script()

    async def _cancel(self, wire: Wire, response_id: str) -> None:
        self.cancelled.append(response_id)
        if not self._answers_cancels:
            await wire.hold()
        wire.json(200, ResponsesDialect(response_id).response("cancelled"))

    async def _read_again(self, wire: Wire, response_id: str, after: int | None) -> None:
        kept = self._kept.get(response_id)
        if kept is None:
            wire.json(404, {"error": {"message": "no", "type": "invalid_request_error", "code": None}})
        else:
            await kept.stream(wire, after)

    def _next_script(self) -> Script:
        if not self._scripts:
            self.answer("Hello", " world")
        return self._scripts.popleft()


class _Connection(asyncio.Protocol):
    """One client's connection: requests one after another, each given to a script."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._upstream = upstream
        self._received = bytearray()
        self._request: RecordedRequest | None = None  # while its script runs
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._upstream.connections += 1
        self._upstream._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._may_write.set()
        self._upstream._open.discard(self)
        if self._request is not None:
            self._request.disconnected.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not separator:
            return
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        del self._received[: len(head) + len(separator) + length]
        method, path, _ = request_line.split(" ")
        self._request = RecordedRequest(method, path, headers, rest[:length])
        self._upstream.requests.append(self._request)
        self._upstream._arrived.set()
        self._task = asyncio.get_running_loop().create_task(self._run(self._request))

    async def _run(self, request: RecordedRequest) -> None:
        assert self._transport is not None
        try:
            await self._upstream._script_for(request)(Wire(self._transport, request, self._may_write))
        except _Disconnected:
            await self._lost.wait()
        finally:
            self._request = None
            request.finished.set()

    async def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()
        await self._lost.wait()
