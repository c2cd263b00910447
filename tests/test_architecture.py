"""The rules that keep the layout what ARCHITECTURE.md says it is."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
HALVES: Final = ("server", "sessions")
MODULES: Final = sorted(path for half in HALVES for path in (ROOT / half).rglob("*.py"))
MOST_LINES: Final = 600

BANNED_NAMES: Final = {"util", "utils", "helper", "helpers", "manager", "common", "misc", "data", "info"}
"""Names that say nothing, and so collect everything."""

MAY_KEEP_STATE: Final[dict[str, set[str]]] = {}
"""Modules that may hold mutable state of the process, and in which names. None needs to."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_module: Final = pytest.mark.parametrize("path", MODULES, ids=name_of)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_imports_go_where_the_layers_allow() -> None:
    """The contracts are in pyproject.toml; import-linter checks them."""
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [script, "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 40


@every_module
def test_a_module_can_be_read_in_one_go(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@every_module
def test_a_module_is_named_for_what_it_holds(path: Path) -> None:
    assert not set(path.with_suffix("").parts) & BANNED_NAMES


@every_module
def test_a_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path))

    assert docstring
    assert docstring.split("\n\n")[0].rstrip().endswith((".", ":", "::"))


@every_module
def test_annotations_are_not_evaluated(path: Path) -> None:
    tree = tree_of(path)
    if path.name == "__init__.py" and len(tree.body) == 1:
        return  # a docstring alone
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]

    assert [alias.name for node in imports for alias in node.names] == ["annotations"]


@every_module
def test_nothing_is_global(path: Path) -> None:
    found = [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, ast.Global)]

    assert found == []


@every_module
def test_a_module_s_own_names_hold_constants(path: Path) -> None:
    """A mutable object beside ``Final`` constants and types would be a global by another name."""
    mutable = (ast.List, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    found: set[str] = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, mutable):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    found -= {"__all__"}

    assert found <= MAY_KEEP_STATE.get(name_of(path), set())


def defined_in(tree: ast.Module) -> set[str]:
    """Return the public names that a module defines itself; what it imports aside."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return {name for name in names if not name.startswith("_")}


def exported_by(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


INTERNAL: Final = {
    # Of use to their own module and its tests, and nobody else's.
    "sessions/event_log.py": {"Run"},
    "server/agents/embedded.py": {"PACKAGED_MODEL", "WEIGHTS_PACKAGE"},
    "server/agents/llama.py": {"Bill", "Choice", "Delta"},
    "server/cli.py": {
        *(
            "check_config",
            "create_key",
            "drain",
            "keys",
            "list_keys",
            "new_key",
            "revoke_key",
            "serve",
            "usage",
        ),
    },
    "server/config.py": {"MASK"},
    "server/logs.py": {"MASK"},
    "server/process.py": {"log"},
}


@every_module
def test_what_a_module_offers_is_what_it_defines(path: Path) -> None:
    tree = tree_of(path)
    if path.name == "__init__.py" and len(tree.body) == 1:
        return
    exported = exported_by(tree)
    assert exported is not None, "every module says what it offers"
    reexported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert len(exported) == len(set(exported))
    assert defined_in(tree) - set(exported) <= INTERNAL.get(name_of(path), set())
    assert set(exported) <= defined_in(tree) | reexported, "nothing is offered that isn't there"


def test_exceptions_to_the_rules_are_still_needed() -> None:
    for name, excepted in INTERNAL.items():
        tree = tree_of(ROOT / name)
        assert excepted <= defined_in(tree) - set(exported_by(tree) or ())


def test_the_tests_import_the_code_by_its_installed_name() -> None:
    """Imported as ``server`` and as ``unbroken.server``, a module would exist twice."""
    found: list[str] = []
    for path in [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.py")]:
        for line, text in enumerate(path.read_text().splitlines(), 1):
            if text.lstrip().startswith(("import ", "from ")) and text.split()[1].split(".")[0] in HALVES:
                found.append(f"{path}:{line}")

    assert found == []
