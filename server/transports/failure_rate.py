"""How often each address may present what proves nothing: one account for each that has of late. No I/O."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from unbroken.server.errors import CloseCode
from unbroken.server.limits import Rate
from unbroken.server.transports.address import Address
from unbroken.server.transports.refusal import Refused
from unbroken.sessions.clock import Clock

__all__ = ["FailureRate"]

_REMEMBERED: Final = 4096
"""Addresses that have failed; the one that has not for longest is forgotten for a new one."""


class FailureRate:
    """Counts wrong keys by the addresses that they come from. None, which is this machine, isn't counted."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._accounts: OrderedDict[Address, float] = OrderedDict()  # the latest to fail last

    def __len__(self) -> int:
        return len(self._accounts)

    def check(self, address: Address | None) -> None:
        """Let nobody go on, whatever their key, whose address has failed too often: else they could try keys.

        Raises:
            Refused: It has.

        """
        account = None if address is None else self._accounts.get(address)
        if account is None:
            return
        wait = self._rate.debt(account, self._clock.monotonic())
        # Sums of fractions aren't exact: half a failure is none.
        if wait * self._rate.per_second > -0.5:
            message = (
                "Too many attempts with wrong keys came from this address. Try again later, with a valid key."
            )
            seconds = math.ceil(max(1.0, wait + 1 / self._rate.per_second))
            raise Refused(429, "too_many_failed_attempts", message, CloseCode.TRY_AGAIN, retry_after=seconds)

    def failed(self, address: Address | None) -> None:
        """Note that somebody has proved nothing."""
        if address is None:
            return
        now, accounts = self._clock.monotonic(), self._accounts
        accounts[address] = self._rate.spent(accounts.pop(address, 0.0), now, 1)
        # Those that are as good as new are forgotten, and whoever exceeds the bound.
        while len(accounts) > _REMEMBERED or next(iter(accounts.values())) <= now:
            accounts.popitem(last=False)
