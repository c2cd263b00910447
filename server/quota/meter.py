"""What one turn comes to, while it runs and once it has ended. No I/O, no clock.

What its provider tells takes the place of what is estimated here, as far as it goes. An answer that was
given before, or to others too, takes what its usage says it is billed: often nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from msgspec import UNSET

from unbroken.server.quota.base import MOST, Amount, Limits, bounded
from unbroken.server.quota.estimate import bytes_of, produced_bytes, said_bytes, tokens_of
from unbroken.server.quota.prices import Price
from unbroken.server.quota.share import Share
from unbroken.sessions.entries import ResponseDone
from unbroken.sessions.items import Usage
from unbroken.sessions.responder import Output, Unbilled, Working

__all__ = ["Meter", "begun", "used"]

_FIRST_OUTPUT: Final = 1024
"""Tokens of output that are reserved at first; fewer where the answer may not have so many."""

_TOP_UP: Final = 256
"""Tokens that are reserved whenever an answer has come to what is; no more than at first."""

_SHARE: Final = 4
"""The first part of an answer takes no more than one in so many of any limit: small ones must allow some."""

_MILLION: Final = 1_000_000


class Meter:
    """Counts what is said in one turn.

    Args:
        model: Which model was asked.
        price: Its price.
        prompt: Tokens that it is sent, as estimated.
        first: Tokens of its answer that were reserved at first.
        said: Bytes of its answer that another node has let through.
        share: What is its to pay of a call that others wait for too. None: all of it.

    """

    def __init__(
        self, model: str, price: Price, prompt: int, first: int, said: int = 0, share: Share | None = None
    ) -> None:
        self.model: Final = model
        self.held = Amount()
        """What was last asked to be held."""
        self._prompts = prompt  # tokens that were sent since its provider last told
        self._price = price
        self._step = first
        self._said = said  # bytes, since its provider last told
        self._room = 0  # bytes up to which that is held
        self._share = share or Share()
        self._told: Usage | None = None
        self._has_told = False  # of the round that is under way
        self._spent = Usage()  # by attempts that have failed: no later bill has it
        self._is_counted = True  # whether what is said costs anything
        self._is_left = False

    def take(self, piece: Output) -> bool:
        """Count a piece. Return whether more is to be held before it may be let through."""
        if type(piece) is str:  # the usual case
            if not self._is_counted:
                return False
            self._said += len(piece) if piece.isascii() else said_bytes(piece)
            return self._said > self._room
        if type(piece) is Usage:
            self._tell(_clean(piece))
            return False
        if type(piece) is Unbilled:
            self._told, self._is_counted, self._is_left = None, True, True
            return False
        if not self._is_counted:
            return False
        if type(piece) is Working and piece.spent is not None:
            self._spent = _sum(self._spent, _clean(piece.spent))
        self._said += said_bytes(piece)
        return self._said > self._room

    def _tell(self, bill: Usage) -> None:
        if _is_shared(bill):
            # Others pay, as it looks; but whoever is left with the call does. So each has to find a budget
            # for it, and all of it counts until then.
            self._told, self._is_counted = bill, True
        else:
            # It counts with the next piece: what is complete isn't cut short by the bill.
            self._told, self._prompts, self._said, self._room = bill, 0, 0, 0
            self._has_told, self._is_left = True, False
            self._is_counted = bill.reused is UNSET
            self._take_rest()

    def _take_rest(self) -> None:
        rest, self._share.rest = self._share.rest, ()
        for piece in rest:
            self.take(piece)

    @property
    def is_left(self) -> bool:
        """Whether it is left with what another has begun, and that nobody has billed."""
        return self._share.owes and _is_shared(self._told) if self._told is not None else self._is_left

    def ahead(self) -> Amount:
        """Return what is to be held altogether: for what was said, and some more. Then that is held."""
        self._room = bytes_of(tokens_of(self._said) + self._step)
        self._step = min(self._step, _TOP_UP)
        return self._hold()

    def ask(self, prompt: int, *, is_first: bool) -> Callable[[], None]:
        """Count the prompt of a round; what :attr:`held` is then is to be held before the agent is asked.

        Return what takes it back: its agent isn't asked. What the *is_first* sends was estimated before.
        """
        before = self._prompts, self._said, self._room, self._has_told, self.held
        if is_first:
            self._prompts = prompt
            self._hold()
        else:
            if self._has_told:  # of all that was said so far, also behind the bill
                self._said = self._room = 0
            self._prompts, self._has_told = self._prompts + prompt, False
            self.ahead()

        def forgo() -> None:
            self._prompts, self._said, self._room, self._has_told, self.held = before

        return forgo

    def _hold(self) -> Amount:
        told = _sum(self._told or Usage(), self._spent)
        read, said = told.input_tokens + self._prompts, told.output_tokens + tokens_of(self._room)
        self.held = bounded(read + said, self._price.cost(read, said, told.cached_tokens))
        return self.held

    def total(self, *, was_asked: bool = False) -> tuple[Usage, bool]:
        """Return what was told, with what was sent and said since, and whether that is but an estimate.

        What was sent counts once something was said, or with *was_asked*. What comes in rounds is told
        after each of them: whoever cuts the next one short has had that, too.
        """
        self._take_rest()
        told = self._told or Usage()
        if told.reused is not UNSET and not self.is_left:
            return told, False  # what it is billed
        told = _sum(told, self._spent)
        said = tokens_of(self._said)
        sent = self._prompts if said or was_asked else 0
        return _sum(told, Usage(sent, said)), sent + said > 0

    def billed(self, bill: Usage) -> Usage:
        """Return what a turn comes to that is complete, and that its provider has billed so."""
        bill = _clean(bill)
        return bill if bill.reused is not UNSET else _sum(bill, self._spent)


def begun(
    model: str,
    price: Price,
    limits: Limits,
    prompt: int,
    most: int | None,
    said: int = 0,
    share: Share | None = None,
) -> Meter:
    """Return what counts a turn whose answer may have *most* tokens. The rest is as :class:`Meter` has it."""
    return Meter(model, price, prompt, _first_output(limits, price, most), said, share)


def _is_shared(usage: Usage) -> bool:
    return usage.reused is not UNSET and usage.reused.tier == "flight"


def _first_output(limits: Limits, price: Price, most: int | None) -> int:
    """Return how many tokens of an answer, which has *most* at most, are reserved at first."""
    bounds = [_FIRST_OUTPUT, most or _FIRST_OUTPUT]
    for row in limits.values():
        bounds += [row[code] // _SHARE for code in ("tm", "td") if code in row]
        if "cd" in row and price.output:
            bounds.append(row["cd"] * _MILLION // (price.output * _SHARE))
    return max(1, min(bounds))


def used(done: ResponseDone, meter: Meter | None) -> tuple[Usage, bool]:
    """Return what a response counts for that has ended, and whether that is but an estimate.

    *meter*: what counted it on this node; None: its agent wasn't asked here, for all that is known.
    """
    if done.usage is not None:
        if meter is None:
            return _clean(done.usage), False
        if done.status == "completed" and not meter.is_left:
            return meter.billed(done.usage), False
    if meter is None:
        if done.status == "interrupted":  # with its node: what that held of it is lost
            return Usage(), False
        said = sum(map(produced_bytes, done.output))
        return (_clean(Usage(0, tokens_of(said))), True) if said else (Usage(), False)
    return meter.total(was_asked=done.status == "cancelled")


def _sum(one: Usage, other: Usage) -> Usage:
    """Return both together, as far as can be counted. Nobody's answer is reused for them."""
    return _clean(
        Usage(
            one.input_tokens + other.input_tokens,
            one.output_tokens + other.output_tokens,
            one.cached_tokens + other.cached_tokens,
        )
    )


def _clean(usage: Usage) -> Usage:
    """Return *usage* in numbers that can be counted: an agent may yield anything.

    Raises:
        TypeError: It holds something that is no number of tokens.

    """
    counts: list[Any] = [usage.input_tokens, usage.output_tokens, usage.cached_tokens]
    read, said, cached = (min(max(operator.index(count or 0), 0), MOST // 2) for count in counts)
    return Usage(read, said, cached, usage.reused)
