"""How often each address may do something: one account for each that did of late. No I/O."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from unbroken.server.limits import Rate
from unbroken.server.transports.address import Address
from unbroken.sessions.clock import Clock

__all__ = ["AddressRate"]

_REMEMBERED: Final = 16_384
"""Addresses; the one that has done nothing for longest is forgotten for a new one. Some 3 MB."""


class AddressRate:
    """Counts what addresses do, each by itself. O(1), whatever their number, and bounded."""

    def __init__(self, rate: Rate, clock: Clock, *, remembered: int = _REMEMBERED) -> None:
        self._rate = rate
        self._clock = clock
        self._remembered = remembered
        self._accounts: OrderedDict[Address, float] = OrderedDict()  # the latest to do something last

    def __len__(self) -> int:
        return len(self._accounts)

    def wait(self, address: Address | None) -> int:
        """Count once, and return 0; or count nothing, and return after how many whole seconds it may be.

        None, which is this machine, may always.
        """
        if address is None:
            return 0
        now, accounts = self._clock.monotonic(), self._accounts
        account = self._rate.spent(accounts.get(address, 0.0), now, 1)
        debt = self._rate.debt(account, now)
        # Sums of fractions aren't exact: half of one is none.
        if debt * self._rate.per_second >= 0.5:
            return max(1, math.ceil(debt))
        accounts[address] = account
        accounts.move_to_end(address)
        # Those that are as good as new are forgotten, and whoever exceeds the bound.
        while len(accounts) > self._remembered or next(iter(accounts.values())) <= now:
            accounts.popitem(last=False)
        return 0
