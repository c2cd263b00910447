from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.guards.injection.windows import PART, SHARED, WINDOW, parts, windows


@given(st.text(alphabet="ab .\n!", max_size=2000))
def test_windows_cover_the_text_in_order(text: str) -> None:
    found = windows(text)

    assert all(0 < end - start <= WINDOW for start, end in found)
    covered = 0
    for start, end in found:
        assert start <= covered < end
        covered = end
    assert covered == len(text)
    assert len(found) <= 4 + len(text) // 64


def test_windows_end_where_sentences_do() -> None:
    text = ("x" * 150 + ". ") * 4

    assert [text[end - 2 : end] for _, end in windows(text)] == [". "] * 4


@given(st.integers(0, 5 * PART))
def test_parts_cover_the_text_and_share_some_of_it(size: int) -> None:
    text = "".join(chr(0x100 + number % 5000) for number in range(size))
    found = list(parts(text))

    assert found[0] + "".join(part[SHARED:] for part in found[1:]) == text
    assert all(len(part) <= PART for part in found)
