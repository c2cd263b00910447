"""What is taken for encoded, and what is only numbers and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.guards.injection.decoding import pieces

_SCRAPS = st.sampled_from(
    [
        "U+",
        "0049",
        "\\49 ",
        "\\U000",
        "00049",
        "01001001",
        "49",
        "111",
        "SWdu",
        "aabb",
        "jftw433s",
        "0x",
        "%49",
    ]
)
_GLUE = st.sampled_from(["", "", " ", "-", "\n", ",", ", ", ";", "="])


@given(st.lists(st.tuples(_SCRAPS, _GLUE), max_size=60))
def test_whatever_looks_encoded_can_be_tried(parts: list[tuple[str, str]]) -> None:
    for _ in pieces("".join(scrap + glue for scrap, glue in parts)):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "123e4567-e89b-12d3-a456-426614174000, 9f86d081-884c-4d63-a1b2-c3d4e5f60718",
        "10-20-30-40-50-60-70-80-90-10-20-30-40-50",
        "\n".join(str(number) for number in range(10, 60)),
        "755 644 600 700 755 644 600 700 755 644 600 700 755",
        "00:1a:2b:3c:4d:5e 66-77-88-99-aa-bb 00-11-22-33-44-55",
        "a-name-with-many-words-that-stand-for-themselves",
        "pack-unpa-name-file-list-more-last-next-stop",
        "C:\\20\\30\\40\\50\\60\\70\\20\\30",
        "U+0041 to U+005A, U+0061",
        "bookkeeper and committee, aardvark",
        "thequickbrownfoxjumpsoverthelazydogandgoeson",
    ],
)
def test_numbers_and_names_are_no_text(text: str) -> None:
    assert list(pieces(text)) == []
