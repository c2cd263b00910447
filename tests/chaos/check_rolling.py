"""The rolling restart with as many clients as are promised, for `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.rolling import restart_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def test_two_hundred_clients_are_answered_over_a_rolling_restart(tmp_path: Path) -> None:
    report = await restart_all(tmp_path, clients=200)
    print(report.table())  # noqa: T201 - for a person
    report.must_be_whole()
