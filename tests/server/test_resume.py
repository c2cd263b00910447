from __future__ import annotations

import hmac
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server import resume
from unbroken.server.resume import ResumeTokens
from unbroken.sessions.ids import ChainId, PrincipalId, SessionId, new_chain_id, new_session_id

TOKENS: Final = ResumeTokens(b"s" * 32)
ALICE: Final = PrincipalId("alice")
SESSION: Final = SessionId("sess_" + "0a" * 16)
CHAIN: Final = ChainId("0b" * 6)
TOKEN: Final = TOKENS.mint(SESSION, CHAIN, ALICE)


def test_a_token_names_what_it_was_minted_for() -> None:
    for _ in range(20):
        session_id, chain = new_session_id(), new_chain_id()
        token = TOKENS.mint(session_id, chain, ALICE)
        assert TOKENS.check(token, ALICE) == (session_id, chain)


def test_a_token_fits_a_url_as_it_is() -> None:
    assert len(TOKEN) < 80
    assert all(char.isascii() and (char.isalnum() or char in "_-") for char in TOKEN)


def test_a_token_is_its_principal_s_alone() -> None:
    assert TOKENS.check(TOKEN, PrincipalId("bob")) is None
    assert TOKENS.check(TOKEN, PrincipalId("")) is None


def test_a_token_holds_where_the_secret_is_the_same() -> None:
    assert ResumeTokens(b"s" * 32).check(TOKEN, ALICE) == (SESSION, CHAIN)
    assert ResumeTokens(b"t" * 32).check(TOKEN, ALICE) is None


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_a_token_with_one_character_changed_is_none(index: int, char: str) -> None:
    changed = TOKEN[:index] + char + TOKEN[index + 1 :]

    assert TOKENS.check(changed, ALICE) == ((SESSION, CHAIN) if changed == TOKEN else None)


@given(st.text())
def test_anything_else_is_no_token(text: str) -> None:
    assert TOKENS.check(text, ALICE) is None


@pytest.mark.parametrize(
    "token", ["", "rt_", TOKEN + "\n", " " + TOKEN, TOKEN + "=", TOKEN.upper(), TOKEN[:-1]]
)
def test_near_misses_are_no_tokens(token: str) -> None:
    assert TOKENS.check(token, ALICE) is None


def test_parts_of_two_tokens_make_none() -> None:
    other = TOKENS.mint(new_session_id(), CHAIN, ALICE)
    head, tail = TOKEN[:-22], other[-22:]

    assert TOKENS.check(head + tail, ALICE) is None


@pytest.mark.parametrize("token", [TOKEN, TOKEN[:-1] + "x", "garbage", ""])
def test_the_same_is_computed_whatever_comes(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature is made and compared in constant time even for what isn't a token at all."""
    done: list[str] = []

    class Recording:
        @staticmethod
        def compare_digest(one: str, other: str) -> bool:
            done.append("compare")
            return hmac.compare_digest(one, other)

        @staticmethod
        def digest(key: bytes, data: bytes, kind: object) -> bytes:
            done.append("digest")
            return hmac.digest(key, data, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(resume, "hmac", Recording)
    TOKENS.check(token, ALICE)

    assert done == ["digest", "compare"]
