"""Random interleavings on several nodes, against a model that knows nothing of slices, and of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from tests.fakes.valkey import Server
from unbroken.server.quota.base import Amount, Ledger, Scope
from unbroken.server.quota.memory import MemoryLedger
from unbroken.server.quota.redis import RedisLedger
from unbroken.sessions.backends.redis.connection import Address, connect

LIMITS: Final = {
    "t": {"rm": 12, "tm": 500, "cd": 900, "turns": 6},
    "u": {"rm": 6, "td": 400, "turns": 3},
    "a": {"tm": 300},
}
LIFETIME: Final = 300.0
WINDOWS: Final = {"m": (60.0, 5.0), "d": (86_400.0, 3600.0)}

amounts = st.integers(0, 200)
turns = st.sampled_from([f"{user}{number}" for user in "ab" for number in range(8)])
nodes = st.integers(0, 3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), nodes, turns, amounts, amounts),
        st.tuples(st.just("hold"), nodes, turns, amounts, amounts),
        st.tuples(st.just("begin"), nodes, turns, amounts, amounts),
        st.tuples(st.just("keep"), nodes, turns, st.sampled_from([60, 300]), st.just(0)),
        st.tuples(st.just("settle"), nodes, turns, amounts, amounts),
        st.tuples(st.just("release"), nodes, turns, st.just(0), st.just(0)),
        st.tuples(
            st.just("pass"), nodes, st.just("a0"), st.sampled_from([1, 4, 31, 61, 200, 301]), st.just(0)
        ),
        st.tuples(st.just("pass"), nodes, st.just("a0"), st.sampled_from([3500, 40_000]), st.just(0)),
    ),
    max_size=25,
)


def scopes_of(turn: str) -> tuple[Scope, ...]:
    """The first turns come from an address, the others from this machine."""
    mine = (Scope("t"), Scope("u", turn[0]))
    return (*mine, Scope("a", "7f")) if int(turn[1]) < 4 else mine


@dataclass
class Granted:
    """A turn that has a budget: when which of it was taken."""

    scopes: tuple[Scope, ...]
    until: float
    request: float | None
    parts: list[list[float]] = field(default_factory=list)  # when, tokens, cost
    is_open: bool = True

    def total(self, which: int) -> float:
        return sum(part[which] for part in self.parts)


class Model:
    """Every amount with its time: what is in a window is counted one by one."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.turns: dict[str, Granted] = {}
        self.gone: list[Granted] = []  # of which only requests are left
        self.over: set[str] = set()  # codes that settling may have taken beyond a limit

    def lapse(self) -> None:
        now = self.clock.now
        for turn, granted in list(self.turns.items()):
            if granted.until <= now:
                del self.turns[turn]
                if granted.is_open:
                    granted.parts.clear()
                    granted.is_open = False
                self.gone.append(granted)

    def used(self, scope: Scope, code: str, slack: float = 0.0) -> float:
        known = [g for g in (*self.turns.values(), *self.gone) if scope in g.scopes]
        if code == "turns":
            return sum(g.is_open for g in known)
        since = self.clock.now - WINDOWS[code[1]][0] - slack
        if code[0] == "r":
            return sum(g.request is not None and g.request > since for g in known)
        which = 1 if code[0] == "t" else 2
        return sum(part[which] for g in known for part in g.parts if part[0] > since)

    def would_fit(self, scopes: tuple[Scope, ...], wanted: dict[str, float], *, slack: bool) -> bool:
        for scope in scopes:
            for code, limit in LIMITS[scope.kind].items():
                more = wanted.get(code if code == "turns" else code[0], 0)
                late = 0.0 if code == "turns" or not slack else WINDOWS[code[1]][1] * 2
                if more and self.used(scope, code, late) + more > limit:
                    return False
        return True

    def take(self, granted: Granted, tokens: float, cost: float) -> None:
        granted.parts.append([self.clock.now, tokens, cost])

    @staticmethod
    def give_back(granted: Granted, which: int, amount: float) -> None:
        for part in sorted(granted.parts, reverse=True, key=lambda part: part[0]):
            back = min(amount, part[which])
            part[which] -= back
            amount -= back


async def walk(clock: FakeClock, ledgers: list[Ledger], tenant: str, script: list[Any]) -> list[object]:
    """Take all steps, and compare each answer with what the model allows. Return what was answered."""
    model, said = Model(clock), []
    for op, node, turn, tokens, cost in script:
        if op == "pass":
            clock.advance(tokens)
            continue
        model.lapse()
        ledger, scopes, known = ledgers[node], scopes_of(turn), model.turns.get(turn)
        amount = Amount(tokens, cost)
        if op == "reserve":
            decision = await ledger.reserve(tenant, turn, scopes, LIMITS, amount, lifetime=LIFETIME)
            said.append(decision)
            if known is not None:
                assert not decision.is_new
                assert decision.denied is None
                continue
            wanted = {"r": 1, "t": tokens, "c": cost, "turns": 1}
            if decision.denied is None:
                assert model.would_fit(scopes, wanted, slack=False), "more was granted than may be"
                granted = model.turns[turn] = Granted(scopes, clock.now + LIFETIME, clock.now)
                model.take(granted, tokens, cost)
            else:
                assert not model.would_fit(scopes, wanted, slack=True), "it was refused in vain"
        elif op in ("hold", "begin"):
            as_new = op == "begin"
            decision = await ledger.hold(
                tenant, turn, scopes, LIMITS, amount, lifetime=LIFETIME, as_new=as_new
            )
            said.append(decision)
            if known is not None and not known.is_open:
                continue
            granted = known or Granted(scopes, 0, None)
            more = max(0, tokens - granted.total(1)), max(0, cost - granted.total(2))
            wanted = {"t": more[0], "c": more[1], "turns": int(as_new and known is None)}
            if decision.denied is None:
                assert model.would_fit(granted.scopes, wanted, slack=False), "more was granted than may be"
                model.take(granted, *more)
            else:
                assert not model.would_fit(granted.scopes, wanted, slack=True), "it was refused in vain"
            if known is not None or decision.denied is None:
                granted.until = clock.now + LIFETIME
                model.turns[turn] = granted
        elif op == "keep":
            await ledger.keep(tenant, turn, lifetime=tokens)
            if known is not None and known.is_open:
                known.until = clock.now + tokens
        elif op == "settle":
            first = await ledger.settle(tenant, turn, scopes, amount, None)
            said.append(first)
            assert first is (known is None or known.is_open)
            if first:
                granted = known or Granted(scopes, 0, None)
                for which, used in ((1, tokens), (2, cost)):
                    has = granted.total(which)
                    model.give_back(granted, which, max(0, has - used))
                    if used > has:
                        extra = [0.0, 0.0]
                        extra[which - 1] = used - has
                        model.take(granted, *extra)
                granted.is_open, granted.until = False, clock.now + 3600
                model.turns[turn] = granted
        else:
            await ledger.release(tenant, turn)
            if known is not None and known.is_open:
                del model.turns[turn]
        for scope in {Scope("t"), *scopes}:
            looked = (await ledgers[(node + 1) % 4].look(tenant, [scope]))[0]
            said.append(looked)
            for code, value in looked.items():
                least = model.used(scope, code)
                most = least if code == "turns" else model.used(scope, code, WINDOWS[code[1]][1] * 2)
                assert least <= value <= most, f"{scope} has used {value} of {code}"
    return said


class World:
    """Four nodes over one Valkey, and their loop."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.count = 0
        self.clients = self.runner.run(self._connected(url))
        self.ledgers: list[Ledger] = [
            RedisLedger(client, "test", now=lambda: self.clock.monotonic()) for client in self.clients
        ]

    async def _connected(self, url: str) -> list[Any]:
        return [connect(Address(url), name="test") for _ in range(4)]

    def walk(self, script: list[Any]) -> list[object]:
        self.count += 1
        self.clock.now = 1000.0  # each tenant has a life of its own
        return self.runner.run(walk(self.clock, self.ledgers, f"tenant {self.count}", script))

    def close(self) -> None:
        async def closed() -> None:
            for client in self.clients:
                await client.aclose()

        self.runner.run(closed())
        self.runner.close()


@pytest.fixture(scope="module")
def world(valkey: Server) -> Iterator[World]:
    world = World(valkey.url)
    yield world
    world.close()


def in_memory(script: list[Any]) -> list[object]:
    clock = FakeClock()
    return asyncio.run(walk(clock, [MemoryLedger(clock)] * 4, "acme", script))


@settings(max_examples=15 * settings().max_examples // 10, deadline=None)
@given(script=steps)
def test_what_is_granted_fits_and_what_fits_is_granted(script: list[Any]) -> None:
    in_memory(script)


@settings(
    max_examples=6 * settings().max_examples // 10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking is too slow
)
@given(script=steps)
def test_redis_decides_as_memory_does(world: World, script: list[Any]) -> None:
    """To the very number, on whichever of the nodes."""
    for mine, theirs in zip(world.walk(script), in_memory(script), strict=True):
        assert _rounded(mine) == _rounded(theirs)


def _rounded(answer: Any) -> object:
    """Redis says times in milliseconds, rounded up."""
    if not hasattr(answer, "standings"):
        return answer
    standings = [(s.scope, s.code, s.limit, s.used, round(s.reset, 1)) for s in answer.standings]
    denied = None if answer.denied is None else (answer.denied.scope, answer.denied.code)
    return standings, denied, round(answer.wait, 1), answer.is_new
