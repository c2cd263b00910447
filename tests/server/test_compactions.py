from __future__ import annotations

import base64
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.clock import FakeClock
from unbroken.server import compactions
from unbroken.server.compactions import MOST_BYTES, Compactions
from unbroken.sessions.ids import PrincipalId

SECRET: Final = b"s" * 32
ALICE: Final = PrincipalId("alice")
TEXT: Final = "They launch on Tuesday."
SEALED: Final = Compactions(SECRET, FakeClock()).seal(TEXT, ALICE)


def opened(sealed: str, principal: PrincipalId = ALICE, secret: bytes = SECRET) -> str | None:
    return Compactions(secret, FakeClock()).open(sealed, principal)


@given(st.text(max_size=2000), st.text(max_size=40))
def test_what_is_sealed_is_opened(text: str, principal: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    sealed = Compactions(SECRET, FakeClock()).seal(text, PrincipalId(principal))

    assert opened(sealed, PrincipalId(principal)) == text


def test_nobody_reads_it_on_its_way() -> None:
    data = base64.urlsafe_b64decode(SEALED + "=" * (-len(SEALED) % 4))
    assert b"Tuesday" not in data


def test_no_two_are_alike() -> None:
    same = {Compactions(SECRET, FakeClock()).seal(TEXT, ALICE) for _ in range(20)}
    assert len({sealed[24:60] for sealed in same}) == 20  # nor is what they say, masked


def test_the_longest_is_opened_and_a_longer_one_isnt() -> None:
    for size in (MOST_BYTES - 2, MOST_BYTES - 1, MOST_BYTES):
        assert opened(Compactions(SECRET, FakeClock()).seal("x" * size, ALICE)) == "x" * size
    assert opened(Compactions(SECRET, FakeClock()).seal("x" * (MOST_BYTES + 9), ALICE)) is None
    assert opened("A" * 10_000_000) is None


def test_it_is_its_principal_s_alone() -> None:
    for other in ("bob", "", "alice\0", "tag\0alice"):
        assert opened(SEALED, PrincipalId(other)) is None


def test_it_is_good_where_the_secret_is_the_same() -> None:
    assert opened(SEALED, secret=b"t" * 32) is None


def test_it_is_good_for_a_month() -> None:
    clock = FakeClock()
    begun = Compactions(SECRET, clock)
    sealed = begun.seal(TEXT, ALICE)
    start = clock.now

    for days, text in ((29, TEXT), (31, None), (-1, TEXT)):  # a clock may also be set back
        clock.now = start + days * 86_400
        assert begun.open(sealed, ALICE) == text


def test_one_of_another_version_isnt_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compactions, "_VERSION", b"\x02")
    later = Compactions(SECRET, FakeClock()).seal(TEXT, ALICE)
    monkeypatch.undo()

    assert opened(later) is None


@given(st.integers(0, len(SEALED) - 1), st.characters())
def test_with_one_character_changed_it_isnt_read(index: int, char: str) -> None:
    changed = SEALED[:index] + char + SEALED[index + 1 :]

    assert opened(changed) == (TEXT if changed == SEALED else None)


@given(st.integers(0, 8 * len(SEALED) * 3 // 4 - 8), st.integers(0, 255))
def test_with_bits_changed_it_isnt_read(bit: int, pattern: int) -> None:
    data = bytearray(base64.urlsafe_b64decode(SEALED + "=" * (-len(SEALED) % 4)))
    before = bytes(data)
    data[min(bit // 8, len(data) - 1)] ^= pattern
    changed = base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    assert opened(changed) == (TEXT if bytes(data) == before else None)


@given(st.integers(0, len(SEALED)), st.integers(0, len(SEALED)))
def test_a_part_of_it_isnt_read(start: int, end: int) -> None:
    part = SEALED[start:end]
    assert opened(part) == (TEXT if part == SEALED else None)


@given(st.one_of(st.text(), st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode())))
def test_anything_else_isnt_read(text: str) -> None:
    assert opened(text) is None


@pytest.mark.parametrize("near", [SEALED + "=", " " + SEALED, SEALED + "\n", SEALED * 2, SEALED.swapcase()])
def test_near_misses_arent_read(near: str) -> None:
    assert opened(near) is None


def test_parts_of_two_make_none() -> None:
    other = Compactions(SECRET, FakeClock()).seal(TEXT, ALICE)
    assert opened(SEALED[:24] + other[24:]) is None
    assert opened(SEALED[:-43] + other[-43:]) is None
