from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.guards.injection.windows import WINDOW, choose, windows


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


def test_the_first_is_chosen_and_those_with_most_places() -> None:
    text = "".join(f"{number:03} " + "x" * 240 + ". " for number in range(20))
    places = [text.index("007 ") + 5, text.index("007 ") + 9, text.index("012 ") + 5]

    assert [window[:3] for window in choose(text, places, 3)] == ["000", "007", "012"]
    assert choose("short", [], 3) == ["short"]
    assert choose("", [], 3) == []
