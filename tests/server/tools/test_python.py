from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from unbroken.server.tools.base import ToolContext, ToolFailed, ToolsUnusable
from unbroken.server.tools.python import PythonTools, ToolFunction, tool

CALL = ToolContext(key="item_1", session_id="sess_1", principal="ada")


class Unit(enum.Enum):
    CELSIUS = "celsius"


class Place(BaseModel):
    city: str
    country: str = "DE"


async def weather(
    place: Place,
    days: Annotated[int, Field(ge=1, description="How many.")] = 1,
    unit: Unit | None = None,
    how: Literal["short", "long"] = "short",
) -> dict[str, Any]:
    """Say how the weather will be."""
    return {"city": place.city, "country": place.country, "days": days, "unit": unit, "how": how}


async def started(*functions: ToolFunction, **options: Any) -> PythonTools:
    tools = PythonTools(functions, **options)
    await tools.start()
    return tools


async def test_annotations_make_the_schema_and_check_arguments() -> None:
    tools = await started(weather)
    (offered,) = tools.tools
    result = await tools.run(offered, {"place": {"city": "Ulm"}, "days": 2, "unit": "celsius"}, CALL)

    assert (offered.name, offered.description) == ("weather", "Say how the weather will be.")
    assert offered.parameters["required"] == ["place"]
    assert offered.parameters["properties"]["days"] == {
        "default": 1,
        "description": "How many.",
        "minimum": 1,
        "title": "Days",
        "type": "integer",
    }
    assert result == '{"city":"Ulm","country":"DE","days":2,"unit":"celsius","how":"short"}'
    with pytest.raises(ToolFailed, match=r"nothing was done. place: Field required; days: "):
        await tools.run(offered, {"days": 0}, CALL)


async def test_what_is_said_of_a_function_holds() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}

    @tool(name="double", description="Twice.", parameters=schema, needs_approval=True, timeout=3)
    async def function(call: ToolContext, **arguments: Any) -> str:
        return f"{call.key} {call.principal} {arguments['n'] * 2}"

    tools = await started(function)
    (offered,) = tools.tools

    assert (offered.name, offered.description, offered.parameters) == ("double", "Twice.", schema)
    assert (offered.needs_approval, offered.timeout) == (True, 3)
    assert await tools.run(offered, {"n": 21}, CALL) == "item_1 ada 42"


async def test_targets_are_functions_and_lists(tmp_path: Path) -> None:
    (tmp_path / "own_tools.py").write_text(
        "async def one() -> str:\n    return 'first'\n\n"
        "async def two() -> str:\n    return 'second'\n\nboth = [one, two]\n"
    )
    one = await started(targets=["own_tools:one"], directory=tmp_path)
    await one.stop()
    both = await started(targets=["own_tools:both"], directory=tmp_path)
    names = [each.name for each in both.tools]
    result = await both.run(both.tools[1], {}, CALL)
    await both.stop()

    assert (names, result) == (["one", "two"], "second")
    assert one.tools == both.tools == []


def plain() -> str:
    return ""


async def untyped(x) -> str:  # type: ignore[no-untyped-def]
    return ""


async def positional(x: int, /) -> str:
    return ""


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        ([plain], "'plain' is no tool: write it as 'async def plain"),
        ([untyped], "The parameter 'x' of the tool 'untyped' needs an annotation"),
        ([positional], "must take its arguments by name: 'x' isn't one"),
        ([weather, weather], "two tools of the name 'weather'"),
    ],
)
async def test_what_can_be_no_tool_is_said_at_the_start(functions: list[Any], problem: str) -> None:
    with pytest.raises(ToolsUnusable, match=problem):
        await started(*functions)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no_such_module_here:f", "There is no module 'no_such_module_here'"),
        ("json:no_such_tool", "The module 'json' has no 'no_such_tool'"),
    ],
)
async def test_a_target_that_isnt_there_is_said_at_the_start(
    target: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ToolsUnusable, match=problem):
        await started(targets=[target], directory=tmp_path)
