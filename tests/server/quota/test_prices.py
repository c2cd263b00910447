from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.quota.prices import FREE, Price, Prices, shipped

ROOT = Path(__file__).parents[3]

counts = st.integers(0, 10**9)


def test_a_price_is_for_a_million_tokens() -> None:
    price = Price.of(Decimal("0.25"), Decimal("2"), Decimal("0.025"))

    assert price.cost(1_000_000, 0) == 250_000
    assert price.cost(0, 1_000_000) == 2_000_000
    assert price.cost(1_000_000, 0, 1_000_000) == 25_000
    assert price.cost(1, 0) == 1, "rounded up: nothing is free that has a price"


@given(counts, counts, counts)
def test_costs_are_whole_and_never_negative(read: int, said: int, cached: int) -> None:
    cost = Price.of(Decimal("0.10"), Decimal("0.40"), Decimal("0.025")).cost(read, said, cached)

    assert isinstance(cost, int)
    assert 0 <= cost <= Price.of(Decimal("0.10"), Decimal("0.40")).cost(read, said)


def test_a_dated_model_has_the_price_of_the_plain_one() -> None:
    prices = Prices(shipped())

    assert prices.find("gpt-5-mini-2025-08-07") == prices.find("gpt-5-mini") is not None
    assert prices.find("claude-haiku-4-5-20251001") == prices.find("claude-haiku-4-5") is not None
    assert prices.find("gpt-5-mini-turbo") is None
    assert prices.find("gpt-5-mini-20250") is None
    assert prices.of("somebody's own") == FREE


def test_a_dated_model_may_have_a_price_of_its_own() -> None:
    own = Price.of(Decimal(5), Decimal(15))
    prices = Prices({"gpt-4o": FREE, "gpt-4o-2024-05-13": own})

    assert prices.find("gpt-4o-2024-05-13") == own
    assert prices.find("gpt-4o-2024-08-06") == FREE


def test_the_list_that_is_shipped_says_of_when_it_is_and_so_do_the_docs() -> None:
    listed = json.loads((ROOT / "server" / "quota" / "prices.json").read_text())
    date.fromisoformat(listed["checked"])

    assert listed["currency"] == "USD"
    assert listed["checked"] in (ROOT / "docs" / "operations.md").read_text()
    assert all(set(row) == {"input", "output", "cached"} for row in listed["per_million_tokens"].values())


def test_cached_input_is_never_dearer() -> None:
    assert all(p.cached is not None and p.cached <= p.input <= p.output for p in shipped().values())
