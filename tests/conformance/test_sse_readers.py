"""Server-sent events, read by parsers that others wrote: whatever is said, and wherever it is cut."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import httpx
import httpx_sse
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from tests.conformance.node import FOLDER, node_path
from tests.server.realtime.client import WAIT
from tests.server.realtime.serving import Served, serving
from unbroken.server.agents.scripted import ScriptedAgent, answer_to
from unbroken.server.agents.sse import EventStreamParser
from unbroken.server.transports.sse import _SIGN_OF_LIFE, event

Event: TypeAlias = tuple[str, str, str]
"""Kind, data, id."""

HOSTILE: Final = (
    "plain",
    "a\nb\r\nc\rd\n\n",
    "\n\ndata: forged\n\nevent: error\ndata: {}\n\n",
    "x\u2028y\u2029z\x85\x0b\x0c\x1c\x1d\x1ew",
    "   leading, and trailing   ",
    "nul \x00 within, \ufeff too, \ufffd and \x7f",
    ": a comment\nid: 7\nretry: 1\n[DONE]",
    "é ü 漢字 👩\u200d👩\u200d👧 \U0010ffff e\u0301",
    'quotes " and \\ and \\u0000 and </script>',
)
"""What answers say."""

TEXTS: Final = st.text(
    st.one_of(
        st.sampled_from("\r\n\u2028\u2029\x85\x00\ufeff: \t"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=30,
)
KINDS: Final = st.sampled_from([None, "response.created", "error"])


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    """Return *stream* in pieces that begin at *places*, none of them empty."""
    ends = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(ends)]


def read_by_openai(pieces: list[bytes]) -> list[Event]:
    decoder = SSEDecoder()
    return [(each.event or "message", each.data, each.id or "") for each in decoder.iter_bytes(iter(pieces))]


def read_by_httpx_sse(pieces: list[bytes]) -> list[Event]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(pieces))
    return [(each.event, each.data, each.id) for each in httpx_sse.EventSource(response).iter_sse()]


def read_by_us(pieces: list[bytes]) -> list[Event]:
    """As the server reads what upstreams send."""
    parser = EventStreamParser()
    return [
        (each.type, each.data.decode(), each.last_event_id) for piece in pieces for each in parser.feed(piece)
    ]


async def read_by_npm(streams: list[list[bytes]]) -> list[list[Event]]:
    """Return what npm's parser finds in each of *streams*."""
    lines = [json.dumps([base64.b64encode(piece).decode() for piece in pieces]) for pieces in streams]
    process = await asyncio.create_subprocess_exec(
        node_path(), "sse.mjs", cwd=FOLDER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate("\n".join(lines).encode()), 50)
    assert process.returncode == 0
    return [[(kind, data, name) for kind, data, name in found] for found in json.loads(output)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[tuple[str | None, str]], list[bytes]]:
    """Draw events, and how they arrive: with signs of life in between, in pieces."""
    said = draw(st.lists(st.tuples(KINDS, TEXTS), min_size=1, max_size=5))
    stream = b""
    for kind, text in said:
        stream += draw(st.sampled_from([b"", _SIGN_OF_LIFE])) + event(kind, orjson.dumps({"delta": text}))
    places = draw(st.lists(st.integers(0, len(stream)), max_size=20) | st.just(range(len(stream))))
    return said, cut(stream, places)


@given(streams())
@example(([("error", "é\u2028\r\n")], cut(event("error", orjson.dumps({"delta": "é\u2028\r\n"})), range(60))))
def test_what_is_said_is_what_is_read(stream: tuple[list[tuple[str | None, str]], list[bytes]]) -> None:
    said, pieces = stream
    expected = [(kind or "message", text) for kind, text in said]

    for read in (read_by_openai, read_by_httpx_sse, read_by_us):
        found = [(kind, json.loads(data)["delta"]) for kind, data, _ in read(pieces)]
        assert found == expected, read.__name__


def responses(events: list[Event]) -> str:
    frames = [json.loads(data) for _, data, _ in events if data != "[DONE]"]
    return "".join(each["delta"] for each in frames if each["type"] == "response.output_text.delta")


def chunks(events: list[Event]) -> str:
    assert events[-1][1] == "[DONE]"
    frames = [json.loads(data) for _, data, _ in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for each in frames for choice in each["choices"])


def parts(events: list[Event]) -> str:
    assert events[-1][1] == "[DONE]"
    frames = [json.loads(data) for _, data, _ in events[:-1]]
    return "".join(each["delta"] for each in frames if each["type"] == "text-delta")


def contents(events: list[Event]) -> str:
    frames = [json.loads(data) for _, data, _ in events]
    assert frames[-1]["type"] == "RUN_FINISHED"
    return "".join(each["delta"] for each in frames if each["type"] == "TEXT_MESSAGE_CONTENT")


def deltas(events: list[Event]) -> str:
    assert {kind for kind, _, _ in events} == {"next", "complete"}
    told = [json.loads(data)["data"]["events"] for kind, data, _ in events if kind == "next"]
    return "".join(each["delta"] or "" for each in told)


def bubbles(events: list[Event]) -> str:
    return "".join(json.loads(data).get("text", "") for _, data, _ in events)


DOORS: Final = {
    "responses": responses,
    "chat": chunks,
    "ui": parts,
    "session": responses,
    "agui": contents,
    "graphql": deltas,
    "deepchat": bubbles,
}
"""How the text of an answer is had of a stream's events."""


SEND: Final = "mutation($text: String!) { send(input: {text: $text}) { responseId } }"
EVENTS: Final = "subscription($id: ID!) { events(responseId: $id) { delta } }"


async def asked(
    served: Served[Any], http: httpx.AsyncClient, door: str, text: str
) -> tuple[str, str, dict[str, Any] | None]:
    """Return what to ask a door for, to be answered to *text*: method, path and body."""
    question, name = {"role": "user", "content": text}, f"c{hash(text)}"
    match door:
        case "responses":
            return "POST", "/v1/responses", {"input": [question], "stream": True}
        case "chat":
            return "POST", "/v1/chat/completions", {"messages": [question], "stream": True}
        case "ui":
            part = {"id": "m", "role": "user", "parts": [{"type": "text", "text": text}]}
            return "POST", "/v1/ui/chat", {"id": name, "messages": [part]}
        case "agui":
            messages = [{"id": "m", **question}]
            return "POST", "/v1/agui", {"threadId": name, "runId": "run", "messages": messages}
        case "deepchat":
            return "POST", "/v1/widget/deepchat", {"messages": [{"role": "user", "text": text}]}
        case "graphql":
            sent = await http.post("/graphql", json={"query": SEND, "variables": {"text": text}})
            variables = {"id": sent.json()["data"]["send"]["responseId"]}
            return "POST", "/graphql", {"query": EVENTS, "variables": variables}
    client = await served.client()
    await client.ask(text)
    await client.done()
    return "GET", f"/v1/sessions/{client.session_id}/events", None


async def streamed(served: Served[Any], door: str, text: str) -> bytes:
    """Return what a door streams of the answer to *text*, byte by byte."""
    address, said = f"http://127.0.0.1:{served.port}", b""
    async with (
        asyncio.timeout(WAIT),
        httpx.AsyncClient(base_url=address, headers={"authorization": "Bearer alice"}) as http,
    ):
        method, path, body = await asked(served, http, door, text)
        headers = {"accept": "text/event-stream"}
        async with http.stream(method, path, json=body, headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for piece in response.aiter_raw():
                said += piece
                if door == "session" and b'"response.done"' in said and said.endswith(b"\n\n"):
                    break  # it goes on as long as the session
    return said


def pieces_of(stream: bytes) -> Iterator[list[bytes]]:
    yield [stream]
    yield cut(stream, range(len(stream)))
    yield cut(stream, range(0, len(stream), 7))


@pytest.mark.parametrize("door", DOORS)
async def test_each_door_is_read_alike_by_all(door: str) -> None:
    """The text of an answer is the agent's, by each parser, with the same events and ids."""
    whole: list[tuple[str, list[bytes]]] = []
    async with serving(ScriptedAgent(), firewall="off", graphql=True) as served:
        for text in HOSTILE:
            stream = await streamed(served, door, text)
            whole += [(answer_to(text), pieces) for pieces in pieces_of(stream)]
    by_npm = await read_by_npm([pieces for _, pieces in whole])

    for (answer, pieces), found in zip(whole, by_npm, strict=True):
        assert DOORS[door](found) == answer
        assert read_by_openai(pieces) == found
        assert read_by_httpx_sse(pieces) == found

    @settings(max_examples=4 * settings().max_examples)
    @given(st.sampled_from(whole), st.lists(st.integers(0, 1 << 20), max_size=30))
    def wherever_it_is_cut(drawn: tuple[str, list[bytes]], places: list[int]) -> None:
        answer, pieces = drawn
        again = cut(b"".join(pieces), places)
        assert DOORS[door](read_by_openai(again)) == answer
        assert DOORS[door](read_by_httpx_sse(again)) == answer

    wherever_it_is_cut()
