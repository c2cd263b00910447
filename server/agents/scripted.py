"""A deterministic agent, for tests and demonstrations. It needs no model and no network.

Plain text is echoed, in pieces of one word: ``You said: ...``. A last user
message whose first character is a slash is a script instead, one verb to a
line, done in order. When functions have returned something since the last
message, that is what is answered: ``Returned: ...``

======================================  ==============================================================
``/tokens N [DELAY_MS]``                N numbered words (``word1 word2 ...``), each after the delay
``/say TEXT``                           TEXT, in pieces of one word
``/think TEXT``                         TEXT, in pieces of one word, as reasoning
``/call NAME [ARGUMENTS]``                a call of the function NAME with the rest of the line as arguments,
                                        or ``{}``; a line more of it is a call beside it
``/insist NAME [ARGUMENTS]``            as ``/call``, whatever has been returned, and for ever
``/then``                               nothing; the lines below are done when the calls above have returned
``/working N MS``                       N times: waits MS milliseconds and reports that work goes on
``/empty``                              nothing
``/fail [CODE] [after N]``              N words, then raises the AgentError of that code
``/crash [after N]``                    N words, then raises RuntimeError, as a bug would
``/stall [after N]``                    N words, then hangs until it is stopped
``/slow-close MS [after N]``            N words, then hangs; being stopped takes it MS milliseconds
``/length N``                           N words, then stops for reaching the output limit
``/filter [after N]``                   N words, then stops for the content filter
======================================  ==============================================================

N is 0 where "after" is left out. Whatever wasn't stopped early ends with a
:class:`~unbroken.server.agents.base.Usage` that counts a word of the
conversation as an input token and a piece of the answer as an output token.
The turn's ``max_output_tokens`` is heeded in the same measure, and its stop
texts are. Between any two pieces other tasks get to run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count, repeat
from typing import Final, TypeAlias

from unbroken.server.agents.base import (
    AgentBusy,
    AgentError,
    AgentNotReady,
    AgentOutput,
    ContextTooLong,
    Finish,
    FunctionCall,
    FunctionCallPiece,
    FunctionOutput,
    Message,
    ReasoningPiece,
    TurnInput,
    UpstreamCut,
    UpstreamMalformed,
    UpstreamRateLimited,
    UpstreamRefusedKey,
    UpstreamRejected,
    UpstreamReportedError,
    UpstreamStalled,
    UpstreamUnavailable,
    Usage,
    Working,
)
from unbroken.server.agents.stops import until_stop

__all__ = ["BadScript", "ScriptedAgent", "answer_to"]

_VERBS: Final = (
    "/tokens /say /think /call /insist /then /working /empty /fail /crash /stall /slow-close /length /filter"
)
_CALL_PIECE: Final = 8
"""Characters."""
_ERRORS: Final = (
    AgentError,
    AgentBusy,
    AgentNotReady,
    ContextTooLong,
    UpstreamCut,
    UpstreamMalformed,
    UpstreamRateLimited,
    UpstreamRefusedKey,
    UpstreamRejected,
    UpstreamReportedError,
    UpstreamStalled,
    UpstreamUnavailable,
)


class BadScript(AgentError):
    """A verb that doesn't exist, or with arguments it doesn't take."""

    code = "bad_script"
    message = f"The scripted agent doesn't know this verb. It knows {_VERBS}."
    type = "invalid_request_error"


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class _Hang:
    """Go on only by being stopped, which then takes *cleanup* seconds."""

    cleanup: float = 0.0


@dataclass(frozen=True, slots=True)
class _Raise:
    error: Exception


_Step: TypeAlias = str | FunctionCallPiece | ReasoningPiece | Working | Finish | _Pause | _Hang | _Raise


class ScriptedAgent:
    """Answers as the module's text says.

    Args:
        model: Its name, as shown to clients.
        delay: Seconds before each piece of an echo, for a demonstration at a readable pace.

    Attributes:
        calls: How many turns were begun, since the object was made. Lets a test see that each ran once.
        running: How many turns run now.

    """

    def __init__(self, *, model: str = "scripted", delay: float = 0.0) -> None:
        self._model = model
        self._delay = delay
        self._is_ready = False
        self.calls = 0
        self.running = 0

    @property
    def model(self) -> str:
        """The name it was given."""
        return self._model

    @property
    def is_ready(self) -> bool:
        """Whether it was started."""
        return self._is_ready

    async def start(self) -> None:
        """Become ready. Nothing can go wrong."""
        self._is_ready = True

    async def stop(self) -> None:
        """Be no longer ready."""
        self._is_ready = False

    def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        """Answer *turn*.

        Raises:
            AgentNotReady: While iterating, outside start() and stop().
            BadScript: While iterating, for a script that can't be read. It is read whole, first.
            AgentError: While iterating, where the script says so.
            RuntimeError: While iterating, where the script says so: the one breach of the interface.

        """
        self.calls += 1
        return until_stop(self._respond(turn), turn.parameters.stop)

    async def _respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        if not self._is_ready:
            raise AgentNotReady
        self.running += 1
        try:
            words = sum(len(message.text.split()) for message in turn.messages)
            produced = 0
            finish: Finish | None = None
            for step in self._steps_of(turn):
                match step:
                    case _Pause(seconds):
                        await asyncio.sleep(seconds)
                    case _Hang(cleanup):
                        await _hang(cleanup)
                    case _Raise(error):
                        raise error
                    case Finish():
                        finish = step
                    case Working():
                        yield step
                    case str() | FunctionCallPiece() | ReasoningPiece() if produced == turn.max_output_tokens:
                        finish = Finish("max_output_tokens")
                        break
                    case str() | FunctionCallPiece() | ReasoningPiece():
                        await asyncio.sleep(0)
                        produced += 1
                        yield step
            yield Usage(input_tokens=words + len(turn.instructions.split()), output_tokens=produced)
            if finish is not None:
                yield finish
        finally:
            self.running -= 1

    def _steps_of(self, turn: TurnInput) -> Iterator[_Step]:
        returned = [item.output for item in _since_last_message(turn) if isinstance(item, FunctionOutput)]
        text = _last_user_text(turn)
        if text.startswith("/") and ("/then" in text or "/insist" in text):
            return _steps(_due(text, turn), self._delay)
        if returned:
            return _paced(_split(f"Returned: {', '.join(returned)}"), self._delay)
        return _steps(_last_user_text(turn), self._delay)


def answer_to(text: str) -> str:
    """Return the whole of what :class:`ScriptedAgent` answers to *text*, when nothing stops it early.

    Raises:
        BadScript: When *text* is a script that can't be read.

    """
    return "".join(step for step in _steps(text, 0.0) if isinstance(step, str))


async def _hang(cleanup: float) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        if cleanup:
            await asyncio.sleep(cleanup)


def _since_last_message(turn: TurnInput) -> list[FunctionCall | FunctionOutput]:
    since: list[FunctionCall | FunctionOutput] = []
    for item in reversed(turn.items):
        if isinstance(item, Message):
            break
        since.insert(0, item)
    return since


def _last_user_text(turn: TurnInput) -> str:
    return next((message.text for message in reversed(turn.messages) if message.role == "user"), "")


def _due(text: str, turn: TurnInput) -> str:
    """Return the part of a script whose turn it is: the calls above it have returned since it was sent."""
    returned = 0
    for item in reversed(turn.items):
        if isinstance(item, Message) and item.role == "user":
            break
        returned += isinstance(item, FunctionOutput)
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip() == "/then":
            parts.append([])
        else:
            parts[-1].append(line)
    for part in parts[:-1]:
        calls = sum(line.startswith(("/call", "/insist")) for line in part)
        if returned < calls:
            return "\n".join(part)
        returned -= calls
    return "\n".join(parts[-1])


def _steps(text: str, delay: float) -> Iterator[_Step]:
    """Return what to do, made piece by piece as it is asked for; *text* is checked whole, at once."""
    if text.startswith("/"):
        calls = count()
        return chain.from_iterable([_perform(line, calls) for line in text.splitlines() if line.strip()])
    return _paced(_split(f"You said: {text}" if text.strip() else "You said nothing."), delay)


def _perform(line: str, calls: Iterator[int]) -> Iterator[_Step]:
    """Return the steps of one line of a script; *calls* numbers the function calls."""
    match line.split():
        case ["/tokens", number]:
            return _words(_number(number))
        case ["/tokens", number, delay_ms]:
            return _paced(_words(_number(number)), _number(delay_ms) / 1000)
        case ["/say", _, *_]:
            return _split(line.split(maxsplit=1)[1])
        case ["/think", _, *_]:
            return map(ReasoningPiece, _split(line.split(maxsplit=1)[1]))
        case ["/call" | "/insist", name, *_]:
            rest = line.split(maxsplit=2)[2:]
            return _call(next(calls), name, rest[0] if rest else "{}")
        case ["/working", number, ms]:
            return _paced(repeat(Working(), _number(number)), _number(ms) / 1000)
        case ["/empty"]:
            return iter(())
        case ["/fail", *after]:
            error, after = _error(after)
            return chain(_words(_after(after)), [_Raise(error)])
        case ["/crash", *after]:
            return chain(_words(_after(after)), [_Raise(RuntimeError("the script says so"))])
        case ["/stall", *after]:
            return chain(_words(_after(after)), [_Hang()])
        case ["/slow-close", ms, *after]:
            return chain(_words(_after(after)), [_Hang(cleanup=_number(ms) / 1000)])
        case ["/length", number]:
            return chain(_words(_number(number)), [Finish("max_output_tokens")])
        case ["/filter", *after]:
            return chain(_words(_after(after)), [Finish("content_filter")])
        case _:
            raise BadScript


def _paced(steps: Iterable[_Step], seconds: float) -> Iterator[_Step]:
    for step in steps:
        if seconds:
            yield _Pause(seconds)
        yield step


def _split(text: str) -> Iterator[str]:
    return (match.group() for match in re.finditer(r"\S+\s*", text))


def _call(index: int, name: str, arguments: str) -> Iterator[FunctionCallPiece]:
    yield FunctionCallPiece(index, name=name)
    for start in range(0, len(arguments), _CALL_PIECE):
        yield FunctionCallPiece(index, arguments[start : start + _CALL_PIECE])


def _words(number_of: int) -> Iterator[str]:
    return (f"word{number}" if number == 1 else f" word{number}" for number in range(1, number_of + 1))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise BadScript
    return int(text)


def _after(words: list[str]) -> int:
    match words:
        case []:
            return 0
        case ["after", number]:
            return _number(number)
        case _:
            raise BadScript


def _error(words: list[str]) -> tuple[AgentError, list[str]]:
    if not words or words[0] == "after":
        return AgentError(), words
    for error in _ERRORS:
        if error.code == words[0]:
            return error(), words[1:]
    raise BadScript
