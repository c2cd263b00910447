"""The upstream for measuring how streams are read: ``python -m tests.bench.sse EVENTS``.

It answers whatever is asked with the same Chat Completions stream: so many
events as OpenAI words them, each in an HTTP chunk of its own, all in one go. It
prints its port.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.bench.workload import word

__all__ = ["body"]

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def body(events: int) -> bytes:
    """Return a chunked body: *events* of text, the reason for stopping, and ``[DONE]``."""
    payloads = [_chunk({"content": word(number)}, None) for number in range(events)]
    lines = [f"data: {payload}\n\n".encode() for payload in [*payloads, _chunk({}, "stop"), "[DONE]"]]
    return b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"


def _chunk(delta: dict[str, str], finish_reason: str | None) -> str:
    return json.dumps(
        {
            "id": "chatcmpl-BenchBenchBenchBenchBenchBench",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": "gpt-5-mini-2025-08-07",
            "service_tier": "default",
            "system_fingerprint": None,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
            "usage": None,
            "obfuscation": "bench",  # OpenAI sends it unless asked not to
        }
    )


class _Connection(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if separator and len(rest) >= int(lengths[0]):
            self._received = b""
            self._transport.write(self._answer)


async def _serve(answer: bytes) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(answer), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(_HEAD + body(int(sys.argv[1]))))
