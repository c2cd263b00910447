from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.quota.prices import FREE, Price, Prices, shipped

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
    assert prices.find("gpt-5-mini-turbo") is None
    assert prices.of("somebody's own") == FREE


def test_cached_input_is_never_dearer() -> None:
    assert all(p.cached is not None and p.cached <= p.input <= p.output for p in shipped().values())
