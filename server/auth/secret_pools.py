"""How many short-lived keys whoever may have, and how they are counted: what several settle alike, once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from unbroken.server.auth.pins import Pins
from unbroken.server.auth.principal import STRANGERS, Principal

__all__ = ["Account", "Pool", "SecretBounds", "SecretRecord", "Weight", "settled_by", "weight_of"]

_COST: Final = 600
"""Bytes of a short-lived key beside what it says."""

_COST_OF_USE: Final = 100
"""Bytes of a session that it is used for."""

_APART: Final = 256
"""Bytes of what is settled from which it is kept apart, once for all keys that settle the same."""


class SecretRecord(Struct, frozen=True, omit_defaults=True):
    """What a short-lived key is good for."""

    user: str
    tenant: str
    plan: str
    scopes: tuple[str, ...]
    expires_at: float
    """Until when sessions that it was used for may be come back to; seconds since the epoch."""
    key_id: str | None = None
    """The API key that it was made with."""
    origin: str | None = None
    """Whose pages alone may present it; None: any that may connect at all."""
    pins: Pins = Pins()
    maker: str = ""
    """Which backend made it; empty: the user did, or the server for a stranger."""
    is_plan_given: bool = False
    """Whether the plan is one that keys of its maker's are put on; else it is the maker's own."""
    address: str = ""
    """Of a stranger's: the address that it was asked for from, in hexadecimal; empty: it counts for none."""

    @property
    def principal(self) -> Principal:
        """Who presents it."""
        return Principal(self.user, self.tenant, self.plan, frozenset(self.scopes), self.expires_at)


@dataclass(frozen=True, slots=True)
class Pool:
    """Among whose short-lived keys one counts, from when it is made until it is good for nothing more."""

    name: str
    whose: str
    """The same, for whoever is refused."""
    most: int
    most_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretBounds:
    """How many short-lived keys whoever may have, and how many bytes of them."""

    user: int = 200
    user_bytes: int = 2 * 1024 * 1024
    key: int = 40_000
    """Of an API key that names no user, whomever it makes them for."""
    key_bytes: int = 32 * 1024 * 1024
    address: int = 1000
    """Of all strangers from one address, each of whom is somebody else."""
    address_bytes: int = 2 * 1024 * 1024
    strangers: int = 20_000
    """All of them together."""
    strangers_bytes: int = 32 * 1024 * 1024
    node: int = 100_000
    """In memory, whosever they are."""
    node_bytes: int = 128 * 1024 * 1024

    def pools_of(self, record: SecretRecord) -> tuple[Pool, ...]:
        """Return all pools that a key counts in, the smaller ones first.

        A backend is bounded also if it names a user for each, and an address whoever is there.
        """
        pools: list[Pool] = []
        if record.tenant == STRANGERS:
            if record.address:
                name = f"address {record.address}"
                pools.append(Pool(name, "this address", self.address, self.address_bytes))
            pools.append(Pool("strangers", "strangers", self.strangers, self.strangers_bytes))
            return tuple(pools)
        if is_users := record.user.startswith("user:"):
            name = f"user\0{record.tenant}\0{record.user}"  # names hold spaces
            pools.append(Pool(name, "this user", self.user, self.user_bytes))
        if record.maker or not is_users:
            name = f"key\0{record.tenant}\0{record.key_id}\0{record.maker}"
            pools.append(Pool(name, "this API key", self.key, self.key_bytes))
        return tuple(pools)


@dataclass(frozen=True, slots=True)
class Weight:
    """What a short-lived key takes, in bytes, roughly."""

    own: int
    """Without what is kept apart."""
    digest: str = ""
    """Of what it settles, where that is kept once for all that settle the same; empty: it isn't."""
    apart: int = 0
    """What that takes."""


def settled_by(record: SecretRecord) -> bytes:
    """Return what a short-lived key settles, as it is kept apart; nothing: it isn't, being small."""
    settled = msgspec.json.encode(record.pins)
    return settled if len(settled) > _APART else b""


def weight_of(record: SecretRecord, uses: int) -> Weight:
    """Return what a short-lived key takes once it has been used so often."""
    used = _COST + uses * _COST_OF_USE
    settled = settled_by(record)
    if not settled:
        return Weight(len(msgspec.json.encode(record)) + used)
    rest = len(msgspec.json.encode(replace(record, pins=Pins())))
    return Weight(rest + used, hashlib.sha256(settled).hexdigest(), len(settled) + _COST)


@dataclass(slots=True)
class Account:
    """What there is of one pool, or of all."""

    count: int = 0
    size: int = 0
    holders: dict[str, int] = field(default_factory=dict)
    """How many keys settle the same, by its digest."""

    def has_room(self, weight: Weight, most: int, most_bytes: int) -> bool:
        """Whether another one, of that weight, is within the bounds."""
        more = weight.own + (0 if weight.digest in self.holders else weight.apart)
        return self.count < most and self.size + more <= most_bytes

    def add(self, weight: Weight) -> None:
        """Count one more."""
        self.count += 1
        self.size += weight.own
        if weight.digest:
            if weight.digest not in self.holders:
                self.size += weight.apart
            self.holders[weight.digest] = self.holders.get(weight.digest, 0) + 1

    def remove(self, weight: Weight) -> None:
        """Count one less that was added."""
        self.count -= 1
        self.size -= weight.own
        if weight.digest:
            self.holders[weight.digest] -= 1
            if not self.holders[weight.digest]:
                del self.holders[weight.digest]
                self.size -= weight.apart
