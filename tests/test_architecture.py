"""The rules that keep the layout what ARCHITECTURE.md says it is."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
HALVES: Final = ("server", "sessions")
MODULES: Final = sorted(path for part in (*HALVES, "unbroken/client") for path in (ROOT / part).rglob("*.py"))
MOST_LINES: Final = 600

BANNED_NAMES: Final = {"util", "utils", "helper", "helpers", "manager", "common", "misc", "data", "info"}
"""Names that say nothing, and so collect everything."""

MAY_KEEP_STATE: Final[dict[str, set[str]]] = {}
"""Modules that may hold mutable state of the process, and in which names. None needs to."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def say_more_than_a_docstring() -> Iterator[Path]:
    for path in MODULES:
        if path.name != "__init__.py" or len(tree_of(path).body) > 1:
            yield path


@pytest.mark.whole
def test_imports_go_where_the_layers_allow() -> None:
    """The contracts are in pyproject.toml; import-linter checks them, as `make check` does by itself."""
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


# A rule is one test for all modules, which names those that break it.


def test_a_module_can_be_read_in_one_go() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}

    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_a_module_is_named_for_what_it_holds() -> None:
    found = [
        name_of(path) for path in MODULES if set(path.relative_to(ROOT).with_suffix("").parts) & BANNED_NAMES
    ]

    assert found == []


def says_what_it_is(path: Path) -> bool:
    docstring = ast.get_docstring(tree_of(path)) or ""
    return docstring.split("\n\n")[0].rstrip().endswith((".", ":", "::"))


def test_a_module_says_what_it_is() -> None:
    assert [name_of(path) for path in MODULES if not says_what_it_is(path)] == []


def taken_from_the_future(tree: ast.Module) -> list[str]:
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    return [alias.name for node in imports for alias in node.names]


def test_annotations_are_not_evaluated() -> None:
    taken = {name_of(path): taken_from_the_future(tree_of(path)) for path in say_more_than_a_docstring()}

    assert {name: names for name, names in taken.items() if names != ["annotations"]} == {}


def test_nothing_is_global() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Global)
    ]

    assert found == []


def mutable_in(tree: ast.Module) -> set[str]:
    mutable = (ast.List, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, mutable):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found - {"__all__"}


def test_a_module_s_own_names_hold_constants() -> None:
    """A mutable object beside ``Final`` constants and types would be a global by another name."""
    found = {
        name_of(path): mutable_in(tree_of(path)) - MAY_KEEP_STATE.get(name_of(path), set())
        for path in MODULES
    }

    assert {name: names for name, names in found.items() if names} == {}


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
            "erase",
            "export_transcripts",
            "keys",
            "list_keys",
            "list_transcripts",
            "new_key",
            "revoke_key",
            "serve",
            "transcripts",
            "usage",
        ),
    },
    "server/config.py": {"MASK"},
    "server/logs.py": {"MASK"},
    "server/process.py": {"log"},
}


def reexported_by(tree: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_what_a_module_offers_is_what_it_defines() -> None:
    unsaid, twice, withheld, missing = [], [], {}, {}
    for path in say_more_than_a_docstring():
        tree, name = tree_of(path), name_of(path)
        exported = exported_by(tree)
        if exported is None:
            unsaid.append(name)
            continue
        defined = defined_in(tree)
        if len(exported) != len(set(exported)):
            twice.append(name)
        withheld[name] = defined - set(exported) - INTERNAL.get(name, set())
        missing[name] = set(exported) - defined - reexported_by(tree)

    assert unsaid == [], "every module says what it offers"
    assert twice == []
    assert {name: names for name, names in withheld.items() if names} == {}
    assert {name: names for name, names in missing.items() if names} == {}, (
        "nothing is offered that isn't there"
    )


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


POSSESSIVE_GROUP: Final = re.compile(r"\)(?:[*+?]|\{[^{}]*\}{1,2})\+")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_pattern_repeats_a_group_possessively(path: Path) -> None:
    """CPython before 3.11.5 goes back into it (gh-106052). An atomic group is the same: ``(?>(?:...)*)``."""
    constants = [node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)]
    texts = [each.decode("latin-1") if isinstance(each, bytes) else each for each in constants]

    assert [text for text in texts if isinstance(text, str) and POSSESSIVE_GROUP.search(text)] == []
