"""One tenant's quotas, as a pure value: no I/O, no clock. ``scripts/ledger.lua`` does the same in Redis."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from unbroken.server.quota.base import (
    CODES,
    KEPT,
    KNOWN,
    SLICES,
    TURNS,
    Amount,
    Decision,
    Limits,
    Scope,
    Standing,
    frees_at,
    is_live,
)

__all__ = ["Book"]

_PART: Final = SLICES["m"][0]
"""Seconds of the slices in which a reservation remembers when it was made."""

_ACCOUNTS: Final = 10_000
"""Scopes of a tenant that are known: the one that was used longest ago is forgotten for a new one."""

_IDLE: Final = 26 * 3600.0
"""Seconds after which a scope that nobody has used has nothing that still counts."""

_AT_ONCE: Final = 100
"""Of these, so many are forgotten at a time: nobody waits for more."""

_TURN_WAIT: Final = 1.0


@dataclass(slots=True)
class _Account:
    """What one scope has used, by code and slice."""

    slices: dict[str, dict[int, int]] = field(default_factory=lambda: {code: {} for code in CODES})
    turns: int = 0
    used_at: float = 0.0

    def prune(self, now: float) -> None:
        for code, slices in self.slices.items():
            for index in [index for index in slices if not is_live(code, index, now)]:
                del slices[index]

    def used(self, code: str) -> int:
        return self.turns if code == TURNS else sum(self.slices[code].values())

    def reset(self, code: str, now: float) -> float:
        slices = [index for index, amount in self.slices.get(code, {}).items() if amount]
        return frees_at(code, min(slices)) - now if slices else 0.0

    def wait(self, code: str, wanted: int, limit: int, now: float) -> float:
        """Return how long until *wanted* more would fit."""
        if wanted > limit:
            return math.inf
        if code == TURNS:
            return _TURN_WAIT
        over = self.used(code) + wanted - limit
        for index in sorted(self.slices[code]):
            over -= self.slices[code][index]
            if over <= 0:
                return frees_at(code, index) - now
        return math.inf

    def change(self, measure: str, part: int, by: int, now: float) -> None:
        """Count *by* more in the slices that were current in *part*."""
        for code in CODES:
            if code[0] == measure and by:
                index = part * _PART // SLICES[code[1]][0]
                if is_live(code, index, now):
                    slices = self.slices[code]
                    slices[index] = max(0, slices.get(index, 0) + by)  # see the script: some may be lost


@dataclass(slots=True)
class _Reservation:
    scopes: tuple[Scope, ...]
    until: float
    requested_in: int | None
    """The part in which its request was counted; None: it was by another."""
    parts: dict[int, list[int]] = field(default_factory=dict)
    """Tokens and cost, by when they were reserved."""

    def total(self) -> Amount:
        return Amount(*(sum(part[i] for part in self.parts.values()) for i in (0, 1)))


class Book:
    """Accounts and reservations of one tenant. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[Scope, _Account] = OrderedDict()
        self._turns: dict[str, _Reservation] = {}  # that are open
        self._due: list[tuple[float, str]] = []  # a heap of when to look at which of them
        self._settled: OrderedDict[str, float] = OrderedDict()  # those of late, and until when they are known

    def knows(self, turn: str) -> bool:
        """Whether there is a reservation of a turn here, or was a while ago."""
        return turn in self._turns or turn in self._settled

    def requested(self, turn: str) -> tuple[Scope, ...] | None:
        """Return for whom the request of an open reservation was counted here. None: it wasn't."""
        reservation = self._turns.get(turn)
        is_here = reservation is not None and reservation.requested_in is not None
        return reservation.scopes if reservation is not None and is_here else None

    def tidy(self, now: float) -> bool:
        """Forget what counts no more, some of it at a time. Return whether there is nothing left."""
        self._reap(now)
        for _ in range(min(_AT_ONCE, len(self._accounts))):
            scope, account = next(iter(self._accounts.items()))
            if account.turns or account.used_at > now - _IDLE:
                break
            del self._accounts[scope]
        return not (self._accounts or self._turns or self._settled)

    def _account(self, scope: Scope, now: float) -> _Account:
        account = self._accounts.get(scope)
        if account is None:
            account = self._accounts[scope] = _Account()
            if len(self._accounts) > _ACCOUNTS:
                idle = next((s for s, a in self._accounts.items() if not a.turns and a is not account), None)
                if idle is not None:
                    del self._accounts[idle]
        self._accounts.move_to_end(scope)
        account.used_at = now
        account.prune(now)
        return account

    def _reap(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, turn = heapq.heappop(self._due)
            reservation = self._turns.get(turn)
            if reservation is None:
                continue
            if reservation.until > now:
                heapq.heappush(self._due, (reservation.until, turn))
                continue
            self._give_back(reservation, reservation.total(), now)
            self._end(reservation, now)
            del self._turns[turn]
        while self._settled and next(iter(self._settled.values())) <= now:
            self._settled.popitem(last=False)

    def _keep(self, turn: str, reservation: _Reservation, until: float) -> None:
        if turn not in self._turns:
            self._turns[turn] = reservation
            heapq.heappush(self._due, (until, turn))
        elif until < reservation.until:
            heapq.heappush(self._due, (until, turn))
        reservation.until = until

    def _decide(
        self, scopes: Sequence[Scope], limits: Limits, wanted: Mapping[str, int], now: float
    ) -> Decision:
        standings: list[Standing] = []
        denied: Standing | None = None
        wait = 0.0
        for scope in scopes:
            account = self._account(scope, now)
            for code, limit in limits.get(scope.kind, {}).items():
                used = account.used(code)
                standing = Standing(scope, code, limit, used, account.reset(code, now))
                standings.append(standing)
                more = wanted.get(code[0] if code != TURNS else TURNS, 0)
                if more and used + more > limit:
                    needed = account.wait(code, more, limit, now)
                    if denied is None or needed > wait:
                        denied, wait = standing, needed
        return Decision(tuple(standings), denied, wait)

    def _take(self, reservation: _Reservation, amount: Amount, now: float) -> None:
        part = math.floor(now / _PART)
        kept = reservation.parts.setdefault(part, [0, 0])
        kept[0] += amount.tokens
        kept[1] += amount.cost
        self._change(reservation.scopes, part, amount, 1, now)

    def _change(self, scopes: Sequence[Scope], part: int, amount: Amount, sign: int, now: float) -> None:
        for scope in scopes:
            account = self._account(scope, now)
            account.change("t", part, sign * amount.tokens, now)
            account.change("c", part, sign * amount.cost, now)

    def _give_back(self, reservation: _Reservation, amount: Amount, now: float) -> None:
        """Give back so much, what was taken last first."""
        left = [amount.tokens, amount.cost]
        for part in sorted(reservation.parts, reverse=True):
            kept = reservation.parts[part]
            back = [min(left[i], kept[i]) for i in (0, 1)]
            for i in (0, 1):
                left[i] -= back[i]
                kept[i] -= back[i]
            self._change(reservation.scopes, part, Amount(*back), -1, now)

    def _begin(self, reservation: _Reservation, now: float) -> None:
        for scope in reservation.scopes:
            self._account(scope, now).turns += 1

    def _end(self, reservation: _Reservation, now: float) -> None:
        for scope in reservation.scopes:
            account = self._account(scope, now)
            account.turns = max(0, account.turns - 1)

    def reserve(
        self,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool,
        now: float,
    ) -> Decision:
        """See :meth:`Ledger.reserve`."""
        self._reap(now)
        if self.knows(turn):
            return Decision(self._decide(scopes, limits, {}, now).standings, is_new=False)
        wanted = {"r": 1, "t": amount.tokens, "c": amount.cost, TURNS: 1}
        decision = self._decide(scopes, limits, wanted, now)
        if decision.denied is not None and enforce:
            return decision
        part = math.floor(now / _PART)
        reservation = _Reservation(tuple(scopes), now + lifetime, part)
        self._keep(turn, reservation, now + lifetime)
        for scope in scopes:
            self._account(scope, now).change("r", part, 1, now)
        self._begin(reservation, now)
        self._take(reservation, amount, now)
        after = self._decide(scopes, limits, {}, now)
        return Decision(after.standings, decision.denied, decision.wait)

    def hold(
        self,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool,
        as_new: bool = False,
        now: float,
    ) -> Decision:
        """See :meth:`Ledger.hold`."""
        self._reap(now)
        if turn in self._settled:
            return Decision(is_new=False)
        reservation = self._turns.get(turn)
        known = reservation or _Reservation(tuple(scopes), now + lifetime, None)
        has = known.total()
        more = Amount(max(0, amount.tokens - has.tokens), max(0, amount.cost - has.cost))
        place = int(as_new and reservation is None)
        decision = self._decide(known.scopes, limits, {"t": more.tokens, "c": more.cost, TURNS: place}, now)
        is_granted = decision.denied is None or not enforce
        if reservation is not None:
            self._keep(turn, known, now + lifetime)
        elif is_granted:
            self._keep(turn, known, now + lifetime)
            self._begin(known, now)
        if is_granted:
            self._take(known, more, now)
        return decision

    def keep(self, turn: str, *, lifetime: float, now: float) -> None:
        """See :meth:`Ledger.keep`."""
        self._reap(now)
        reservation = self._turns.get(turn)
        if reservation is not None:
            self._keep(turn, reservation, now + lifetime)

    def settle(self, turn: str, scopes: Sequence[Scope], used: Amount, *, now: float) -> bool:
        """See :meth:`Ledger.settle`."""
        self._reap(now)
        if turn in self._settled:
            return False
        reservation = self._turns.pop(turn, None)
        known = reservation or _Reservation(tuple(scopes), now, None)
        has = known.total()
        self._take(known, Amount(max(0, used.tokens - has.tokens), max(0, used.cost - has.cost)), now)
        back = Amount(max(0, has.tokens - used.tokens), max(0, has.cost - used.cost))
        self._give_back(known, back, now)
        if reservation is not None:
            self._end(known, now)
        self._settled[turn] = now + KEPT
        if len(self._settled) > KNOWN:
            self._settled.popitem(last=False)
        return True

    def release(self, turn: str, *, now: float) -> None:
        """See :meth:`Ledger.release`."""
        self._reap(now)
        reservation = self._turns.get(turn)
        if reservation is None:
            return
        self._give_back(reservation, reservation.total(), now)
        if reservation.requested_in is not None:
            for scope in reservation.scopes:
                self._account(scope, now).change("r", reservation.requested_in, -1, now)
        self._end(reservation, now)
        del self._turns[turn]

    def standings(self, scopes: Sequence[Scope], limits: Limits, *, now: float) -> tuple[Standing, ...]:
        """See :meth:`Ledger.standings`."""
        self._reap(now)
        found: list[Standing] = []
        for scope in scopes:
            account = self._accounts.get(scope, _Account())  # whoever only asks is no reason to forget others
            account.prune(now)
            found += (
                Standing(scope, code, limit, account.used(code), account.reset(code, now))
                for code, limit in limits.get(scope.kind, {}).items()
            )
        return tuple(found)

    def look(self, scopes: Sequence[Scope], *, now: float) -> list[Mapping[str, int]]:
        """See :meth:`Ledger.look`."""
        self._reap(now)
        accounts = [self._accounts.get(scope, _Account()) for scope in scopes]
        for account in accounts:
            account.prune(now)
        return [{code: account.used(code) for code in (*CODES, TURNS)} for account in accounts]
