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
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.agents.agent_contract import collect, message, text_of, turn
from tests.server.realtime.serving import eventually
from unbroken.server.agents import embedded, llama
from unbroken.server.agents.base import AgentNotReady, ContextTooLong, Finish, Parameters, Usage, Working
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


class Steps:
    """What llama.cpp has told, seen in its own threads: each token, and each step of reading a prompt."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[llama.Generation] = []
        self.turns_of_loop: list[int] = []
        """How far :attr:`ticks` was at each step."""
        self.after_stop = 0
        self.ticks = 0
        begin, on_output = llama.Generation.__init__, llama.Generation._on_output

        def begun(run: llama.Generation, *arguments: Any) -> None:
            begin(run, *arguments)
            self.runs.append(run)

        def told(run: llama.Generation, raw: bytes) -> bool:
            self.after_stop += run._must_stop
            self.turns_of_loop.append(self.ticks)
            return on_output(run, raw)

        monkeypatch.setattr(llama.Generation, "__init__", begun)
        monkeypatch.setattr(llama.Generation, "_on_output", told)

    async def ended(self) -> None:
        """Return when every thread is out of llama.cpp."""
        await asyncio.gather(*(run._thread for run in self.runs))

    async def tick(self) -> None:
        """Count the turns of the loop, for ever."""
        while True:
            self.ticks += 1
            await asyncio.sleep(0)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


async def test_json_is_json_and_a_stop_text_ends_the_answer(real: EmbeddedAgent) -> None:
    begun = []
    for form in (None, {"type": "json_object"}):
        wanted = turn("Describe Paris.", parameters=Parameters(format=form), max_output_tokens=20)
        begun.append(text_of(await collect(real, wanted)).lstrip()[0])
    assert begun[0] != "{"
    assert begun[1] == "{"  # a model as small as this comes to no end of it

    outputs = await collect(real, turn("What is the capital of France?", parameters=Parameters(stop=("s",))))
    assert "s" not in text_of(outputs)
    assert outputs[-1] == Finish("completed")


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


async def test_stopping_an_answer_stops_the_work(real: EmbeddedAgent, steps: Steps) -> None:
    pieces = 0
    async with contextlib.aclosing(real.respond(turn(STORY))) as outputs:
        async for output in outputs:
            pieces += isinstance(output, str)
            if pieces == 3:
                break
    await steps.ended()
    assert steps.after_stop <= 1
    assert "Paris" in text_of(await collect(real, turn("What is the capital of France?")))


async def test_stopping_while_the_prompt_is_read_stops_the_work(real: EmbeddedAgent, steps: Steps) -> None:
    outputs = real.respond(turn("word " * 6000))  # takes most of a minute to read
    assert await anext(outputs) == Working()
    assert await anext(outputs) == Working()
    await outputs.aclose()
    await steps.ended()
    assert steps.after_stop <= 1
    assert len(steps.turns_of_loop) < 20, "of the nearly hundred steps"
    assert "Paris" in text_of(await collect(real, turn("What is the capital of France?")))


async def test_two_turns_run_side_by_side_and_a_third_waits(
    real: EmbeddedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_HEARTBEAT_SECONDS", 0.05)
    said: list[str] = []

    async def run(principal: str) -> None:
        async for output in real.respond(turn(STORY, principal=principal, max_output_tokens=60)):
            if isinstance(output, str):
                said.append(principal)  # noqa: PERF401 - among those of the others

    async with asyncio.TaskGroup() as group:
        for principal in ("ann", "ben", "cat"):
            group.create_task(run(principal))
    last = {principal: len(said) - said[::-1].index(principal) for principal in set(said)}
    assert said.index("ben") < last["ann"]
    assert said.index("ann") < last["ben"]
    assert said.index("cat") >= min(last["ann"], last["ben"])


async def test_the_loop_stays_free_while_it_reads_and_answers(real: EmbeddedAgent, steps: Steps) -> None:
    """It turns between one step and the next, not for most of them at once, however busy the machine."""
    ticking = asyncio.create_task(steps.tick())
    await collect(real, turn("word " * 300, max_output_tokens=1))
    read = len(set(steps.turns_of_loop))
    await collect(real, turn(STORY, max_output_tokens=60))
    ticking.cancel()
    assert read > 1
    assert len(steps.turns_of_loop) > 60, "it had nothing to say"
    assert len(set(steps.turns_of_loop)) > len(steps.turns_of_loop) // 4


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
            await eventually(lambda number=number: number in received)  # type: ignore[misc]
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


def threads_of_llama_cpp() -> int:
    """All but Python's own, of which the loop's executor may begin another at any time."""
    return len(os.listdir("/proc/self/task")) - threading.active_count()  # noqa: PTH208 - it reads no disk


async def test_another_file_goes_by_its_own_name_and_unloads(tmp_path: Path) -> None:
    path = tmp_path / "my-model.gguf"
    shutil.copy(embedded.find_weights(None), path)
    agent = EmbeddedAgent(model_path=path, slots=1, context=1024)
    await agent.start()
    assert agent.model == "my-model"
    assert agent.is_ready
    loaded = threads_of_llama_cpp()
    await agent.stop()
    assert threads_of_llama_cpp() < loaded, "they live on"
