"""The upstream for measuring what passing its words on adds: ``python -m tests.bench.paced_upstream``.

It speaks Chat Completions, and answers as the last message orders, each word stamped with the time at which
it is written, in an HTTP chunk of its own. It prints its port.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from tests.bench.workload import Order, stamped

__all__ = ["serve"]

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = {
        "id": "chatcmpl-BenchBenchBenchBenchBenchBench",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "bench",
        "choices": [choice],
    }
    return _chunked(json.dumps(chunk, separators=(",", ":")).encode())


def _chunked(data: bytes) -> bytes:
    line = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request after another, until the client leaves."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            asked = json.loads(await reader.readexactly(int(lines[0][15:])))
            order = Order.parse(asked["messages"][-1]["content"])
            writer.write(_HEAD)
            due = time.monotonic()
            for number in range(order.count):
                writer.write(_event({"content": stamped(number, time.monotonic_ns())}))
                due += 1 / order.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(_event({}, "stop") + _chunked(b"[DONE]") + b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
