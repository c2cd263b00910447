from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.valkey import Server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("quota") / "data").running() as server:
        yield server
