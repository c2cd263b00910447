from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.agents.agent_contract import AgentContract, Subject, collect, text_of, turn
from tests.server.realtime.serving import serving
from unbroken.server.agents.base import (
    AgentError,
    FunctionCall,
    FunctionCallPiece,
    FunctionOutput,
    FunctionTool,
    Parameters,
    TurnInput,
    UpstreamRateLimited,
    Usage,
    Working,
)
from unbroken.server.agents.python import InvalidTarget, PythonAgent
from unbroken.sessions.ids import ItemId

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"

CONTRACT_AGENT = """
import asyncio
from unbroken.server.agents.base import AgentError

running = 0

async def answer(turn):
    global running
    running += 1
    try:
        text = turn.messages[-1].text
        if text == "fail":
            yield "a "
            raise ValueError("secret")
        if text == "endless":
            yield "a "
        if text in {"endless", "silent"}:
            await asyncio.Event().wait()
        for word in text.split():
            await asyncio.sleep(0)
            yield word
    finally:
        running -= 1
"""


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """Modules of one test's directory are none of the next one's."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith(("agent_", "own_", "email_")):
            del sys.modules[name]
    assert path == sys.path


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class PythonSubject(Subject):
    def __init__(self) -> None:
        self.agent: PythonAgent = PythonAgent("own_contract:answer")

    def answering(self, number: int) -> tuple[TurnInput, str]:
        return turn(f"say {number}"), f"say{number}"

    def endless(self) -> TurnInput:
        return turn("endless")

    def silent(self) -> TurnInput:
        return turn("silent")

    def failing(self) -> TurnInput:
        return turn("fail")

    @property
    def running(self) -> int:
        running: int = sys.modules["own_contract"].running
        return running

    async def begun(self) -> None:
        await asyncio.sleep(0)  # the task goes as far as it can at its first turn in the loop
        assert self.running == 1

    async def stopped(self) -> None:
        assert self.running == 0


class TestPythonAgentContract(AgentContract):
    @pytest.fixture
    async def subject(self, directory: Path) -> AsyncIterator[PythonSubject]:
        (directory / "own_contract.py").write_text(CONTRACT_AGENT)
        subject = PythonSubject()
        await subject.agent.start()
        yield subject
        await subject.agent.stop()


async def answers(target: str, *messages: str, **fields: Any) -> list[Any]:
    agent = PythonAgent(target)
    await agent.start()
    try:
        return await collect(agent, turn(*messages, **fields))
    finally:
        await agent.stop()


async def test_every_kind_of_output_is_passed_on(directory: Path) -> None:
    (directory / "own_outputs.py").write_text(
        "from unbroken.server.agents.base import *\n"
        "async def answer(turn):\n"
        "    for output in (Working(), 'a', Handle('h'), Usage(input_tokens=1), Finish()):\n"
        "        yield output\n"
    )

    outputs = await answers("own_outputs:answer", "hi")

    assert [type(output).__name__ for output in outputs] == ["Working", "str", "Handle", "Usage", "Finish"]


async def test_what_is_asked_for_is_seen_and_stop_texts_end_the_answer(directory: Path) -> None:
    (directory / "agent_seeing.py").write_text(
        "async def answer(turn):\n    yield f'{turn.parameters.temperature} STOP never'\n"
    )
    agent = PythonAgent("agent_seeing:answer", directory=directory)
    await agent.start()

    outputs = await collect(agent, turn("hi", parameters=Parameters(0.25, stop=("STOP",))))
    await agent.stop()

    assert text_of(outputs) == "0.25 "


async def test_other_kinds_of_output_are_refused(directory: Path) -> None:
    """Whoever runs the server is told what is wrong, and who asked only that something is."""
    (directory / "own_bytes.py").write_text("async def answer(turn):\n    yield b'a'\n")

    with capture_logs() as logs, pytest.raises(AgentError) as raised:
        await answers("own_bytes:answer", "hi")

    assert str(raised.value) == AgentError.message
    (line,) = logs
    assert (line["agent"], line["yielded"]) == ("own_bytes:answer", "bytes")


async def test_own_agent_errors_pass_and_others_are_hidden(directory: Path) -> None:
    (directory / "own_errors.py").write_text(
        "from unbroken.server.agents.base import UpstreamRateLimited\n"
        "async def answer(turn):\n"
        "    yield ''\n"
        "    limited = turn.messages[-1].text == 'limit'\n"
        "    raise UpstreamRateLimited(retry_after=3) if limited else KeyError('hunter2')\n"
    )

    with pytest.raises(UpstreamRateLimited) as limited:
        await answers("own_errors:answer", "limit")
    with capture_logs() as logs, pytest.raises(AgentError) as failed:
        await answers("own_errors:answer", "other")

    assert limited.value.retry_after == 3
    assert str(failed.value) == "The agent failed."
    assert failed.value.__cause__ is failed.value.__context__ is None
    assert [(log["event"], log["error"]) for log in logs] == [("agent function failed", "KeyError")]


async def test_failing_cleanup_is_logged_and_hides_nothing(directory: Path) -> None:
    (directory / "own_cleanup.py").write_text(
        "async def answer(turn):\n    try:\n        yield 'a'\n    finally:\n        yield 'not here'\n"
    )
    agent = PythonAgent("own_cleanup:answer")
    await agent.start()

    outputs = agent.respond(turn("hi"))
    assert await anext(outputs) == "a"
    with capture_logs() as logs:
        await outputs.aclose()
    await agent.stop()

    assert [log["event"] for log in logs] == ["agent function failed to clean up"]


@pytest.mark.parametrize(
    ("target", "source", "problem"),
    [
        ("own_agent", "", "'own_agent' is no agent: write it as module:function"),
        (":answer", "", "write it as module:function"),
        ("own_agent.py:answer", "", "names a file: write the module's name, without '.py'"),
        ("own_missing:answer", "", r"There is no module 'own_missing', neither installed nor in /"),
        ("own_missing.deep:answer", "", "There is no module 'own_missing'"),
        ("own_agent:answer", "import own_absent", "it needs the module 'own_absent', which isn't installed"),
        ("own_agent:answer", "", r"The module 'own_agent' \(.*own_agent\.py\) has no 'answer'\."),
        ("own_agent:answer", "answer = 1", "is not an async generator function: write it as"),
        ("own_agent:answer", "async def answer(turn): return ''", "is not an async generator function"),
        ("own_agent:answer", "def answer(turn): yield ''", "is not an async generator function"),
        ("own_agent:answer", "async def answer(): yield ''", "must take one argument, the turn"),
        (
            "own_agent:answer",
            "\n1 / 0",
            r"failed: ZeroDivisionError: division by zero \(.*own_agent\.py, line 2\)",
        ),
        (
            "own_agent:answer",
            "x = (",
            r"failed: SyntaxError: '\(' was never closed \(.*own_agent\.py, line 1\)",
        ),
        ("own_agent:answer", "raise SystemExit", r"failed: SystemExit \(.*own_agent\.py, line 1\)"),
        ("own_agent:answer", "raise ValueError('a\\nb')", r"failed: ValueError: a b "),
    ],
)
async def test_unusable_target_is_told_in_one_line(
    directory: Path, target: str, source: str, problem: str
) -> None:
    (directory / "own_agent.py").write_text(source)
    agent = PythonAgent(target)

    with pytest.raises(InvalidTarget, match=problem) as failure:
        await agent.start()

    assert "\n" not in str(failure.value)
    assert not agent.is_ready


async def test_own_directory_never_hides_other_modules(directory: Path) -> None:
    (directory / "email.py").write_text("async def answer(turn):\n    yield ''\n")

    with pytest.raises(
        InvalidTarget, match=r"found before your email\.py, which needs another name, has no 'answer'"
    ):
        await PythonAgent("email:answer").start()


async def test_import_path_ends_with_the_directory_while_it_runs(directory: Path) -> None:
    (directory / "own_agent.py").write_text(
        "async def answer(turn):\n    import own_late\n    yield own_late.word\n"
    )
    (directory / "own_late.py").write_text("word = 'late'")
    agent = PythonAgent("own_agent:answer", model="mine")
    await agent.start()

    assert str(directory) == sys.path[-1]
    assert text_of(await collect(agent, turn("hi"))) == "late"
    assert agent.model == "mine"
    await agent.stop()


@pytest.mark.usefixtures("directory")
async def test_smallest_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)

    assert await answers("agent_echo:answer", "one two") == ["one ", "two "]


@pytest.mark.usefixtures("directory")
async def test_framework_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)

    outputs = await answers("agent_langchain_style:answer", "tea", instructions="Be brief.")

    assert text_of(outputs) == "Thinking about 'tea'."
    assert [Working(), Usage(input_tokens=5, output_tokens=3)] == outputs[-2:]


@pytest.mark.parametrize(
    ("body", "code", "event"),
    [
        ("raise ValueError('secret')", "agent_error", "agent function failed"),
        ("yield 42", "agent_error", "agent function yielded what it may not"),
        ("yield Handle(5)", "agent_crashed", "responder crashed"),
        ("yield Finish('tired')", "agent_crashed", "responder crashed"),
        ("raise asyncio.CancelledError", "agent_crashed", "responder crashed"),
    ],
)
async def test_a_bug_in_it_shows_as_the_docs_say(body: str, code: str, event: str, directory: Path) -> None:
    """To the client by a code and nothing of the cause, in the log by an event with its type."""
    documented = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    assert any(f"`{code}`" in line and f"`{event}`" in line for line in documented.splitlines())
    name = f"own_bug_{abs(hash(body))}"
    (directory / f"{name}.py").write_text(
        "import asyncio\n"
        "from unbroken.server.agents.base import *\n"
        f"async def answer(turn):\n    yield 'Well. '\n    {body}\n"
    )
    agent = PythonAgent(f"{name}:answer", directory=directory)

    async with serving(agent) as served:
        client = await served.client()
        with capture_logs() as logs:
            await client.ask("hi")
            done = await client.done()

    error = done["status_details"]["error"]
    assert (done["status"], error["code"]) == ("failed", code)
    assert not any(cause in repr(error) for cause in ("secret", "int", "42", "5", "tired", "Value"))
    (line,) = [each for each in logs if each["log_level"] == "error"]
    assert line["event"] == event


@pytest.mark.usefixtures("directory")
async def test_example_with_tools_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    call = FunctionCall(ItemId("a"), "k", "f", "{}")
    items = (call, FunctionOutput(ItemId("b"), "k", "rain"))

    assert await answers("agent_tools:answer", "hi", tools=(FunctionTool("f"),)) == [
        FunctionCallPiece(0, name="f"),
        FunctionCallPiece(0, '{"text": "hi"}'),
    ]
    assert await answers("agent_tools:answer", "hi", items=items) == ["The function says: rain"]
    assert await answers("agent_tools:answer", "hi") == ["There is nothing to call."]
