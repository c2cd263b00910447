"""A Valkey Cluster of real servers, whose slots can be moved, and of which each may have a replica."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.crc import key_slot

from tests.fakes.surroundings import wait_until
from tests.fakes.valkey import Server

__all__ = ["ValkeyCluster"]

_SLOTS: Final = 16_384
_PRIMARIES: Final = 3


class ValkeyCluster:
    """Three servers that share the slots.

    Fault verbs: those of each server, :meth:`move` and :meth:`move_whole`.

    Args:
        folder: For their data.
        replicas: How many of the three have a replica: the first ones.
        options: More of each server's.

    """

    def __init__(self, folder: Path, *options: str, replicas: int = 0) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *options)
        options += ("--repl-diskless-sync-delay", "0")
        self.servers = [Server(folder / str(number), None, *options) for number in range(_PRIMARIES)]
        self.replicas = [Server(folder / f"replica{number}", None, *options) for number in range(replicas)]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    @property
    def _all(self) -> list[Server]:
        return [*self.servers, *self.replicas]

    @contextlib.contextmanager
    def running(self) -> Iterator[ValkeyCluster]:
        """Start them, have them meet, and end them in the end."""
        with contextlib.ExitStack() as stack:
            for server in self._all:
                stack.enter_context(server.running())
            for one, other in combinations(self._all, 2):  # who hears of another from a third takes seconds
                one.command("CLUSTER", "MEET", "127.0.0.1", str(other.port))
            bounds = [_SLOTS * number // _PRIMARIES for number in range(_PRIMARIES + 1)]
            for server, (begin, end) in zip(self.servers, pairwise(bounds), strict=True):
                server.command("CLUSTER", "ADDSLOTSRANGE", str(begin), str(end - 1))
            self._wait(self._is_whole, "the cluster does not form")
            for primary, replica in zip(self.servers, self.replicas, strict=False):
                # It may know its primary under a name for the time being only.
                wait_until(partial(_follows, replica, primary), "a replica can't follow")
            for primary in self.servers[: len(self.replicas)]:
                wait_until(partial(_has_replica, primary), "a replica doesn't follow")
            yield self

    def _wait(self, holds: Callable[[Server], bool], problem: str) -> None:
        for server in self._all:
            wait_until(lambda server=server: holds(server), problem)  # type: ignore[misc]

    def _is_whole(self, server: Server) -> bool:
        told = server.command("CLUSTER", "INFO")
        return b"cluster_state:ok" in told and b"cluster_known_nodes:%d\r" % len(self._all) in told

    def flush(self) -> None:
        """Delete all data."""
        for server in self.servers:
            server.command("FLUSHALL")

    def server_of(self, key: str) -> Server:
        """Return the server that had the slot of *key* in the beginning."""
        return self.servers[key_slot(key.encode()) * _PRIMARIES // _SLOTS]

    def replica_of(self, server: Server) -> Server:
        """Return a server's replica."""
        return self.replicas[self.servers.index(server)]

    @staticmethod
    def wait_until_promoted(replica: Server) -> None:
        """Return when a replica has its late primary's slots."""
        wait_until(
            lambda: b"role:master" in replica.command("INFO", "replication"), "the replica isn't promoted"
        )

    @staticmethod
    def slots_in_use(server: Server) -> list[int]:
        """Return the slots of all keys that a server has."""
        with _client(server) as client:
            return sorted({key_slot(key) for key in client.scan_iter(count=1000)})

    def move(
        self, slots: Iterable[int], source: Server, target: Server, *, halfway: Callable[[], None]
    ) -> int:
        """Move *slots* from server to server as resharding does it, and return how many keys they had.

        *halfway* is called when each slot has been announced, and half of what is in it has been moved.
        """
        moved, slots = 0, list(slots)
        with _client(source) as client:
            for slot in slots:
                target.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", _id_of(source))
                source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", _id_of(target))
                keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
                moved += _migrate(client, target, keys[: (len(keys) + 1) // 2])
            halfway()
            for slot in slots:
                while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                    moved += _migrate(client, target, keys)
                for server in (target, *(each for each in self.servers if each is not target)):
                    server.command("CLUSTER", "SETSLOT", str(slot), "NODE", _id_of(target))
        return moved

    def move_whole(self, slots: Sequence[int], source: Server, target: Server) -> None:
        """Move *slots* as Valkey 9 does by itself: each of them at once, when all that is in it is there."""
        with _client(source) as client:
            ranges = [bound for slot in slots for bound in ("SLOTSRANGE", slot, slot, "NODE", _id_of(target))]
            client.execute_command("CLUSTER", "MIGRATESLOTS", *ranges)
        wait_until(lambda: not set(slots) & set(self.slots_in_use(source)), "the slots don't move")


def _follows(replica: Server, primary: Server) -> bool:
    return replica.command("CLUSTER", "REPLICATE", _id_of(primary)) == b"+OK\r\n"


def _has_replica(primary: Server) -> bool:
    return b"state=online" in primary.command("INFO", "replication")


def _migrate(client: Any, target: Server, keys: list[bytes]) -> int:
    if keys:
        client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    return len(keys)


@contextlib.contextmanager
def _client(server: Server) -> Iterator[Any]:
    client = Redis(port=server.port)
    try:
        yield client
    finally:
        client.close()


def _id_of(server: Server) -> str:
    """Return how a server is called in its cluster."""
    return server.command("CLUSTER", "MYID").split(b"\r\n")[1].decode()
