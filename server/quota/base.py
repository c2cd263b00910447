"""What a ledger of quotas promises, and the words for it.

A turn's budget is reserved before the turn is written down, held while it
streams, and settled when it has ended; each of these once, whoever does it and
however often it is tried. Amounts are integers: requests, tokens, and money in
millionths of a currency unit.

Windows slide, in slices: what was used counts for the whole window, and for up
to one slice longer. So within no minute and no day more is granted than may
be (docs/decisions/0007-quotas.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

__all__ = [
    "CODES",
    "KEPT",
    "KINDS",
    "KNOWN",
    "LAPSES",
    "MOST",
    "RECORDS",
    "RECORDS_IN_MEMORY",
    "RECORDS_KEPT",
    "RECORDS_OF_USER",
    "SLICES",
    "TURNS",
    "Amount",
    "Code",
    "Decision",
    "Ledger",
    "Limits",
    "Scope",
    "Standing",
    "UsageRecord",
    "bounded",
    "frees_at",
    "is_live",
    "record_fields",
]

Code: TypeAlias = Literal["rm", "rd", "tm", "td", "cd"]
"""What is counted: requests, tokens or cost; and within what: a minute or a day."""

CODES: Final[tuple[Code, ...]] = ("rm", "rd", "tm", "td", "cd")

TURNS: Final = "turns"
"""What is counted beside: turns at once."""

SLICES: Final[Mapping[str, tuple[int, int]]] = {"m": (5, 12), "d": (3600, 24)}
"""Of each window: the seconds of a slice, and how many slices it has."""

KINDS: Final = {"u": "user", "t": "tenant", "a": "address"}

MOST: Final = 2**45
"""Of anything, in one turn: some 35 million million tokens, or 35 million currency units. What days add up
to stays below what Redis, and the numbers of its scripts, hold exactly."""

KEPT: Final = 3600
"""Seconds for which a turn that was settled is known: nobody settles it again."""

KNOWN: Final = 100_000
"""Turns of a tenant that are known to be settled, in memory: who was settled first is forgotten first."""

LAPSES: Final = 200
"""Reservations that are given back with one decision, in Redis, which does nothing else meanwhile (some 15
milliseconds). Those beyond count until the next one."""

RECORDS: Final = 10_000
"""Records of usage that are kept of a tenant."""

RECORDS_IN_MEMORY: Final = 50_000
"""Those of all tenants together, where they are in a node's memory: the oldest go, whoever's they are. Some
75 MB, if each is another user's."""

RECORDS_KEPT: Final = 7 * 86_400
"""Seconds for which they are."""

RECORDS_OF_USER: Final = 100
"""Those of a user that can be told by themselves: the latest, as far as they are among the tenant's."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom something is counted for, within a tenant: a user, an address, or the tenant itself."""

    kind: Literal["u", "t", "a"]
    name: str = ""

    @property
    def key(self) -> str:
        """One string for it."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Amount:
    """Something used, or asked for.

    Raises:
        ValueError: It is less than nothing, or more than :data:`MOST`; see :func:`bounded`.

    """

    tokens: int = 0
    cost: int = 0
    """In millionths."""

    def __post_init__(self) -> None:
        if not (0 <= self.tokens <= MOST and 0 <= self.cost <= MOST):
            raise ValueError("no turn can take so much, or so little")

    def of(self, measure: str) -> int:
        """Return the amount of one measure; a turn is one request."""
        return {"r": 1, "t": self.tokens, "c": self.cost}[measure]


Limits: TypeAlias = Mapping[str, Mapping[str, int]]
"""For each kind of scope, what it may use: by the codes, and ``turns``. What isn't there has no bound."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one scope stands with one of its limits."""

    scope: Scope
    code: str
    limit: int
    used: int
    reset: float
    """Seconds until some of it is free again. 0: nothing is used."""

    @property
    def remaining(self) -> int:
        """What may still be used."""
        return max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of asking. *denied* is what there is too little of; None: it was granted."""

    standings: tuple[Standing, ...] = ()
    denied: Standing | None = None
    wait: float = 0.0
    """Seconds until what was denied may be granted. Infinite: never, it is more than the limit."""
    is_new: bool = True
    """False: it had been granted, or settled, before."""

    @property
    def is_never(self) -> bool:
        """Whether waiting won't help."""
        return self.denied is not None and math.isinf(self.wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """What one turn has used, once it has ended."""

    at: float
    """Seconds since the epoch."""
    user: str
    session_id: str
    response_id: str
    model: str
    status: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: int
    is_estimate: bool = False
    """Whether the provider told nothing, so that it was counted here."""
    reused: str = ""
    """How the answer was come by, if its agent wasn't asked, or not for it alone: of the cache's list."""

    @property
    def tokens(self) -> int:
        """Input and output together: what counts."""
        return self.input_tokens + self.output_tokens


class Ledger(Protocol):
    """Counts what is used. Of one tenant, decisions are taken one after another, on however many nodes.

    Guarantees: no limit is exceeded by what is granted. A turn is known by its *turn* id: what is granted
    or settled twice counts once. A reservation that nobody holds for *lifetime* seconds is given back.
    What a turn has really used is counted in full when it is settled, also beyond a limit.

    Raises:
        StoreUnavailable: By all methods: it can't be reached. What was asked for may have taken effect.

    """

    def part_of(self, tenant: str) -> str:
        """Return the name of the part of it that a tenant's counts are in now; empty: there is but one, or it
        isn't known yet. A part may be out of reach while the others answer.
        """

    async def reserve(
        self,
        tenant: str,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool = True,
    ) -> Decision:
        """Reserve *amount* and one request for a turn, or nothing. Without *enforce*, in any case."""

    async def hold(
        self,
        tenant: str,
        turn: str,
        scopes: Sequence[Scope],
        limits: Limits,
        amount: Amount,
        *,
        lifetime: float,
        enforce: bool = True,
        as_new: bool = False,
    ) -> Decision:
        """Have *amount* be reserved for a turn altogether, and go on holding it for *lifetime* seconds.

        A turn whose reservation was given back gets one again if there is room; its request counted. With
        *as_new* there has to be room among the turns at once, too; without, it is one that goes on, and is
        counted there in any case. *scopes* count for such a one only. What is denied leaves the rest as it
        was.
        """

    async def keep(self, tenant: str, turn: str, *, lifetime: float) -> None:
        """Have what is reserved for a turn lapse in *lifetime* seconds, later than it would or sooner.

        Where nothing is reserved for it (any more) nothing comes to be.
        """

    async def settle(
        self, tenant: str, turn: str, scopes: Sequence[Scope], used: Amount, record: UsageRecord | None
    ) -> bool:
        """Count what a turn has *used*, not what was reserved. Return whether that was the first time."""

    async def release(self, tenant: str, turn: str) -> None:
        """Give everything back that was reserved, the request too: the turn never came to be."""

    async def look(self, tenant: str, scopes: Sequence[Scope]) -> list[Mapping[str, int]]:
        """Return for each of *scopes* what it uses: by the codes, and ``turns``."""

    async def standings(self, tenant: str, scopes: Sequence[Scope], limits: Limits) -> tuple[Standing, ...]:
        """Return how *scopes* stand with each of their limits, as a decision says it. Nothing is taken."""

    async def records(self, tenant: str, most: int, user: str | None = None) -> list[UsageRecord]:
        """Return the latest records of usage, the latest first: up to *most*.

        Of *user* alone if named, :data:`RECORDS_OF_USER` at most: no others' are read.
        """

    async def aclose(self) -> None:
        """Write what couldn't be written yet, if it can be now. Never raises; the last call."""


def bounded(tokens: int, cost: int) -> Amount:
    """Return as much as a turn can take: whatever a provider says, or a client asks for."""
    return Amount(min(max(tokens, 0), MOST), min(max(cost, 0), MOST))


def is_live(code: str, index: int, now: float) -> bool:
    """Return whether a slice still counts. A whole window after its end, so that no window is exceeded."""
    seconds, count = SLICES[code[1]]
    return index >= math.floor(now / seconds) - count


def frees_at(code: str, index: int) -> float:
    """Return when a slice counts no more."""
    seconds, count = SLICES[code[1]]
    return float((index + count + 1) * seconds)


def record_fields(record: UsageRecord) -> dict[str, Any]:
    """Return a record as JSON has it."""
    return {name: getattr(record, name) for name in UsageRecord.__slots__}
