"""What tokens cost. Integers throughout: a price is millionths of a currency unit for a million tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Final

__all__ = ["FREE", "Price", "Prices", "shipped"]

_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Of one model."""

    input: int = 0
    output: int = 0
    cached: int | None = None
    """Of input tokens that the provider had read before. None: as others."""

    @classmethod
    def of(cls, input: Decimal, output: Decimal, cached: Decimal | None = None) -> Price:
        """Return the price that is so many currency units for a million tokens; rounded up to millionths."""
        return cls(_millionths(input), _millionths(output), None if cached is None else _millionths(cached))

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """Return what a turn costs, in millionths, rounded up. Cached tokens are among those of the input."""
        cached = min(cached_tokens, input_tokens)
        price = self.input if self.cached is None else self.cached
        total = (input_tokens - cached) * self.input + cached * price + output_tokens * self.output
        return -(-total // _MILLION)


FREE: Final = Price()
"""Of a model that nobody has named a price for."""


class Prices:
    """The prices of models, by their names.

    A dated name (``gpt-5-mini-2025-08-07``, ``claude-haiku-4-5-20251001``) has the plain one's, where it
    has none of its own.
    """

    def __init__(self, table: Mapping[str, Price]) -> None:
        self._table = dict(table)

    def find(self, model: str) -> Price | None:
        """Return a model's price. None: it isn't known."""
        if (price := self._table.get(model)) is not None:
            return price
        dated = re.fullmatch(r"(.+)-(?:\d{4}-\d{2}-\d{2}|\d{8})", model)
        return None if dated is None else self._table.get(dated[1])

    def of(self, model: str) -> Price:
        """Return a model's price; that of one that isn't known is nothing."""
        return self.find(model) or FREE


def shipped() -> dict[str, Price]:
    """Return the list that comes with the server: what was published on the day that is in the file.

    Standard prices in dollars, for prompts that aren't long: see docs/operations.md.
    """
    text = (files("unbroken.server.quota") / "prices.json").read_text("utf-8")
    table = json.loads(text)["per_million_tokens"]
    return {
        model: Price.of(Decimal(row["input"]), Decimal(row["output"]), Decimal(row["cached"]))
        for model, row in table.items()
    }


def _millionths(units: Decimal) -> int:
    return int((units * _MILLION).to_integral_value(rounding="ROUND_CEILING"))
