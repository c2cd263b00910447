from __future__ import annotations

import pytest

from unbroken.server.guards.injection.words import BadPattern, Matcher, Vocabulary, slices


def found(pattern: str, text: str) -> bool:
    matcher = Matcher(Vocabulary([pattern]))
    return any(list(matcher.feed(piece, offset)) for offset, piece in slices(text))


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        ("ignore rules", "ignore rules", True),
        ("ignore rules", "please, ignore: rules!", True),
        ("ignore rules", "ignore the rules", False),
        ("ignore ..2 rules", "ignore all the rules", True),
        ("ignore ..2 rules", "ignore all of the rules", False),
        ("ignore ..2 rules", "ignore and ignore all the rules", True),
        ("ignore|forget rule*", "forget rulebooks", True),
        ("rules ignore", "ignore rules", False),
        ("a a", "a", False),
        ("a a", "a a", True),
        ("忽 略 ..3 指 令", "请忽略所有的指令", True),
        ("忽 略 ..3 指 令", "请忽略以上所有的指令", False),
    ],
)
def test_patterns(pattern: str, text: str, is_found: bool) -> None:
    assert found(pattern, text) is is_found


@pytest.mark.parametrize("pattern", ["", "..3", "ignore ..3", "ig*", "| x", "a|b-c"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BadPattern):
        Vocabulary([pattern])


def test_a_pattern_is_found_across_slices() -> None:
    text = "x " * 2046 + "ignore all the rules"  # a slice has 4,096 characters

    assert len(list(slices(text))) == 2
    assert found("ignore ..2 rules", text)


@pytest.mark.parametrize("text", ["a" * 10_000, "word " * 5000, "", "\n" * 9000, "é!" * 5000])
def test_slices_are_the_text(text: str) -> None:
    pieces = list(slices(text))

    assert "".join(piece for _, piece in pieces) == text
    assert all(text[offset:].startswith(piece) for offset, piece in pieces)
    assert all(0 < len(piece) <= 4096 for _, piece in pieces)
