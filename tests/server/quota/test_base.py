from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.quota.base import MOST, Amount, bounded


@pytest.mark.parametrize("amounts", [(-1, 0), (0, -1), (MOST + 1, 0), (0, MOST + 1)])
def test_an_amount_is_one_that_can_be_counted(amounts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no turn"):
        Amount(*amounts)


@given(st.integers(), st.integers())
def test_whatever_is_said_comes_to_an_amount(tokens: int, cost: int) -> None:
    amount = bounded(tokens, cost)

    assert amount.tokens == tokens or tokens not in range(MOST + 1)
    assert amount.cost == cost or cost not in range(MOST + 1)
