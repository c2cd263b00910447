"""A plugin for pytest that writes the table of clients, where ``--clients-table`` says."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from tests.conformance.clients import rendered

__all__ = ["pytest_addoption", "pytest_configure"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--clients-table", type=Path, help="where to write which client can do what")


def pytest_configure(config: pytest.Config) -> None:
    target: Path | None = config.getoption("--clients-table")
    if target is not None:
        config.pluginmanager.register(_Record(target))


_MARK: Final = "client"
_PHASES: Final = {"setup", "call", "teardown"}


class _Record:
    """Notes the ends of marked tests. One that fails, or isn't run to its end, fails its cells."""

    def __init__(self, target: Path) -> None:
        self._target: Final = target
        # Of each cell's tests, which phases have passed: one that takes its worker along has no last.
        self._passed: dict[tuple[str, str], dict[str, set[str]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        for mark in item.iter_markers("client"):
            client, *features = mark.args
            report.user_properties += [(_MARK, f"{client}\n{feature}") for feature in features]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test has shown: with several workers, in the process that has them all."""
        for name, value in report.user_properties:
            if name == _MARK:
                client, _, feature = str(value).partition("\n")
                passed = self._passed.setdefault((client, feature), {}).setdefault(report.nodeid, set())
                if report.passed:
                    passed.add(report.when)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        is_worker = hasattr(session.config, "workerinput")
        if not is_worker and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self._target.write_text(rendered(self._covered()))  # else they weren't all run

    def _covered(self) -> dict[tuple[str, str], bool]:
        return {
            cell: all(passed == _PHASES for passed in tests.values()) for cell, tests in self._passed.items()
        }
