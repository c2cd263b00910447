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
            report.user_properties += [(_MARK, f"{client}\n{feature}") for feature in features]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test has shown: with several workers, in the process that has them all."""
        for name, value in report.user_properties:
            if name == _MARK:
                client, _, feature = str(value).partition("\n")
                before = self._covered.get((client, feature), True)
                self._covered[client, feature] = before and report.passed

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        is_worker = hasattr(session.config, "workerinput")
        if not is_worker and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self._target.write_text(rendered(self._covered))  # else they weren't all run
