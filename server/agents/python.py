"""An agent that is the user's own Python: one async generator function.

It is named ``module:function``. The module is looked for where Python looks
anyway and then in the working directory, in that order: a user's ``email.py``
must not replace the standard library's for the whole server. The function
takes a :class:`~unbroken.server.agents.base.TurnInput` and yields what any
agent may yield, most of all ``str``::

    async def answer(turn):
        for word in turn.messages[-1].text.split():
            yield word + " "

It runs in the server's event loop, so it must await whatever takes time. When
the turn is cancelled, ``CancelledError`` or ``GeneratorExit`` is raised where
it waits; it may clean up in ``finally``, and must not yield there.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.agents.base import (
    AgentError,
    AgentNotReady,
    AgentOutput,
    Finish,
    FunctionCallPiece,
    Handle,
    ReasoningPiece,
    TurnInput,
    Usage,
    Working,
)
from unbroken.server.agents.stops import until_stop

__all__ = ["AgentFunction", "InvalidTarget", "PythonAgent", "import_module"]

AgentFunction: TypeAlias = Callable[[TurnInput], AsyncGenerator[AgentOutput, None]]

_log: FilteringBoundLogger = structlog.get_logger(__name__)
_OUTPUT_TYPES: Final = (str, FunctionCallPiece, ReasoningPiece, Working, Usage, Handle, Finish)


class InvalidTarget(AgentError):
    """What was named as ``module:function`` can't be used. The text, for the operator, says what to do."""

    code = "agent_target_invalid"
    message = "The agent's code can't be used."


class PythonAgent:
    """Runs a user's async generator function.

    Args:
        target: ``module:function``.
        model: Its name, as shown to clients. Left out: the target.
        directory: Where the module may be, besides the places Python knows.
            Left out: the working directory at :meth:`start`.

    """

    def __init__(self, target: str, *, model: str | None = None, directory: Path | None = None) -> None:
        self._target = target
        self._model = model or target
        self._directory = directory
        self._function: AgentFunction | None = None
        self._appended: str | None = None  # what start() put on sys.path; None when it was there already

    @property
    def model(self) -> str:
        """The name it was given, or else the target."""
        return self._model

    @property
    def is_ready(self) -> bool:
        """Whether the function has been loaded."""
        return self._function is not None

    async def start(self) -> None:
        """Import the module and find the function.

        The import runs in the event loop's own thread, where modules expect to
        be imported; nothing else is served yet.

        Raises:
            InvalidTarget: In one line, with what to do.

        """
        directory = str((self._directory or Path.cwd()).resolve())
        if self._appended is None and directory not in sys.path:
            sys.path.append(directory)
            self._appended = directory
        try:
            self._function = _load(self._target, directory)
        except InvalidTarget:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Forget the function, and leave the import path as it was."""
        self._function = None
        if self._appended is not None:
            with suppress(ValueError):
                sys.path.remove(self._appended)
            self._appended = None

    def respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        """Answer *turn* with what the function yields, which needn't look for the turn's stop texts.

        Raises:
            AgentNotReady: Outside start() and stop().
            AgentError: Those that the function raises, as they are. In place
                of any other exception, which is logged with its traceback, and
                when it yields something that isn't an output.

        """
        return until_stop(self._respond(turn), turn.parameters.stop)

    async def _respond(self, turn: TurnInput) -> AsyncGenerator[AgentOutput, None]:
        if self._function is None:
            raise AgentNotReady
        answer = self._function(turn)
        try:
            async for output in answer:
                if not isinstance(output, _OUTPUT_TYPES):
                    _log.error(
                        "agent function yielded what it may not",
                        agent=self._target,
                        yielded=type(output).__name__,
                        allowed="str, FunctionCallPiece, ReasoningPiece, Working, Usage, Handle, Finish",
                    )
                    raise AgentError
                yield output
        except AgentError:
            raise
        except Exception as error:  # noqa: BLE001 - it is code that isn't ours
            _log.exception("agent function failed", agent=self._target, error=type(error).__name__)
            failure = AgentError()
        else:
            return
        finally:
            await self._close(answer)
        # Outside the handler, so that it doesn't carry the user's exception along.
        raise failure

    async def _close(self, answer: AsyncGenerator[AgentOutput, None]) -> None:
        try:
            await answer.aclose()
        except Exception as error:  # noqa: BLE001 - as above; what ended the turn must stay what is raised
            _log.exception(
                "agent function failed to clean up", agent=self._target, error=type(error).__name__
            )


def _load(target: str, directory: str) -> AgentFunction:
    module_name, colon, function_name = target.partition(":")
    if not (colon and module_name and function_name):
        raise InvalidTarget(
            f"{target!r} is no agent: write it as module:function, for example my_agent:answer."
        )
    if module_name.endswith(".py"):
        raise InvalidTarget(f"{target!r} names a file: write the module's name, without '.py'.")
    module = import_module(module_name, directory)
    function: Any = getattr(module, function_name, None)
    if function is None:
        raise InvalidTarget(f"{_place(module, directory)} has no {function_name!r}.")
    if not inspect.isasyncgenfunction(function):
        raise InvalidTarget(
            f"{target!r} is not an async generator function: "
            "write it as 'async def answer(turn):' with a 'yield' in it."
        )
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise InvalidTarget(f"{target!r} must take one argument, the turn.") from None
    loaded: AgentFunction = function
    return loaded


def import_module(name: str, directory: str) -> ModuleType:
    """Import a module that Python knows, or that is in *directory*, which is on its path.

    Raises:
        InvalidTarget: In one line, with what to do.

    """
    importlib.invalidate_caches()  # the file may be younger than the last look into its directory
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            text = f"There is no module {missing!r}, neither installed nor in {directory}."
        else:
            text = f"Importing {name!r} failed: it needs the module {missing!r}, which isn't installed."
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything
        text = f"Importing {name!r} failed: {_in_one_line(error)}{_line_of(error)}."
    raise InvalidTarget(text)


def _place(module: ModuleType, directory: str) -> str:
    """Return what to call *module*, and a warning when it is not the one that was meant."""
    file = getattr(module, "__file__", None)
    place = f"The module {module.__name__!r} ({file or 'built in'})"
    own = Path(directory, *module.__name__.split(".")).with_suffix(".py")
    if own.exists() and (file is None or not own.samefile(file)):
        return f"{place}, found before your {own.name}, which needs another name,"
    return place


def _in_one_line(error: BaseException) -> str:
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    return f"{type(error).__name__}: {' '.join(text.split())}" if text else type(error).__name__


def _line_of(error: BaseException) -> str:
    """Return the innermost place that *error* came through, as far as it is known."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
