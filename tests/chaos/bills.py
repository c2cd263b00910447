"""What was counted of what people used: as the store holds it in the end, and what must hold of it (I14)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.checker import Violation, status_of
from tests.chaos.history import Witness
from tests.chaos.logs import Log
from unbroken.server.quota.base import RECORDS
from unbroken.sessions.backends.redis.connection import Address, connect
from unbroken.sessions.entries import ResponseDone

__all__ = ["Bill", "Charge", "Ending", "bills_in", "check_bills", "endings_of"]


@dataclass(frozen=True, slots=True)
class Charge:
    """A turn's end, as it was counted."""

    response_id: str
    status: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Bill:
    """What was counted of one tenant."""

    tenant: str
    charges: tuple[Charge, ...]
    """What was settled: each turn's."""
    reserved: Mapping[str, int]
    """The tokens of each turn that isn't settled, by its response."""
    counted: int
    """Tokens in all, as limits go by."""
    turns: int
    """How many are said to run."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a response ended, and what it has used, if that was told."""

    status: str
    tokens: int | None = None


def check_bills(
    bills: Iterable[Bill],
    endings: Mapping[str, Ending],
    *,
    told: Collection[str] = (),
    may_drop: bool = False,
    may_miss: bool = False,
) -> Iterator[Violation]:
    """Check what was counted against *endings*, those that anybody knows of.

    *told*: responses that a node has said to have ended; the log of a session that nobody is connected to
    keeps its end alone.
    *may_drop*: an owner may have gone on without the store, and how a response ended there may be lost.
    *may_miss*: a node may have died when it had written the end, and before that was counted.
    """
    missing = set(endings)
    for bill in bills:
        missing -= {charge.response_id for charge in bill.charges}
        yield from _check(bill, None if may_drop else endings, told)
    for response_id in () if may_miss else sorted(missing):
        yield Violation("I14", response_id, "has ended, and wasn't counted")


def _check(bill: Bill, endings: Mapping[str, Ending] | None, told: Collection[str]) -> Iterator[Violation]:
    def blame(what: str) -> Violation:
        return Violation("I14", f"bill of {bill.tenant}", what)

    for response_id, times in Counter(charge.response_id for charge in bill.charges).items():
        if times > 1:
            yield blame(f"{response_id} was counted {times} times")
    settled = sum(charge.tokens for charge in bill.charges)
    open_ = sum(bill.reserved.values())
    if len(bill.charges) < RECORDS and bill.counted != settled + open_:  # else the first ones are forgotten
        yield blame(f"{bill.counted} tokens are counted, {settled} were used and {open_} are reserved")
    if bill.turns != len(bill.reserved):
        yield blame(f"{bill.turns} turns are said to run, and {len(bill.reserved)} have a reservation")
    for charge in bill.charges:
        if charge.response_id in bill.reserved:
            yield blame(f"{charge.response_id} was counted, and is reserved for")
        if endings is None:
            continue
        ending = endings.get(charge.response_id)
        if ending is None:
            if charge.response_id in told:
                continue
            yield blame(f"{charge.response_id} was counted, and nobody knows that it ended")
        elif charge.status != ending.status:
            yield blame(f"{charge.response_id} was counted as {charge.status}, and is {ending.status}")
        elif ending.tokens is not None and charge.tokens != ending.tokens:
            yield blame(
                f"{charge.response_id} has used {ending.tokens} tokens, and {charge.tokens} are counted"
            )


def endings_of(people: list[Witness], logs: Mapping[str, Log]) -> dict[str, Ending]:
    """Return how each response ended that anybody was shown the end of, or of which a log has it."""
    shown = {
        frame["response"]["id"]: Ending(status_of(frame["response"]))
        for person in people
        for history in person.histories
        for frame in history.frames()
        if frame["type"] == "response.done"
    }
    kept = {
        entry.body.response_id: Ending(
            entry.body.status, None if entry.body.usage is None else entry.body.usage.total_tokens
        )
        for log in logs.values()
        for entry in log.entries
        if isinstance(entry.body, ResponseDone)
    }
    return shown | kept


_PREFIX: Final = b"unbroken:{q:"


async def bills_in(url: str) -> list[Bill]:
    """Return what was counted of each tenant, in the store at *url*. Nothing may be under way there."""
    client: Any = connect(Address(url), name="chaos")
    try:
        keys = [key async for key in client.scan_iter(match=_PREFIX + b"*", count=1000)]
        return [
            await _bill(client, base) for base in sorted({key.partition(b"}")[0] + b"}:" for key in keys})
        ]
    finally:
        await client.aclose()


async def _bill(client: Any, base: bytes) -> Bill:
    charges: list[Charge] = []
    for _, fields in await client.xrange(base + b"l"):
        record = json.loads(fields[b"r"])
        tokens = record["input_tokens"] + record["output_tokens"]
        charges.append(Charge(record["response_id"], record["status"], tokens))
    reserved: dict[str, int] = {}
    for turn in await client.zrange(base + b"o", 0, -1):
        response_id = turn.partition(b":")[2].decode()
        reserved[response_id] = _sum(await client.hgetall(base + b"r:" + turn), b"t:")
    account = await client.hgetall(base + b"t:")
    tenant = base[len(_PREFIX) : -2].decode()
    return Bill(tenant, tuple(charges), reserved, _sum(account, b"td:"), int(account.get(b"turns", 0)))


def _sum(counts: Mapping[bytes, bytes], prefix: bytes) -> int:
    return sum(int(count) for name, count in counts.items() if name.startswith(prefix))
