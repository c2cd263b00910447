"""Tools that are the user's own Python: async functions.

::

    async def get_weather(city: str, days: int = 1) -> str:
        '''Say how the weather will be.'''
        ...

    @tool(needs_approval=True, timeout=10)
    async def send_mail(to: str, text: str, call: ToolContext) -> str: ...

The name and the docstring are what the model is told, and the annotations make
the schema: arguments that don't fit never reach the function. A parameter named
``call`` gets the :class:`~unbroken.server.tools.base.ToolContext`. With
``parameters`` given, they are the schema as it is, and the function checks its
arguments itself. What it returns is the result: a string as it is, anything
else as JSON. It raises ``ToolFailed`` for what the model should read.

They run in the server's event loop, so they must await whatever takes time.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

import pydantic
import pydantic_core

from unbroken.server.agents.python import InvalidTarget, import_module
from unbroken.server.tools.base import Tool, ToolContext, ToolFailed, ToolsUnusable

__all__ = ["LABEL", "PythonTools", "ToolFunction", "tool"]

LABEL: Final = "tools"
"""What the set of Python's tools is called."""

ToolFunction = Callable[..., Awaitable[object]]
_Function = TypeVar("_Function", bound=ToolFunction)

_MARK: Final = "__unbroken_tool__"
_CONTEXT: Final = "call"
_WHY: Final = 1000
"""Characters of what is wrong with arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marked:
    name: str | None
    description: str | None
    parameters: Mapping[str, Any] | None
    needs_approval: bool
    timeout: float | None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A tool with the function that it is."""

    tool: Tool
    function: ToolFunction
    model: type[pydantic.BaseModel] | None
    """Of its arguments. None: it checks them itself."""
    takes_context: bool


def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    needs_approval: bool = False,
    timeout: float | None = None,
) -> Callable[[_Function], _Function]:
    """Say of an async function what its name, docstring and annotations don't.

    Args:
        name: What the model calls it. None: the function's name.
        description: What it does. None: the docstring.
        parameters: A JSON schema of an object. None: from the annotations.
        needs_approval: Whether the user has to approve of each call.
        timeout: Seconds that a call may take. None: ``UNBROKEN_TOOL_TIMEOUT``.

    """
    marked = _Marked(
        name=name,
        description=description,
        parameters=parameters,
        needs_approval=needs_approval,
        timeout=timeout,
    )

    def mark(function: _Function) -> _Function:
        setattr(function, _MARK, marked)
        return function

    return mark


class PythonTools:
    """A set of functions.

    Args:
        functions: Functions, beside those that *targets* name.
        targets: ``module:object`` each; the object is a function or a list of them.
        directory: Where the modules may be, besides the places Python knows. None: the
            working directory at :meth:`start`.

    """

    def __init__(
        self,
        functions: Sequence[ToolFunction] = (),
        *,
        targets: Sequence[str] = (),
        directory: Path | None = None,
    ) -> None:
        self._functions = tuple(functions)
        self._targets = tuple(targets)
        self._directory = directory
        self._loaded: dict[str, _Loaded] = {}
        self._appended: str | None = None  # what start() put on sys.path; None when it was there already

    @property
    def label(self) -> str:
        """The same for all: they are one set."""
        return LABEL

    @property
    def tools(self) -> Sequence[Tool]:
        """The functions, in order."""
        return [loaded.tool for loaded in self._loaded.values()]

    async def start(self) -> None:
        """Import the modules and read the functions.

        Raises:
            ToolsUnusable: In one line, with what to do.

        """
        directory = str((self._directory or Path.cwd()).resolve())
        if self._targets and directory not in sys.path:
            sys.path.append(directory)
            self._appended = directory
        try:
            functions = [*self._functions]
            for target in self._targets:
                functions += _functions_of(target, directory)
            for function in functions:
                loaded = _load(function)
                if loaded.tool.name in self._loaded:
                    raise ToolsUnusable(f"There are two tools of the name {loaded.tool.name!r}: rename one.")
                self._loaded[loaded.tool.name] = loaded
        except ToolsUnusable as exc:
            await self.stop()
            if self._targets:
                raise ToolsUnusable(f"UNBROKEN_TOOLS ({', '.join(self._targets)}): {exc}") from None
            raise

    async def stop(self) -> None:
        """Forget the functions, and leave the import path as it was."""
        self._loaded.clear()
        if self._appended is not None:
            with suppress(ValueError):
                sys.path.remove(self._appended)
            self._appended = None

    async def run(self, tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """See :meth:`Toolset.run`."""
        loaded = self._loaded[tool.name]
        given = dict(arguments) if loaded.model is None else _checked(loaded.model, arguments)
        if loaded.takes_context:
            given[_CONTEXT] = context
        result = await loaded.function(**given)
        return result if isinstance(result, str) else pydantic_core.to_json(result).decode()


def _checked(model: type[pydantic.BaseModel], arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        checked = model.model_validate(arguments)
    except pydantic.ValidationError as exc:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
            for problem in exc.errors(include_url=False, include_input=False)
        )
        raise ToolFailed(f"The arguments don't fit, nothing was done. {problems}"[:_WHY]) from None
    return {name: getattr(checked, name) for name in type(checked).model_fields}


def _functions_of(target: str, directory: str) -> list[ToolFunction]:
    module_name, _, name = target.partition(":")
    try:
        module = import_module(module_name, directory)
    except InvalidTarget as exc:
        raise ToolsUnusable(str(exc)) from None
    found: Any = getattr(module, name, None)
    if found is None:
        raise ToolsUnusable(f"The module {module_name!r} has no {name!r}.")
    return list(found) if isinstance(found, list | tuple) else [found]


def _load(function: ToolFunction) -> _Loaded:
    what = getattr(function, "__name__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise ToolsUnusable(f"{what!r} is no tool: write it as 'async def {what}(...)', without a 'yield'.")
    marked: _Marked = getattr(
        function,
        _MARK,
        _Marked(name=None, description=None, parameters=None, needs_approval=False, timeout=None),
    )
    parameters = dict(inspect.signature(function).parameters)
    takes_context = parameters.pop(_CONTEXT, None) is not None
    model = None if marked.parameters is not None else _model_of(what, function, parameters)
    schema = dict(marked.parameters or {}) if model is None else model.model_json_schema()
    schema.pop("title", None)
    return _Loaded(
        Tool(
            name=marked.name or what,
            description=marked.description or inspect.getdoc(function),
            parameters=schema,
            needs_approval=marked.needs_approval,
            timeout=marked.timeout,
        ),
        function,
        model,
        takes_context,
    )


def _model_of(
    what: str, function: ToolFunction, parameters: Mapping[str, inspect.Parameter]
) -> type[pydantic.BaseModel]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as exc:
        raise ToolsUnusable(f"The annotations of {what!r} can't be read: {exc}.") from None
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ToolsUnusable(f"The tool {what!r} must take its arguments by name: {name!r} isn't one.")
        if name not in hints:
            raise ToolsUnusable(f"The parameter {name!r} of the tool {what!r} needs an annotation.")
        fields[name] = (hints[name], ... if parameter.default is parameter.empty else parameter.default)
    try:
        model: type[pydantic.BaseModel] = pydantic.create_model(
            what, __config__=pydantic.ConfigDict(extra="forbid"), **fields
        )
        model.model_json_schema()
    except (pydantic.PydanticUserError, pydantic_core.SchemaError, NameError, TypeError) as exc:
        first = str(exc).partition("\n")[0]
        raise ToolsUnusable(f"The annotations of {what!r} make no schema: {first}") from None
    return model
