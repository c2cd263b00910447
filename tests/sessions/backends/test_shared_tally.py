from __future__ import annotations

import pytest

from tests.fakes.tally import DistantTally, SharedTally
from tests.sessions.backends.tally_contract import TallyContract
from unbroken.sessions.backends.tally import Tally
from unbroken.sessions.ids import new_node_id


class SharedBooks:
    def __init__(self) -> None:
        self.shared = SharedTally(7)

    async def node(self) -> DistantTally:
        return self.shared.at(new_node_id())

    async def kill(self, tally: Tally) -> None:
        assert isinstance(tally, DistantTally)
        self.shared.bury(tally.node)

    async def lose(self) -> None:
        self.shared.lose()


class TestSharedTally(TallyContract):
    @pytest.fixture
    def books(self) -> SharedBooks:
        return SharedBooks()
