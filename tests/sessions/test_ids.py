from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from unbroken.sessions import ids


@pytest.mark.parametrize(
    ("mint", "form"),
    [
        (ids.new_session_id, r"sess_[0-9a-f]{32}"),
        (ids.new_response_id, r"resp_[0-9a-f]{24}"),
        (ids.new_item_id, r"item_[0-9a-f]{24}"),
        (ids.new_node_id, r"node_[0-9a-f]{16}"),
        (ids.new_chain_id, r"[0-9a-f]{12}"),
        (ids.new_incarnation, r"[0-9a-f]{8}"),
    ],
)
def test_an_id_has_its_form_and_comes_once(mint: Callable[[], str], form: str) -> None:
    """Tokens and cursors are parsed by these forms."""
    minted = {mint() for _ in range(64)}

    assert len(minted) == 64
    assert all(re.fullmatch(form, each) for each in minted)
