"""A fake upstream that speaks the Chat Completions API, badly where a test asks for it.

It listens on loopback, on a port of its own. Each verb queues what the next
request gets; when nothing is queued, a request gets ``Hello world``::

    async with FakeUpstream() as upstream:
        upstream.cut_after(2)
        ...
        [request] = upstream.requests
        await request.disconnected.wait()

Nothing here sleeps unless a delay was asked for: a test waits for the events
of a :class:`RecordedRequest`, and lets the upstream go on by those it gives.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

__all__ = ["FakeUpstream", "Framing", "RecordedRequest", "Wire"]

_REASONS = {
    200: "OK",
    301: "Moved Permanently",
    400: "Bad Request",
    401: "Unauthorized",
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


class _Disconnected(Exception):
    """The client has gone."""


class Wire:
    """What a script writes its response with."""

    def __init__(
        self, transport: asyncio.Transport, request: RecordedRequest, may_write: asyncio.Event
    ) -> None:
        self.request = request
        self.framing = Framing()
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
        await self.write(b"data: " + data.encode() + newline + newline)

    async def text(self, token: str) -> None:
        """Write a piece of the answer."""
        await self.event(chunk({"content": token}))
        self.request.sent += 1

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


def chunk(
    delta: Mapping[str, object], *, finish_reason: str | None = None, **fields: object
) -> dict[str, object]:
    """Return a chat.completion.chunk."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [choice],
        "usage": None,
        **fields,
    }


def tokens(number: int) -> list[str]:
    """Return *number* different tokens."""
    return [f"t{index} " for index in range(number)]


class FakeUpstream:
    """The server. An async context manager: it listens inside, and has let go of everything after."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.connections = 0
        """How many were ever made."""
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
    ) -> None:
        """Answer with *pieces*, *delay* seconds before each, after *gate* was set."""

        async def script(wire: Wire) -> None:
            wire.framing = framing or Framing()
            if gate is not None:
                await gate.wait()
            wire.head()
            await wire.event(chunk({"role": "assistant", "content": ""}))
            for piece in pieces:
                if delay:
                    await asyncio.sleep(delay)
                await wire.text(piece)
            if finish_reason is not None:
                await wire.event(chunk({}, finish_reason=finish_reason))
            counts = {"prompt_tokens": 7, "completion_tokens": len(pieces), "total_tokens": 7 + len(pieces)}
            await wire.event({**chunk({}), "choices": [], "usage": {**counts, **(usage or {})}})
            if is_done_sent:
                await wire.event("[DONE]")
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
        body = json.dumps({"error": {"message": "no", "type": None, "code": None, **(error or {})}}).encode()

        async def script(wire: Wire) -> None:
            length = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            wire.head(code, {**length, **(headers or {})})
            wire._transport.write(body)

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
            wire.head()
            for number in count():
                await wire.text(f"t{number} ")

        self._scripts.append(script)

    def malformed(self, payload: str = "{not json", *, after: int = 1) -> None:
        """Send *after* tokens, then an event of which nothing can be made."""
        self.events(*[chunk({"content": token}) for token in tokens(after)], payload)

    def error_object(self, error: object, *, after: int = 1) -> None:
        """Send *after* tokens, then an error in place of a chunk."""
        self.events(*[chunk({"content": token}) for token in tokens(after)], {"error": error})

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
        wire.head()
        for token in tokens(number):
            await wire.text(token)

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
        self._request = RecordedRequest(request_line.split(" ")[1], headers, rest[:length])
        self._upstream.requests.append(self._request)
        self._upstream._arrived.set()
        self._task = asyncio.get_running_loop().create_task(self._run(self._request))

    async def _run(self, request: RecordedRequest) -> None:
        assert self._transport is not None
        try:
            await self._upstream._next_script()(Wire(self._transport, request, self._may_write))
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
