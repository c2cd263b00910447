"""What is said in the docs is so: every setting, metric, error and close code, and the code in the README."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.metrics import MetricWrapperBase

from unbroken import __version__
from unbroken.server.agents import base
from unbroken.server.config import Settings, shown
from unbroken.server.errors import CLOSE_REASONS, ERROR_MEANINGS, CloseCode
from unbroken.server.metrics import Metrics

ROOT: Final = Path(__file__).parents[1]
OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text()
PROTOCOL: Final = (ROOT / "docs" / "protocol.md").read_text()
DOCUMENTS: Final = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
SOURCES: Final = [*(ROOT / "server").rglob("*.py"), *(ROOT / "sessions").rglob("*.py")]


def rows(text: str) -> dict[str, list[str]]:
    """Return all table rows whose first cell is code, by that code."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) > 1:
            found[cells[0].strip("`")] = cells[1:]
    return found


def test_every_setting_is_documented_with_its_default() -> None:
    documented, settings = rows(OPERATIONS), Settings()
    fields = {f"UNBROKEN_{name.upper()}": (name, field) for name, field in Settings.model_fields.items()}
    wanted = {row: [shown(name, settings), field.description] for row, (name, field) in fields.items()}

    assert {row: documented.get(row) for row in wanted} == wanted


def test_no_setting_is_documented_that_does_not_exist() -> None:
    known = {f"UNBROKEN_{name.upper()}" for name in Settings.model_fields} | {"UNBROKEN_CONFIG"}
    for document in DOCUMENTS:
        assert set(re.findall(r"UNBROKEN_[A-Z_]+[A-Z]", document.read_text())) <= known, document.name


def test_every_metric_is_documented() -> None:
    metrics = Metrics()
    names = {
        family.name + ("_total" if family.type == "counter" else ""): family.documentation
        for family in metrics.registry.collect()
    }
    kinds = ("unbroken_", "process_")
    documented = {name: cells for name, cells in rows(OPERATIONS).items() if name.startswith(kinds)}

    # Of the process, older systems don't tell everything.
    told = {name for name in documented if name in names or name.startswith("unbroken_")}
    assert {name: documented[name][2] for name in told} == names


def test_every_metric_is_documented_with_its_labels() -> None:
    """Those whose values are few and fixed have these in brackets, as the code writes them."""
    metrics = Metrics()
    labels = {
        name: metric._labelnames
        for metric, names in metrics.registry._collector_to_names.items()
        if isinstance(metric, MetricWrapperBase)
        for name in names
    }
    text = "".join(path.read_text() for path in SOURCES)

    for name, cells in rows(OPERATIONS).items():
        if name.startswith("unbroken_"):
            documented = re.findall(r"(\w+)(?: \(([^)]*)\))?", cells[1])
            assert tuple(label for label, _ in documented) == labels[name], name
            for value in ", ".join(values for _, values in documented if values).split(", "):
                assert not value or f'"{value}"' in text, f"{name}: {value}"


def test_every_error_code_is_documented_with_its_meaning() -> None:
    documented = rows(PROTOCOL)

    assert {code: documented[code][0] for code in ERROR_MEANINGS} == ERROR_MEANINGS


def test_every_error_code_that_is_raised_has_a_meaning() -> None:
    """Codes are the literal first arguments of what refuses, fails or answers."""
    makers = {
        "Refusal",
        "DecodeError",
        "ResponderError",
        "Failure",
        "Refused",
        "BadReference",
        "HttpRefusal",
        "error_frame",
        "_failed",
        "lone_error",
    }
    used: set[str] = set()
    for text in map(Path.read_text, SOURCES):
        if not any(f"{maker}(" in text for maker in makers):
            continue  # to read all takes seconds
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
                if name in makers:
                    used |= {
                        arg.value
                        for arg in node.args[:2]
                        if isinstance(arg, ast.Constant)
                        and isinstance(arg.value, str)
                        and re.fullmatch(r"[a-z]+(_[a-z]+)+", arg.value)
                    }
    used -= {"server_error", "invalid_request_error"}  # types, not codes
    agents = {
        cls.code for cls in vars(base).values() if isinstance(cls, type) and issubclass(cls, base.AgentError)
    }

    assert len(used) > 20
    assert used | agents <= set(ERROR_MEANINGS)


def test_every_close_code_is_documented() -> None:
    table = {cells[0] for line in PROTOCOL.splitlines() if (cells := line.strip("| ").split(" | "))}

    assert {str(int(code)) for code in CloseCode} <= table
    assert set(CLOSE_REASONS) == set(CloseCode)
    code = max(ERROR_MEANINGS, key=len)  # a reason may begin with one
    assert all(len(f"{code}: {reason}".encode()) <= 123 for reason in CLOSE_REASONS.values())  # RFC 6455, 5.5


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"


def test_paths_that_documents_name_exist() -> None:
    for document in DOCUMENTS:
        for path in re.findall(r"`((?:server|sessions|tests|docs)/[\w./-]*)`", document.read_text()):
            assert (ROOT / path).exists(), f"{document.name} names {path}"


def doors() -> list[str]:
    """Return what the README's table of doors names, as it names it."""
    table = (ROOT / "README.md").read_text().split("\n| door |")[1].split("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    return [door for cell in cells for door in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("door", doors())
def test_every_door_has_a_page_or_a_line_for_the_shell(door: str) -> None:
    """Pages are run by `conformance/test_documented_pages.py`, lines by `server/test_curl_lines.py`."""
    method, path = door.split() if " " in door else ("", door)
    is_socket = method == "WS"
    address = re.sub(r"\\\{\w+\\\}", r"[^/?\\s]+", re.escape(path)) + r"(?![\w/])"
    blocks = [
        block
        for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for kind, block in re.findall(r"```(sh|bash|html)\n(.*?)```", document.read_text(), re.DOTALL)
        if (kind == "html" or block.lstrip().startswith("curl")) and (not is_socket or "ws://" in block)
    ]

    assert any(re.search(address, block) for block in blocks)


def test_the_code_in_the_readme_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    assert len(blocks) == 3
    for block in blocks:
        compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_decisions_are_numbered_and_fit_a_page() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        assert len(path.read_text().splitlines()) <= 60, path.name


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert versions[0] == __version__


def test_nothing_names_a_machine_or_a_registry() -> None:
    """The repository speaks of the product only."""
    pattern = re.compile(
        r"(?<![\w/.])/(?:work|tmp|root|home)/\w|pypi\.org|pythonhosted|registry\.npmjs|deb\.debian"
    )
    packages = [
        ROOT / "tests" / "conformance" / "node" / name for name in ("package.json", "package-lock.json")
    ]
    sources = [*SOURCES, *(ROOT / "unbroken" / "client").rglob("*.py")]
    for path in [*DOCUMENTS, *sources, ROOT / "Makefile", *(ROOT / "requirements").iterdir(), *packages]:
        assert not pattern.search(path.read_text()), path.name
