"""All nodes are replaced, one after another, and nobody who is being answered notices more than a gap."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.rolling import restart_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLIENTS = 60


async def test_no_word_is_lost_and_every_turn_is_completed(tmp_path: Path) -> None:
    report = await restart_all(tmp_path, clients=CLIENTS)
    print(report.table())  # noqa: T201 - for a person
    report.must_be_whole()
