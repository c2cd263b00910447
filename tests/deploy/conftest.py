"""What the tests with balancers share: nodes that are started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.balanced import Nodes
from tests.fakes.valkey import Server


@pytest.fixture(scope="session")
def running_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three nodes over a Valkey. Whoever uses them mends them first."""
    folder: Path = tmp_path_factory.mktemp("nodes")
    with Server(folder / "valkey").running() as valkey:
        nodes = Nodes(
            folder,
            valkey.url,
            3,
            UNBROKEN_PING_INTERVAL="1",
            UNBROKEN_DRAIN_TIMEOUT="20",
            UNBROKEN_CONNECTIONS_PER_ADDRESS="8",
            UNBROKEN_MAX_FILE_BYTES="2MiB",
        )
        try:
            nodes.start()
            yield nodes
        finally:
            nodes.stop()
