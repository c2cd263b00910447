"""What is checked, as the settings say: what comes in, and what may leave."""

from __future__ import annotations

import asyncio
from typing import Final

from unbroken.server.auth.directory import Directory
from unbroken.server.computing_threads import ComputingThreads, Way
from unbroken.server.config import Settings, StartupError
from unbroken.server.fair_names import FairName
from unbroken.server.files.base import FileStore
from unbroken.server.guards.canary import Canaries
from unbroken.server.guards.injection.attached import AttachedFiles
from unbroken.server.guards.injection.screening import Gate
from unbroken.server.guards.injection.selection import Surroundings, build_firewall
from unbroken.server.guards.injection.suspicion import MemorySuspicion, Suspicion
from unbroken.server.guards.leaks.filtering import LeakFiltering
from unbroken.server.guards.leaks.name_reading import NameReading
from unbroken.server.guards.leaks.selection import build_leak_policy, build_name_reading
from unbroken.server.guards.plan import PlanOf, plans_in
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import are_off
from unbroken.server.store_selection import RedisState
from unbroken.sessions.clock import Clock

__all__ = ["Guards"]


class Guards:
    """Both guards, and what one has the other look for.

    Args:
        settings: What the operator wants.
        secret: A key that all nodes have.
        directory: Knows who has which plan.
        metrics: Where figures go.
        clock: Where time comes from.
        shared: What nodes share. None: there is but this one.
        way: What makes way for threads. None: something of their own.
        files: Where those are that messages bring along. None: nowhere.
        fair_name: Says under which name a principal waits for its turn.

    """

    def __init__(
        self,
        settings: Settings,
        secret: bytes,
        directory: Directory,
        metrics: Metrics,
        clock: Clock,
        shared: RedisState | None = None,
        way: Way | None = None,
        files: FileStore | None = None,
        fair_name: FairName = str,
    ) -> None:
        way = way or Way()
        self._settings = settings
        self._threads = ComputingThreads(settings.firewall_threads, "guard", way)
        # Of the usual priority: what has a lower one would have the interpreter, and wait for a core with it.
        self._threads_aside = ComputingThreads(settings.firewall_threads, "guard-aside", way)
        self._threads_heavy = ComputingThreads(1, "guard-heavy", way)
        plan_of = plans_in(directory)
        suspicion = _suspicion(shared, clock)
        self._around = Surroundings(
            suspicion,
            self._threads,
            self._threads_aside,
            self._threads_heavy,
            metrics,
            clock,
            fair_name=fair_name,
        )
        attached = AttachedFiles(
            files, most=settings.max_turn_file_bytes, timeout=settings.firewall_timeout
        )  # more text than a turn may be given needn't be looked at
        self.gate: Final = Gate(frozenset(settings.firewall_trusted_tools), attached, plan_of)
        """What comes in. Everything passes until :meth:`open` has returned."""
        self.canaries: Final = Canaries(secret) if settings.canaries else None
        """Marks in sessions' instructions. None: there are none."""
        self._reading = build_name_reading(settings, metrics, way, fair_name)
        self.leaks: Final = _filtering(
            settings, secret, plan_of, self.canaries, metrics, clock, self._reading
        )
        """What may leave. None: everything."""

    async def open(self) -> None:
        """Load the models, each in the thread that will run it.

        Raises:
            StartupError: One of them can't be used.

        """
        try:
            self.gate.firewall = await asyncio.get_running_loop().run_in_executor(
                self._threads, build_firewall, self._settings, self._around
            )
            if self._reading is not None:
                await _load(self._reading)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Release everything."""
        if (firewall := self.gate.firewall) is not None:
            await firewall.close()
        if self._reading is not None:
            await self._reading.recogniser.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads_aside.shutdown(wait=False, cancel_futures=True)
        self._threads_heavy.shutdown(wait=False, cancel_futures=True)


async def _load(reading: NameReading) -> None:
    try:
        await reading.recogniser.start()
    except Exception as exc:  # noqa: BLE001 - the library's own, and none of them is documented
        message = f"The model that reads names can't be loaded ({type(exc).__qualname__}). Install it again: "
        raise StartupError(f"{message}pip install --force-reinstall 'unbroken[names]'") from None


def _suspicion(shared: RedisState | None, clock: Clock) -> Suspicion:
    if shared is None:
        return MemorySuspicion(clock)
    from unbroken.server.guards.injection.redis import RedisSuspicion

    return RedisSuspicion(shared.client, shared.keys, clock)


def _filtering(
    settings: Settings,
    secret: bytes,
    plan_of: PlanOf,
    canaries: Canaries | None,
    metrics: Metrics,
    clock: Clock,
    reading: NameReading | None,
) -> LeakFiltering | None:
    if are_off(settings.leaks):
        return None

    def count(entity: str, action: str, times: int) -> None:
        metrics.leaks.labels(entity, action).inc(times)

    return LeakFiltering(build_leak_policy(settings, secret, plan_of, count, canaries), clock, reading)
