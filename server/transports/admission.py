"""How many may connect: counted per node, address, principal and tenant, from the handshake to the end.

It costs the same for everybody, and what it keeps is bounded: a number for each
address, principal and tenant that has a connection, and one for each of the
addresses that have lately connected, and that have failed to authenticate.

Principals' and tenants' are those of all nodes that share their caps. So are addresses', once it is known who
is there: before, each node counts by itself, so that whoever has no key causes no call to a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import structlog

from unbroken.server.auth.principal import Principal
from unbroken.server.errors import CloseCode
from unbroken.server.limits import ConnectionBounds, Rate
from unbroken.server.transports.address import Address, Proxies
from unbroken.server.transports.address_rate import AddressRate
from unbroken.server.transports.failure_rate import FailureRate
from unbroken.server.transports.refusal import Refused
from unbroken.sessions.backends.tally import Kind
from unbroken.sessions.caps import Caps
from unbroken.sessions.clock import Clock

__all__ = ["Admission", "AdmissionLimits", "Guest"]

_Place: TypeAlias = tuple[Kind, str]
"""What a connection is counted as, and for whom."""

_UNBOUNDED: Final = ConnectionBounds()


class _Claim(NamedTuple):
    """One more connection of somebody's."""

    place: _Place
    allowed: int | None
    """How many their plan allows. None: it doesn't say."""
    most: int | None
    """How many the settings do."""
    refusal: Callable[[int], Refused]
    is_counted: bool = False
    """Whether it is counted without a bound, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How many connections there may be, and failures."""

    node: int = 20_000
    address: int = 256
    """On all nodes that share their caps, as are the next two; and on each, without a key too."""
    principal: int = 1000
    tenant: int = 0
    """0: there is no bound."""
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
        caps: Where the connections of principals, tenants and addresses are counted.
        on_beyond: Told of each connection that goes beyond what its plan allows in shadow.

    """

    def __init__(
        self,
        limits: AdmissionLimits,
        clock: Clock,
        proxies: Proxies,
        caps: Caps,
        *,
        on_beyond: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits
        self._on_beyond = on_beyond
        self._proxies = proxies
        self._addresses: dict[Address, int] = {}
        self._caps = caps
        self._failures = FailureRate(limits.failures, clock)
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
            f"{self._caps.holders('connection')} principals, {len(self._failures)} failures>"
        )

    @property
    def is_empty(self) -> bool:
        """Whether nobody is counted anywhere."""
        return not (self.connections or self._addresses or self._caps.holders("connection"))

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
            self._failures.check(address)
            if self._addresses.get(address, 0) >= self._limits.address:
                raise _too_many_from_address(self._limits.address)
            self._addresses[address] = self._addresses.get(address, 0) + 1
        self.connections += 1

    async def admit(
        self, principal: Principal, address: Address | None, plan: ConnectionBounds
    ) -> tuple[_Place, ...]:
        """Count a connection that has entered for all whose it is. For :class:`Guest`.

        Whoever is refused by one of them, or is cut off, is counted for none.
        """
        places: list[_Place] = []
        is_beyond = False
        take = self._take_in_shadow if plan.is_shadow else self._take
        try:
            for claim in self._claims(principal, address, plan):
                if not await take(claim, places):
                    is_beyond = True
        except BaseException:
            self._give_back(places)
            raise
        if is_beyond:
            self._on_beyond()
        return tuple(places)

    def _claims(
        self, principal: Principal, address: Address | None, plan: ConnectionBounds
    ) -> Iterator[_Claim]:
        limits, tenant = self._limits, _named(principal.tenant)
        yield _Claim(("connection", principal.id), plan.user, limits.principal, _too_many_of_key)
        yield _Claim(
            ("tenant_connection", tenant),
            plan.tenant,
            limits.tenant or None,
            _too_many_of_tenant,
            is_counted=plan.counts_tenant,
        )
        if address is not None:
            yield _Claim(
                ("address_connection", address.hex()), plan.address, limits.address, _too_many_from_address
            )

    async def _take(self, claim: _Claim, places: list[_Place]) -> bool:
        """Count one more among *places*, or refuse it. Returns True."""
        most = _least(claim.allowed, claim.most)
        if most is not None:
            if not await self._caps.admit(*claim.place, most):
                raise claim.refusal(most)
            places.append(claim.place)
        elif claim.is_counted:
            self._caps.change(*claim.place, 1)
            places.append(claim.place)
        return True

    async def _take_in_shadow(self, claim: _Claim, places: list[_Place]) -> bool:
        """Count one more by the settings alone, and return whether the plan would allow it."""
        if claim.allowed is None:
            return await self._take(claim, places)
        least = claim.allowed if claim.most is None else min(claim.allowed, claim.most)
        if await self._caps.admit(*claim.place, least, is_patient=False):
            places.append(claim.place)
            return True
        await self._take(claim._replace(allowed=None, is_counted=True), places)
        return False

    def _give_back(self, places: Iterable[_Place]) -> None:
        for kind, whose in places:
            self._caps.change(kind, whose, -1)

    def leave(self, address: Address | None, places: Iterable[_Place]) -> None:
        """Count a connection that has entered no more. For :class:`Guest`."""
        self.connections -= 1
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
        self._give_back(places)

    def failed(self, address: Address | None) -> None:
        """Note that somebody has proved nothing. For :class:`Guest`."""
        self._failures.failed(address)


class Guest:
    """One who asks for a connection, and has it until they leave."""

    __slots__ = ("_address", "_admission", "_has_entered", "_places")

    def __init__(self, admission: Admission, address: Address | None) -> None:
        self._admission = admission
        self._address = address
        self._places: tuple[_Place, ...] = ()
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

    async def admit(self, principal: Principal, plan: ConnectionBounds = _UNBOUNDED) -> None:
        """Be counted for *principal*, their tenant and the address, of which the plan allows so many.

        Once, having entered. One who is cut off meanwhile isn't.

        Raises:
            Refused: One of them has as many connections as they may.

        """
        self._places = await self._admission.admit(principal, self._address, plan)

    def failed(self) -> None:
        """Note that what was presented proves nothing."""
        self._admission.failed(self._address)

    def leave(self) -> None:
        """Be counted no more. Harmless for one who isn't."""
        if self._has_entered:
            self._has_entered = False
            self._admission.leave(self._address, self._places)
            self._places = ()


def _least(*bounds: int | None) -> int | None:
    """Return the lowest of *bounds*; None: there is none."""
    return min((bound for bound in bounds if bound is not None), default=None)


def _named(tenant: str) -> str:
    """Return what a tenant is counted as: a name of any length and spelling would be a key in Redis."""
    return hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _too_many(code: str, message: str) -> Refused:
    return Refused(429, code, message, CloseCode.TRY_AGAIN)


def _too_many_of_key(most: int) -> Refused:
    return _too_many(
        "too_many_connections_of_key",
        f"This key has {most} connections, as many as one may have. Close some. "
        "The operator can raise UNBROKEN_CONNECTIONS_PER_PRINCIPAL, or what its plan allows.",
    )


def _too_many_of_tenant(most: int) -> Refused:
    return _too_many(
        "too_many_connections_of_tenant",
        f"All keys of this tenant together have {most} connections, as many as they may have. Close some. "
        "The operator can raise UNBROKEN_CONNECTIONS_PER_TENANT, or what the plan allows.",
    )


def _too_many_from_address(most: int) -> Refused:
    return _too_many(
        "too_many_connections_from_address",
        f"There are {most} connections from this address, as many as may be. Close some. "
        "The operator can raise UNBROKEN_CONNECTIONS_PER_ADDRESS, or what the plan allows, "
        "or list a proxy in UNBROKEN_TRUSTED_PROXIES.",
    )
