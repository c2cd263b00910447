from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from unbroken.sessions import ids
from unbroken.sessions.ids import PrincipalId, SessionId

SESSION = SessionId("sess_" + 32 * "a")
ALICE, BOB = PrincipalId("alice"), PrincipalId("bob")


@pytest.mark.parametrize(
    ("mint", "form"),
    [
        (ids.new_session_id, r"sess_[0-9a-f]{32}"),
        (lambda: ids.new_response_id(SESSION, 0), r"resp_[0-9a-f]{32}[0-9a-f]{16}"),
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


@pytest.mark.parametrize("transient", [False, True])
def test_a_session_is_its_principals_alone(*, transient: bool) -> None:
    session_id = ids.new_session_id(ALICE, transient=transient)

    assert ids.belongs_to(session_id, ALICE)
    assert not ids.belongs_to(session_id, BOB)
    assert ids.is_transient(session_id) is transient


@pytest.mark.parametrize("given", ["", "sess_", "sess_é", "sess_" + 31 * "0", "x" * 40])
def test_what_is_no_session_is_nobodys(given: str) -> None:
    assert not ids.belongs_to(SessionId(given), ALICE)


@pytest.mark.parametrize("transient", [False, True])
def test_a_response_says_which_session_it_is_of(*, transient: bool) -> None:
    session_id = ids.new_session_id(ALICE, transient=transient)
    response_id = ids.new_response_id(session_id, 1_790_000_000.7)

    assert ids.session_of(response_id) == session_id
    assert ids.minted_at(response_id) == 1_790_000_000


@pytest.mark.parametrize("given", ["", "resp_", "resp_" + 24 * "0", "resp_" + 48 * "g", "resp_" + 50 * "0"])
def test_an_id_that_says_nothing_is_taken_as_it_is(given: str) -> None:
    assert ids.session_of(given) is None
    assert ids.minted_at(given) == 0
