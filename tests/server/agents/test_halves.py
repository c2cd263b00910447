from __future__ import annotations

import msgspec
import pytest

from unbroken.server.agents.halves import Halves, decode_halves


class Said(msgspec.Struct):
    text: str = ""


@pytest.mark.parametrize(
    ("pieces", "joined"),
    [
        (["a", "b"], ["a", "b"]),
        (["a\ud83d", "\ude00b"], ["a", "😀b"]),
        (["\ud83d", "", "\ude00"], ["", "", "😀"]),
        (["\ud83d", "\ude00\ud83d", "\ude01"], ["", "😀", "😁"]),
        (["\ud83d", "x", "\ude00"], ["", "\ud83dx", "\ude00"]),
        (["a\ud83d"], ["a"]),
    ],
)
def test_a_first_half_waits_for_its_second(pieces: list[str], joined: list[str]) -> None:
    halves = Halves()

    assert [halves.join("text", piece) for piece in pieces] == joined


def test_each_text_has_its_own_halves() -> None:
    halves = Halves()

    said = [halves.join(place, piece) for place, piece in [(1, "\ud83d"), (2, "x"), (1, "\ude00")]]
    assert said == ["", "x", "😀"]


def test_only_halves_are_decoded() -> None:
    assert decode_halves(b'{"text": "\\uD83d"}', Said) == Said("\ud83d")
    for other in (b'{"text": 1}', b'{"text": "\\ud83d"', b'{"text": 1, "\\ud83d": 2}', b'"\\ud83d" \xff'):
        with pytest.raises(msgspec.DecodeError):
            decode_halves(other, Said)
