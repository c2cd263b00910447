from __future__ import annotations

import pytest

from tests.sessions.backends.cluster_contract import ClusterContract
from tests.sessions.town import House, Town
from unbroken.sessions.backends.base import SessionStore
from unbroken.sessions.backends.cluster import Cluster


class TownStreet:
    """The nodes of a :class:`Town`, as the contract wants them."""

    def __init__(self) -> None:
        self.town = Town()
        self.store: SessionStore = self.town.memory

    def cluster(self) -> House:
        return House(self.town)

    async def kill(self, cluster: Cluster) -> None:
        assert isinstance(cluster, House)
        assert cluster.node is not None
        town = self.town
        del town.neighbours[cluster.node]
        town.lost.add(cluster.node)
        for neighbour in town.neighbours.values():
            neighbour.on_lost(cluster.node)


class TestTown(ClusterContract):
    @pytest.fixture
    def street(self) -> TownStreet:
        return TownStreet()
