"""How many may connect: counted per node, address and principal, from the handshake to the end.

It costs the same for everybody, and what it keeps is bounded: a number for each
address and principal that has a connection, and one for each of the
addresses that have lately connected, and that have failed to authenticate.
Principals' are those of all nodes that share their caps.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import structlog

from unbroken.server.errors import CloseCode
from unbroken.server.limits import Rate
from unbroken.server.transports.address import Address, Proxies
from unbroken.server.transports.address_rate import AddressRate
from unbroken.server.transports.refusal import Refused
from unbroken.sessions.caps import Caps
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import PrincipalId

__all__ = ["Admission", "AdmissionLimits", "Guest"]

_REMEMBERED: Final = 4096
"""Addresses that have failed; the one that has not for longest is forgotten for a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How many connections there may be, and failures."""

    node: int = 20_000
    address: int = 256
    principal: int = 1000
    """On all nodes that share their caps."""
    failures: Rate = field(default=Rate(30 / 60, 30))
    """Failed authentications of one address."""
    handshakes: Rate = field(default=Rate(30, 300))
    """Handshakes of one address, whatever becomes of them."""


class Admission:
    """The connections of one node, counted.

    Args:
        limits: How many there may be.
        clock: Where time comes from.
        proxies: Who is believed about addresses.
        caps: Where principals' connections are counted.

    """

    def __init__(self, limits: AdmissionLimits, clock: Clock, proxies: Proxies, caps: Caps) -> None:
        self._limits = limits
        self._clock = clock
        self._proxies = proxies
        self._addresses: dict[Address, int] = {}
        self._caps = caps
        self._failures: OrderedDict[Address, float] = OrderedDict()  # accounts, the latest to fail last
        self._handshakes = AddressRate(limits.handshakes, clock)
        self._has_warned = False
        self.connections = 0
        """How many there are."""

    def guest(self, peer: str | None, forwarded: str) -> Guest:
        """Return somebody who asks for a connection; see :meth:`Proxies.client`. Have them leave again."""
        if forwarded and not self._has_warned and not self._proxies.are_believed(peer):
            self._has_warned = True  # once: anybody can send the header
            structlog.get_logger().warning(
                "X-Forwarded-For not believed",
                peer=peer,
                hint="If this is a proxy, list it in UNBROKEN_TRUSTED_PROXIES: "
                "else its clients count as one address.",
            )
        return Guest(self, self._proxies.client(peer, forwarded))

    def __repr__(self) -> str:
        return (
            f"<Admission {self.connections} connections, {len(self._addresses)} addresses, "
            f"{self._caps.principals('connection')} principals, {len(self._failures)} failures>"
        )

    @property
    def is_empty(self) -> bool:
        """Whether nobody is counted anywhere."""
        return not (self.connections or self._addresses or self._caps.principals("connection"))

    def knock(self, address: Address | None) -> None:
        """Count a handshake. For :class:`Guest`."""
        wait = self._handshakes.wait(address)
        if wait:
            message = (
                "Too many connections were begun from this address. Try again later. The operator can raise "
                "UNBROKEN_RATE_HANDSHAKES, or list a proxy in UNBROKEN_TRUSTED_PROXIES."
            )
            raise Refused(429, "too_many_handshakes", message, CloseCode.TRY_AGAIN, retry_after=wait)

    def enter(self, address: Address | None) -> None:
        """Count a connection. For :class:`Guest`."""
        if self.connections >= self._limits.node:
            message = "The server holds as many connections as it may. Try again in a moment."
            raise Refused(503, "server_full", message, CloseCode.TRY_AGAIN)
        if address is not None:
            self._check_failures(address)
            if self._addresses.get(address, 0) >= self._limits.address:
                message = (
                    f"There are {self._limits.address} connections from this address, as many as may be. "
                    "Close some. The operator can raise UNBROKEN_CONNECTIONS_PER_ADDRESS, "
                    "or list a proxy in UNBROKEN_TRUSTED_PROXIES."
                )
                raise Refused(429, "too_many_connections_from_address", message, CloseCode.TRY_AGAIN)
            self._addresses[address] = self._addresses.get(address, 0) + 1
        self.connections += 1

    async def admit(self, principal: PrincipalId, most: int | None = None) -> None:
        """Count a connection that has entered for *principal* too. For :class:`Guest`."""
        most = self._limits.principal if most is None else min(most, self._limits.principal)
        if not await self._caps.admit("connection", principal, most):
            message = (
                f"This key has {most} connections, as many as one may have. Close some. "
                "The operator can raise UNBROKEN_CONNECTIONS_PER_PRINCIPAL."
            )
            raise Refused(429, "too_many_connections_of_key", message, CloseCode.TRY_AGAIN)

    def leave(self, address: Address | None, principal: PrincipalId | None) -> None:
        """Count a connection that has entered no more. For :class:`Guest`."""
        self.connections -= 1
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
        if principal is not None:
            self._caps.change("connection", principal, -1)

    def _check_failures(self, address: Address) -> None:
        account = self._failures.get(address)
        if account is None:
            return
        wait = self._limits.failures.debt(account, self._clock.monotonic())
        # Sums of fractions aren't exact: half a failure is none.
        if wait * self._limits.failures.per_second > -0.5:
            message = (
                "Too many attempts with wrong keys came from this address. Try again later, with a valid key."
            )
            seconds = math.ceil(max(1.0, wait + 1 / self._limits.failures.per_second))
            raise Refused(429, "too_many_failed_attempts", message, CloseCode.TRY_AGAIN, retry_after=seconds)

    def failed(self, address: Address | None) -> None:
        """Note that somebody has proved nothing. For :class:`Guest`."""
        if address is None:
            return
        now, failures = self._clock.monotonic(), self._failures
        failures[address] = self._limits.failures.spent(failures.pop(address, 0.0), now, 1)
        # Those that are as good as new are forgotten, and whoever exceeds the bound.
        while len(failures) > _REMEMBERED or next(iter(failures.values())) <= now:
            failures.popitem(last=False)


class Guest:
    """One who asks for a connection, and has it until they leave."""

    __slots__ = ("_address", "_admission", "_has_entered", "_principal")

    def __init__(self, admission: Admission, address: Address | None) -> None:
        self._admission = admission
        self._address = address
        self._principal: PrincipalId | None = None
        self._has_entered = False

    @property
    def address(self) -> Address | None:
        """What it counts for; None: for no address."""
        return self._address

    def knock(self) -> None:
        """Be counted as one who asks, however often that is. Before anything else is looked at.

        Raises:
            Refused: This address has asked too often of late.

        """
        self._admission.knock(self._address)

    def enter(self) -> None:
        """Be counted for the node and the address. Once.

        Raises:
            Refused: There are too many, or this address has failed to authenticate too often.

        """
        self._admission.enter(self._address)
        self._has_entered = True

    async def admit(self, principal: PrincipalId, most: int | None = None) -> None:
        """Be counted for *principal*, whose plan allows *most*. Once, having entered.

        One who is cut off meanwhile isn't.

        Raises:
            Refused: They have as many connections as they may.

        """
        await self._admission.admit(principal, most)
        self._principal = principal

    def failed(self) -> None:
        """Note that what was presented proves nothing."""
        self._admission.failed(self._address)

    def leave(self) -> None:
        """Be counted no more. Harmless for one who isn't."""
        if self._has_entered:
            self._has_entered = False
            self._admission.leave(self._address, self._principal)
