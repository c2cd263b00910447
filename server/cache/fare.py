"""Who pays for a flight. No I/O, no clock.

One of its askers does: who asked first. When they leave before it is over, whoever has waited longest takes
their place, and owes all that the agent was sent and says, until its bill comes. Who leaves counts what they
were given; the last one all that was said, given or not. So nothing that an agent says is free because its
askers come and go; it may be counted more than once, as it would be without a cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import UNSET

from unbroken.server.quota.share import Share
from unbroken.sessions.items import Reused, Usage
from unbroken.sessions.responder import Output, Unbilled

__all__ = ["Fare", "Fellow"]


class Fellow:
    """One of a flight's askers, as far as it pays."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.is_handed_on = False
        """Whether it owes what another has begun, and wasn't told yet."""
        self.told: Usage | None = None
        """The agent's last bill that it came to, whoever pays it."""
        self.since: list[Output] = []
        """What it was given behind that."""


class Fare:
    """What one flight comes to, and whose that is."""

    def __init__(self) -> None:
        self._payer: Fellow | None = None
        self._paid: Usage | None = None  # by payers who have left
        self._is_settled = False

    def board(self, fellow: Fellow) -> None:
        """One more asks."""
        is_first = self._payer is None and not self._is_settled
        fellow.share.owes = is_first
        if is_first:
            self._payer = fellow

    def take(self, fellow: Fellow, output: Output) -> Output:
        """Return what *fellow* is given for *output*: of a bill, that it is another's, if it is."""
        if not isinstance(output, Usage):
            if fellow.told is not None:
                fellow.since.append(output)
            return output
        if output.reused is not UNSET:  # nobody was asked
            self._payer, self._is_settled = None, True
            return output
        fellow.told = output
        fellow.since.clear()
        return self._due(output) if self._payer is fellow else Usage(reused=Reused("flight", 0.0))

    def hand_on(self, fellow: Fellow) -> Usage | Unbilled:
        """Return what tells *fellow* that it owes what another has begun."""
        fellow.is_handed_on = False
        if fellow.told is None:
            return Unbilled()
        fellow.share.rest = tuple(fellow.since)
        return self._due(fellow.told)

    def leave(
        self, fellow: Fellow, others: Iterable[Fellow], rest: Sequence[Output], *, is_over: bool
    ) -> None:
        """*fellow* leaves, with *others* left, and isn't given the *rest*. *is_over*: nothing more comes."""
        if self._payer is not fellow:
            return
        self._payer = None
        heir = next(iter(others), None)
        was_told = not fellow.is_handed_on
        if is_over and not rest and was_told:
            self._is_settled = True
        elif heir is None:
            if fellow.told is not None and not was_told:
                rest = [fellow.told, *fellow.since, *rest]
            fellow.share.rest = [self._due(each) if isinstance(each, Usage) else each for each in rest]
            self._is_settled = True
        else:
            if was_told:
                self._paid = fellow.told
            self._payer = heir
            heir.share.owes = heir.is_handed_on = True

    def _due(self, bill: Usage) -> Usage:
        """Return what of *bill*, which is of the whole call, nobody has paid who has left."""
        paid = self._paid
        if paid is None or bill.reused is not UNSET:
            return bill
        return Usage(
            max(0, bill.input_tokens - paid.input_tokens),
            max(0, bill.output_tokens - paid.output_tokens),
            max(0, bill.cached_tokens - paid.cached_tokens),
        )
