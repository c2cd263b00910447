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


class _Record:
    """Notes the ends of marked tests. One that fails, or isn't run to its end, fails its cells."""

    def __init__(self, target: Path) -> None:
        self._target: Final = target
        self._covered: dict[tuple[str, str], bool] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        for mark in item.iter_markers("client"):
            client, *features = mark.args
            for feature in features:
                before = self._covered.get((client, feature), True)
                self._covered[client, feature] = before and report.passed
        return report

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # else they weren't all run
            self._target.write_text(rendered(self._covered))
