"""The embedded agent with the real model.

These fail, and don't skip, where xllamacpp or the weights are missing: the error
says what to install.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.server.agents.agent_contract import collect, message, text_of, turn
from unbroken.server.agents import embedded, llama
from unbroken.server.agents.base import AgentNotReady, ContextTooLong, Finish, Usage, Working
from unbroken.server.agents.embedded import EmbeddedAgent

# One loop for all, since they share one agent: it belongs to the loop it was started in.
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

STORY = "Tell me a very long story about a dragon."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real() -> AsyncIterator[EmbeddedAgent]:
    agent = EmbeddedAgent(max_queue=8)
    await agent.start()
    yield agent
    await agent.stop()


async def seconds_to_first_text(agent: EmbeddedAgent) -> float:
    started = time.monotonic()
    async with contextlib.aclosing(agent.respond(turn("Say hi."))) as outputs:
        async for output in outputs:
            if isinstance(output, str):
                return time.monotonic() - started
    pytest.fail("no text came")


@contextlib.asynccontextmanager
async def idle_within(seconds: float) -> AsyncIterator[None]:
    """Fails unless this process stops computing within *seconds* of the body's end."""
    yield
    deadline = time.monotonic() + seconds
    while True:
        used, began = time.process_time(), time.monotonic()
        await asyncio.sleep(0.2)
        if (time.process_time() - used) / (time.monotonic() - began) < 0.2:
            return
        assert time.monotonic() < deadline, "still computing"


async def test_it_answers_in_tokens(real: EmbeddedAgent, capfd: pytest.CaptureFixture[str]) -> None:
    outputs = await collect(real, turn("What is the capital of France?"))
    assert "Paris" in text_of(outputs)
    assert sum(isinstance(output, str) for output in outputs) > 3
    usage, finish = outputs[-2:]
    assert isinstance(usage, Usage)
    assert usage.input_tokens > 10
    assert usage.output_tokens > 3
    assert finish == Finish("completed")
    assert real.model == "smollm2-135m-instruct"
    assert capfd.readouterr() == ("", ""), "llama.cpp prints prompts"


async def test_the_limit_on_the_answer_holds(real: EmbeddedAgent) -> None:
    outputs = await collect(real, turn(STORY, max_output_tokens=5))
    usage, finish = outputs[-2:]
    assert isinstance(usage, Usage)
    assert usage.output_tokens == 5
    assert finish == Finish("max_output_tokens")


async def test_stopping_an_answer_stops_the_work(real: EmbeddedAgent) -> None:
    async with idle_within(2):
        pieces = 0
        async with contextlib.aclosing(real.respond(turn(STORY))) as outputs:
            async for output in outputs:
                pieces += isinstance(output, str)
                if pieces == 3:
                    break
    assert await seconds_to_first_text(real) < 5


async def test_stopping_while_the_prompt_is_read_stops_the_work(real: EmbeddedAgent) -> None:
    async with idle_within(5):
        outputs = real.respond(turn("word " * 6000))  # takes most of a minute to read
        assert await anext(outputs) == Working()
        assert await anext(outputs) == Working()
        await outputs.aclose()
    assert await seconds_to_first_text(real) < 5


async def test_two_turns_run_side_by_side_and_a_third_waits(
    real: EmbeddedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_HEARTBEAT_SECONDS", 0.05)
    moments: dict[str, list[float]] = {"ann": [], "ben": [], "cat": []}

    async def run(principal: str) -> None:
        async for output in real.respond(turn(STORY, principal=principal, max_output_tokens=60)):
            if isinstance(output, str):
                moments[principal].append(time.monotonic())

    async with asyncio.TaskGroup() as group:
        for principal in moments:
            group.create_task(run(principal))
            await asyncio.sleep(0.05)
    assert moments["ben"][0] < moments["ann"][-1]
    assert moments["cat"][0] > min(moments["ann"][-1], moments["ben"][-1])


async def test_the_loop_stays_free_while_it_reads_and_answers(real: EmbeddedAgent) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    watching = asyncio.create_task(watch())
    await collect(real, turn("word " * 300, max_output_tokens=30))
    watching.cancel()
    assert longest < 0.25


async def test_a_prompt_beyond_the_window_is_an_error_and_a_long_history_is_not(real: EmbeddedAgent) -> None:
    with pytest.raises(ContextTooLong):
        await collect(real, turn("word " * 9000))
    # 9000 tokens, of which the first turn has all but twenty.
    history = ("word " * 9000, message("Interesting.", "assistant"), "What is the capital of France?")
    assert "Paris" in text_of(await collect(real, turn(*history)))


def own_sockets() -> set[str]:
    """The inodes of this process's sockets."""
    inodes = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    return inodes


def table(name: str) -> list[list[str]]:
    return [line.split() for line in Path("/proc/self/net", name).read_text().splitlines()[1:]]


async def test_no_listener_can_be_reached(real: EmbeddedAgent) -> None:
    own = own_sockets()
    listening = [
        row[1] for name in ("tcp", "tcp6") for row in table(name) if row[3] == "0A" and row[9] in own
    ]
    assert not listening
    bound = [row[7] for row in table("unix") if len(row) == 8 and row[6] in own and row[7].endswith("s.sock")]
    assert bound, "llama.cpp's socket was not found: has it moved?"
    assert not any(map(os.path.exists, bound))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


async def test_its_listener_wants_the_key_even_while_it_exists(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import xllamacpp

    path = tmp_path_factory.mktemp("l") / "s.sock"
    weights = embedded.find_weights(None)
    server = xllamacpp.Server(
        llama.server_parameters(weights, socket=path, key="right", slots=1, context=256, threads=1)
    )
    body = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}'
    for method, where, key, status in (
        ("POST", "/v1/chat/completions", None, 401),
        ("POST", "/v1/chat/completions", "wrong", 401),
        ("POST", "/tokenize", None, 401),
        ("GET", "/slots", None, 401),
        ("GET", "/slots", "right", 501),
        ("GET", "/metrics", "right", 501),
        ("POST", "/v1/chat/completions", "right", 200),
    ):
        connection = UnixConnection(path)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        connection.request(method, where, body if method == "POST" else None, headers)
        assert connection.getresponse().status == status, (method, where, key)
        connection.close()
    del server


async def test_signals_still_reach_the_server(real: EmbeddedAgent) -> None:
    """Earlier versions of xllamacpp took SIGTERM and SIGINT for themselves."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.signal(number, lambda number, _: received.append(number))
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
        finally:
            signal.signal(number, before)
    assert received == [signal.SIGTERM, signal.SIGINT]


async def test_a_damaged_file_is_an_error_with_the_fix(tmp_path: Path) -> None:
    weights = embedded.find_weights(None)
    damaged = tmp_path / "damaged.gguf"
    with weights.open("rb") as source, damaged.open("wb") as target:
        target.write(source.read(1 << 20))
    with pytest.raises(AgentNotReady, match=r"can't load .*damaged\.gguf"):
        await EmbeddedAgent(model_path=damaged).start()


async def test_another_file_goes_by_its_own_name_and_unloads(tmp_path: Path) -> None:
    path = tmp_path / "my-model.gguf"
    shutil.copy(embedded.find_weights(None), path)
    agent = EmbeddedAgent(model_path=path, slots=1, context=1024)
    await agent.start()
    assert agent.model == "my-model"
    assert agent.is_ready
    loaded = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - it reads no disk
    await agent.stop()
    assert len(os.listdir("/proc/self/task")) < loaded, "llama.cpp's threads live on"  # noqa: PTH208
