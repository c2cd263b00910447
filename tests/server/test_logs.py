"""Log lines: one shape, no secrets, no content unless asked for."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Final

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from tests.server.guards.leaks.samples import SAMPLES
from unbroken.server import logs
from unbroken.server.config import Settings, StartupError
from unbroken.server.guards.leaks.lines import LineFilter
from unbroken.server.logs import ExceptionFormatter, Redactor, configure_logs
from unbroken.sessions.errors import IllegalTransition, Refusal, ResponderError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging belongs to the process: leave it as it was."""
    names = ("", "unbroken", "uvicorn", "uvicorn.access", "uvicorn.asgi", "uvicorn.error", "websockets")
    levels = {name: logging.getLogger(name).level for name in (*names, "websockets.server")}
    handlers = list(logging.getLogger().handlers)
    yield
    logging.captureWarnings(capture=False)
    logging.getLogger().handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def configured(stream: io.StringIO | None = None, **settings: Any) -> io.StringIO:
    stream = io.StringIO() if stream is None else stream
    configure_logs(Settings(**settings), stream, clean=LineFilter())
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_away_from_a_terminal() -> None:
    stream = configured()
    with bound_contextvars(session_id="sess_1", turn=3):
        structlog.get_logger("unbroken.test").info("turn started", item_id="item_1")

    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "turn started",
        "level": "info",
        "logger": "unbroken.test",
        "session_id": "sess_1",
        "turn": 3,
        "item_id": "item_1",
    }


def test_a_terminal_gets_text() -> None:
    stream = configured(Terminal())
    structlog.get_logger("unbroken.test").info("turn started", text="hello")

    assert "turn started" in stream.getvalue()
    assert "hello" not in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_the_format_can_be_chosen() -> None:
    stream = configured(Terminal(), log_format="json")
    structlog.get_logger("unbroken.test").info("turn started")

    assert lines(stream)


def test_the_level_is_for_this_program() -> None:
    """Libraries are heard from WARNING up: below they print requests and resume tokens."""
    stream = configured(log_level="debug")
    structlog.get_logger("unbroken.test").debug("ours")
    for name in ("uvicorn.error", "uvicorn.access", "websockets.server", "openai", "httpx"):
        logging.getLogger(name).info('"WebSocket /v1/realtime?resume=abcdef" [accepted]')

    assert [line["event"] for line in lines(stream)] == ["ours"]


def test_a_higher_level_silences() -> None:
    stream = configured(log_level="error")
    structlog.get_logger("unbroken.test").warning("no")
    logging.getLogger("unbroken.test").warning("no")

    assert lines(stream) == []


def test_uvicorn_asks_its_own_logger() -> None:
    """It compares `logger.level` itself, which is 0 when nobody has set it."""
    configured(log_level="debug")

    assert logging.getLogger("uvicorn.error").level == logging.WARNING


def test_libraries_write_the_same_lines() -> None:
    """With the context of the task, and without what looks like a secret."""
    stream = configured()
    with bound_contextvars(session_id="sess_1"):
        logging.getLogger("uvicorn.error").warning("refused %s", "/v1/realtime?resume=abcdef&after=3")

    (line,) = lines(stream)
    assert line["event"] == "refused /v1/realtime?resume=********&after=3"
    assert (line["level"], line["logger"], line["session_id"]) == ("warning", "uvicorn.error", "sess_1")


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Authorization",
        "api_key",
        "openai-api-key",
        "token",
        "resume",
        "resumeToken",
        "client_secret",
    ],
)
@pytest.mark.parametrize("show_content", [False, True])
def test_secrets_are_masked_always(key: str, show_content: bool) -> None:
    event = Redactor(show_content=show_content)(
        None, "info", {"a": [{key: "x-123", "b": ("x", {key: ["x-123"]})}]}
    )

    assert "x-123" not in repr(event)


@pytest.mark.parametrize(
    "key",
    ["text", "content", "delta", "instructions", "final_text", "query_string", "transcript", "arguments"],
)
def test_content_is_masked_unless_asked_for(key: str) -> None:
    hidden = Redactor(show_content=False)(None, "info", {key: "hello"})
    assert hidden == {key: "[5 characters]"}
    assert Redactor(show_content=False)(None, "info", {key: ["hello"]}) == {key: "[hidden]"}

    assert Redactor(show_content=True)(None, "info", {key: "hello"}) == {key: "hello"}


def test_counts_and_names_pass() -> None:
    event = {
        "content_index": 0,
        "content_type": "text",
        "input_tokens": 12,
        "resumed": True,
        "item_id": "item_1",
        "text": None,
        "seconds": 0.5,
    }

    assert Redactor(show_content=False)(None, "info", event) == event


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter2hunter2",
        "GET /?after=1&resume=hunter2hunter2",
        "?access_token=hunter2hunter2&x=1",
        "key sk-hunter2hunter2 refused",
        "key ub_hunter2hunter2 refused",
        "key ek_hunter2hunter2 refused",
        "ticket tk_hunter2hunter2 refused",
        "GET /v1/realtime?ticket=hunter2hunter2&model=x",
        "token eyJhunter2hunter2.hunter2.hunter2 refused",
        "redis://user:hunter2hunter2@host",
    ],
)
def test_secrets_inside_text_are_masked(text: str) -> None:
    event = Redactor(show_content=True)(None, "info", {"event": text, "error": ValueError(text)})

    assert "hunter2" not in repr(event)
    assert "********" in str(event["event"])


def test_a_traceback_shows_no_locals() -> None:
    stream = configured()
    secret_text = "hello from a user"
    try:
        int("x" * len(secret_text))
    except ValueError:
        structlog.get_logger("unbroken.test").exception("turn failed")
        logging.getLogger("asyncio").exception("task failed")

    assert all("ValueError" in line["exception"] for line in lines(stream))
    assert secret_text not in stream.getvalue().replace('"hello from a user"', "")


def test_a_terminal_traceback_shows_no_locals() -> None:
    stream = configured(Terminal())
    try:
        user_text = "-".join(["hello", "user"])
        int(user_text[:0])
    except ValueError:
        structlog.get_logger("unbroken.test").exception("turn failed")

    assert "ValueError" in stream.getvalue()
    assert "hello-user" not in stream.getvalue()


@pytest.mark.parametrize("value", [1 << 80, "\ud800", object(), {1: {2: 3}}, b"\xff", [[[[[[[[[1]]]]]]]]]])
def test_any_value_can_be_logged(value: object) -> None:
    """A line that can't be written would be the one that is needed."""
    stream = configured()
    structlog.get_logger("unbroken.test").info("seen", value=value)

    (line,) = lines(stream)
    assert line["event"] == "seen"


def test_a_line_never_breaks() -> None:
    stream = configured()
    structlog.get_logger("unbroken.test").info("a\nb", path="c\r\nd")

    assert len(stream.getvalue().splitlines()) == 1


def test_warnings_are_lines_too() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", stacklevel=1)
        logging.captureWarnings(capture=False)

    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"


def test_setting_up_twice_does_not_double_lines() -> None:
    configured()
    stream = configured()
    structlog.get_logger("unbroken.test").info("once")

    assert len(lines(stream)) == 1


def test_a_broken_stream_does_not_break_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(logging, "raiseExceptions", False)
    configured(Broken())

    structlog.get_logger("unbroken.test").info("lost")


MEGABYTE = 1 << 20


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit",
    [
        "a-",
        "a",
        "token",
        "_token-",
        "resume=",
        "resume=&",
        "bearer ",
        "bearer  x",
        " ",
        "sk-",
        "sk-a ",
        "://",
        "://a",
        ":// ",
        "@",
        "A",
        "Aa",
        "\n",
        "\ud800",
    ],
)
def test_hostile_text_costs_no_more_than_its_length(unit: str) -> None:
    """Quadratic work on a megabyte is minutes, also on what remains unclipped of many strings."""
    hostile = unit * (MEGABYTE // len(unit))
    redactor = Redactor(show_content=True)
    event = redactor(None, "info", {"event": hostile, "error": ValueError(hostile), "deep": {hostile: 1}})
    for shown in (event["event"], event["error"], *event["deep"]):
        assert "characters clipped]" in shown
        assert len(shown) < 9000

    short = unit * (8000 // len(unit))
    assert redactor(None, "info", {"parts": [short] * 100})["parts"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["a-", "-eyJ", "token", "bearer ", "sk-a ", "://a", ":", "resume=&"])
def test_masking_itself_is_linear(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the clipping, which would hide it."""
    monkeypatch.setattr(logs, "_LONGEST", 2 * MEGABYTE)
    hostile = unit * (MEGABYTE // len(unit))

    masked = Redactor(show_content=True)(None, "info", {"event": f"{hostile} resume=hunter2"})["event"]

    assert str(masked).endswith("resume=********")


@pytest.mark.parametrize(
    "secret", ["redis://u:hunter2hunter2@host", "sk-hunter2hunter2", "Bearer hunter2hunter2"]
)
@pytest.mark.parametrize("joint", ["", " ", "\n"])
def test_clipping_shows_no_half_of_a_secret(secret: str, joint: str) -> None:
    for before in range(6080, 6160):
        text = f"{'x' * (before - 1)}{joint}.{secret}{joint}{'y' * 6000}"
        assert "hunt" not in str(Redactor(show_content=True)(None, "info", {"event": text})["event"])
    for after in range(2020, 2060):
        text = f"{'x' * 8000}{joint}.{secret}{joint}{'y' * (after - 20)}"
        assert "nter2" not in str(Redactor(show_content=True)(None, "info", {"event": text})["event"])


def test_a_clipped_traceback_keeps_its_end() -> None:
    text = "first line\n" + "middle\n" * 10_000 + "ValueError"

    (clipped,) = Redactor(show_content=False)(None, "info", {"exception": text}).values()
    assert str(clipped).startswith("first line\n")
    assert str(clipped).endswith("\nValueError")


def failing(quoted: str) -> None:
    """Raise a chain of every kind of link, each quoting what a user wrote."""
    try:
        try:
            try:
                raise KeyError(quoted)
            except KeyError:
                raise ValueError(f"can't parse {quoted}")  # noqa: B904 - a context
        except ValueError as error:
            error.add_note(f"note: {quoted}")
            raise ExceptionGroup(
                f"group of {quoted}",
                [TypeError(quoted), ExceptionGroup(quoted, [SyntaxError(quoted, ("f.py", 1, 1, quoted))])],
            ) from error
    except ExceptionGroup as group:
        raise RuntimeError(quoted) from group


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("origin", ["structlog", "stdlib"])
@pytest.mark.parametrize("log_content", [False, True])
def test_messages_of_exceptions_are_content(log_format: str, origin: str, log_content: bool) -> None:
    """Such as those of a user's agent, which quotes what it was told."""
    stream = configured(log_format=log_format, log_content=log_content)
    quoted = "-".join(["hello", "user"])
    try:
        failing(f"{quoted} sk-hunter2hunter2")
    except RuntimeError as error:
        if origin == "structlog":
            log = structlog.get_logger("unbroken.test")
            log.exception("turn failed")
            log.error("turn failed", exc_info=error, error=error)
        else:
            logging.getLogger("asyncio").exception("task failed: %s", error)
            logging.getLogger("asyncio").error("task failed: %(e)r", {"e": error}, exc_info=error)

    written = stream.getvalue()
    assert (quoted in written) == log_content
    assert "hunter2" not in written
    for kind in ("KeyError", "ValueError", "TypeError", "SyntaxError", "ExceptionGroup", "RuntimeError"):
        assert written.count(kind) >= 2
    assert "test_logs.py" in written
    assert ", in failing" in written
    assert "raise RuntimeError(quoted) from group" in written


async def test_what_asyncio_says_of_a_lost_task_is_hidden() -> None:
    """It prints the task, whose repr has the exception's."""
    stream = configured()

    async def fail() -> None:
        raise ValueError("-".join(["hello", "user"]))

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"lost {task.exception()!r}", "exception": task.exception(), "future": task}
    )

    (line,) = lines(stream)
    assert line["event"] == "lost ValueError"
    assert "ValueError" in line["exception"]
    assert "hello-user" not in stream.getvalue()


@pytest.mark.parametrize(
    ("error", "is_shown"),
    [
        (StartupError("what we wrote"), True),
        (IllegalTransition("what we wrote", "x"), True),
        # These quote what clients and agents name.
        (Refusal("code", "what we wrote"), False),
        (ResponderError("code", "what we wrote"), False),
    ],
)
def test_our_own_messages_are_shown(error: Exception, is_shown: bool) -> None:
    stream = configured()
    structlog.get_logger("unbroken.test").error("failed", exc_info=error)

    (line,) = lines(stream)
    assert type(error).__name__ in line["exception"]
    assert ("what we wrote" in line["exception"]) == is_shown


@pytest.mark.parametrize("log_content", [False, True])
def test_an_exception_that_can_not_be_shown_is_logged(log_content: bool) -> None:
    class Broken(StartupError):
        def __str__(self) -> str:
            raise ValueError

        __repr__ = __str__

    error = Broken()
    error.__cause__ = ValueError()
    error.__cause__.__cause__ = error
    show = ExceptionFormatter(show_messages=log_content)

    for event in ({"exc_info": error}, {"exc_info": (Broken, error, None), "_from_structlog": False}):
        assert "Broken" in show(None, "error", event)["exception"]
    assert show(None, "error", {"exc_info": True}) == {}
    assert "Broken" in str(Redactor(show_content=log_content)(None, "info", {"error": error}))


def test_what_clients_cause_at_will_is_no_error() -> None:
    """uvicorn says so of everybody that is refused, and of what is no request or no text: a line for each."""
    stream = configured()
    uvicorn, other = logging.getLogger("uvicorn.error"), logging.getLogger("other")
    for line in (
        "ASGI callable returned without completing handshake.",
        "Invalid UTF-8 sequence received from client.",
        "Invalid HTTP request received.",
        "Unsupported upgrade request.",
    ):
        uvicorn.error(line)
        other.error(line)
    uvicorn.error("Exception in ASGI application")

    assert [line["logger"] for line in lines(stream)] == [*4 * ["other"], "uvicorn.error"]


def test_what_is_cancelled_is_no_error() -> None:
    """uvicorn says so of every request and connection that it ends itself when the server stops."""
    stream = configured()
    for error in (asyncio.CancelledError(), ValueError()):
        logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)

    (line,) = lines(stream)
    assert "ValueError" in line["exception"]


KEPT: Final = ("ip", "coordinates")


@pytest.mark.parametrize(("entity", "sample"), [each for each in SAMPLES if each[0] not in KEPT])
def test_h10_no_line_holds_personal_data_or_a_secret(entity: str, sample: str) -> None:
    """Wherever it is: in a value, a key, a list, what an exception says, a library's own line."""
    stream = configured(log_content=True)
    log = structlog.get_logger("unbroken.test")
    log.info("it was said", place=f"so {sample} on", places=[sample, {sample: 1}])
    try:
        raise ValueError(f"so {sample} on")
    except ValueError:
        structlog.get_logger("unbroken.test").exception("it failed")
    logging.getLogger("library").warning("so %s on", sample)
    written = stream.getvalue()

    assert sample not in written
    assert json.dumps(sample)[1:-1] not in written
    first = lines(stream)[0]
    assert entity.replace("_", " ") in first["place"] or "****" in first["place"]


def test_h10_times_ids_and_addresses_stay_as_they_are() -> None:
    stream = configured()
    ids = {
        "session_id": "sess_4f8e1c0b9a7d4e62b1c3d5e7f9a1b2c3",
        "response_id": "resp_1234567890abcdef12345678",
    }
    structlog.get_logger("unbroken.test").info("opened", address="203.0.113.7:51234", pid=12345678, **ids)
    (line,) = lines(stream)

    assert line["timestamp"].endswith("Z")
    assert {key: line[key] for key in (*ids, "address")} == {**ids, "address": "203.0.113.7:51234"}
