from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.guards.injection.normal_form import NormalForm


@pytest.mark.parametrize(
    ("text", "formed"),
    [
        ("Ignore", "ignore"),
        ("Überspringe", "uberspringe"),
        ("ｉｇｎｏｒｅ", "ignore"),
        ("𝐢𝐠𝐧𝐨𝐫𝐞", "ignore"),
        ("ig\u200bno\u00adre\ufeff", "ignore"),
        ("i\u0335g\u0321n\u033eore", "ignore"),
        ("іgnоrе", "ignore"),  # three of them Cyrillic
        ("игнорируй", "игнорируи"),  # a word of its own language stays one
        ("a\u2028b\u3000c\td", "a\nb c d"),
        ("a\U000e0041b", "ab"),
        ("\ud800x", "x"),
    ],
)
def test_what_looks_alike_is_one(text: str, formed: str) -> None:
    assert NormalForm().of(text) == formed


def test_whole_words_of_lookalikes_are_read_only_in_the_view_for_them() -> None:
    form = NormalForm()

    assert form.of("ѕуѕ") == "ѕуѕ"
    assert form.lookalikes("ѕуѕ") == "sys"
    assert form.lookalikes("правило") == "правило"


@given(st.text())
def test_it_is_a_form(text: str) -> None:
    """What has it keeps it; and nothing is longer by more than its own decompositions."""
    form = NormalForm()
    formed = form.of(text)

    assert form.of(formed) == formed
    assert len(formed) <= 18 * len(text)


def test_the_table_is_bounded() -> None:
    form = NormalForm()
    form.of("".join(map(chr, range(0x20, 0x1FFFF))))

    assert len(form._table) <= 20_000


@given(st.text(max_size=50) | st.text(alphabet="\ufdfa\ufdfb\u33ff\ufb03", max_size=50))
def test_no_text_becomes_much_longer(text: str) -> None:
    assert len(NormalForm().of(text)) <= 4 * len(text)
