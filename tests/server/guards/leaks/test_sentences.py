"""What is held of a sentence, and how it is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.guards.leaks.samples import cut
from unbroken.server.guards.leaks.json_strings import JsonStrings
from unbroken.server.guards.leaks.sentences import MOST_HELD, Passage, Sentences

WORDS = st.sampled_from(
    [
        "Maria",
        "Lopez.",
        "the",
        "The",
        "Dr.",
        "J.",
        "it's",
        "12",
        "Street,",
        "用户",
        "。",
        "A" * 300,
        "b" * 600,
        "X.",
        "é",
        "Élan",
        "(Bob)",
        "'Eve'",
        "...",
        '?"',
        "12.",
        "i.e.",
        "A B C D",
        "aB",
        "\ud83d",
        "ǅ",
        "-",
        ".",
    ]
)
GAPS = st.sampled_from(["", " ", " ", " ", "  ", "\n", " \n", "\t", "\u00a0", "\u2028"])
TEXTS = st.lists(st.tuples(WORDS, GAPS), max_size=40).map(lambda parts: "".join(w + g for w, g in parts))
PLACES = st.lists(st.integers(0, 3000), max_size=40)


def joined(passages: list[Passage]) -> list[tuple[str, str | None]]:
    """Return *passages* with those in sequence that nobody reads as one."""
    whole: list[tuple[str, str | None]] = []
    for each in passages:
        if each.context is None and whole and whole[-1][1] is None:
            whole[-1] = (whole[-1][0] + each.text, None)
        elif each.text:
            whole.append((each.text, each.context))
    return whole


def read(cutter: Sentences | JsonStrings, pieces: list[str]) -> list[Passage]:
    return [each for piece in pieces for each in cutter.feed(piece)] + cutter.flush()


@given(text=TEXTS | st.text("aA1. \n'é\u3002", max_size=700), places=PLACES)
@settings(max_examples=3 * settings().max_examples, deadline=None)
def test_however_the_text_comes_the_same_sentences_are_read(text: str, places: list[int]) -> None:
    whole = joined(read(Sentences(), [text]))

    assert "".join(part for part, _ in whole) == text
    assert joined(read(Sentences(), cut(text, places))) == whole
    assert joined(read(Sentences(), list(text))) == whole


@given(text=TEXTS)
@settings(deadline=None)
def test_never_more_is_held_than_the_bound(text: str) -> None:
    sentences = Sentences()
    for char in text:
        sentences.feed(char)
        assert sentences.held <= MOST_HELD


@given(text=TEXTS, places=PLACES, times=st.lists(st.booleans(), max_size=40))
@settings(deadline=None)
def test_whenever_time_is_up_everything_leaves_once_and_no_name_unread(
    text: str, places: list[int], times: list[bool]
) -> None:
    sentences = Sentences()
    passages: list[Passage] = []
    for number, piece in enumerate(cut(text, places)):
        passages += sentences.feed(piece)
        if number < len(times) and times[number]:
            passages += sentences.cut()
    passages += sentences.flush()

    assert "".join(each.text for each in passages) == text
    unread = "".join(each.text if each.context is None else "|" for each in passages)
    assert not any(word in unread for word in ("Maria", "Lopez", "Street", "Bob", "Eve"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it was late and dark. so they went", []),
        ("The cat sat. It's fine, I'm sure.", []),
        ("See Maria Lopez today. Then rest.", ["See Maria Lopez today."]),
        (
            "Ask Dr. J. B. Smith at 5 Elm St. or me. Now Ann.",
            ["Ask Dr. J. B. Smith at 5 Elm St. or me.", "Ann."],
        ),
        ("Ann!\nBob?\n1. Eve", ["Ann!", "Bob?", "1. Eve"]),
        ('He said "Stop." Ann left.', ['Stop."', "Ann left."]),
        ("我们。Ann我们。Bob", ["Ann我们。", "Bob"]),
        ("It is version 3.5 of Python.", ["3.5 of Python."]),
    ],
)
def test_a_sentence_is_read_from_its_first_capital_letter_or_number_to_its_end(
    text: str, expected: list[str]
) -> None:
    passages = read(Sentences(), [text])

    assert [each.text for each in passages if each.context is not None] == expected


def test_a_model_is_shown_what_has_left_of_the_same_sentence_and_of_no_other() -> None:
    passages = read(Sentences(), ["all is well. your appointment with Ann Lee is over. so is Bob's"])

    assert [(each.context, each.text) for each in passages if each.context is not None] == [
        ("your appointment with ", "Ann Lee is over."),
        ("so is ", "Bob's"),
    ]


@pytest.mark.parametrize("before", range(49, 53))
def test_one_that_does_not_end_is_cut_and_no_name_in_two(before: int) -> None:
    text = "Ann " + "and so on " * before + "Maria Lopez " + "and so on " * 10
    passages = [each for each in read(Sentences(), [text]) if each.context is not None]

    assert all(len(each.text) <= MOST_HELD for each in passages)
    (whole,) = (each for each in passages if "Maria Lopez" in each.text)
    assert whole is passages[-1]
    assert len(passages) == 1 or (whole.context or "").endswith("and so on ")


@pytest.mark.long
@pytest.mark.parametrize("text", ["A" * 3_000_000, "Ann a. " * 20_000, "A b " * 20_000, "a" * 3_000_000])
def test_a_long_text_takes_no_longer_for_each_character(text: str) -> None:
    """What takes quadratic time takes longer than the suite waits for."""
    assert sum(len(each.text) for each in read(Sentences(), [text])) == len(text)


def test_cut_by_time_what_may_be_half_a_name_stays_once() -> None:
    sentences = Sentences()
    sentences.feed("It was Ann who called Maria Lo")

    assert "".join(each.text for each in sentences.cut()) == "Ann who called "
    assert sentences.held == len("Maria Lo")
    assert "".join(each.text for each in sentences.cut()) == "Maria Lo"
    assert sentences.held == 0
    assert [each.context for each in sentences.feed("pez is Ann. ")][
        -2
    ] == "It was Ann who called Maria Lopez is "


# JSON.


@given(text=TEXTS, places=PLACES)
@settings(max_examples=15 * settings().max_examples // 10, deadline=None)
def test_json_leaves_as_it_is_written_however_it_comes(text: str, places: list[int]) -> None:
    raw = json.dumps({"a": text, "b": [1.5, text, True], "é": ""})
    whole = read(JsonStrings(), [raw])

    assert "".join(each.part(0, len(each.text)) for each in whole) == raw
    assert joined(read(JsonStrings(), cut(raw, places))) == joined(whole)


def test_escapes_are_read_as_what_they_stand_for() -> None:
    passages = read(JsonStrings(), ['{"to": "see \\u00c9mile\\nO\'Neill \\"x\\"", "n": 12}'])
    held = [each for each in passages if each.context is not None]

    assert [each.text for each in held] == ["Émile", 'O\'Neill "x"']
    assert held[0].part(0, 2) == "\\u00c9m"


def test_what_is_no_json_is_cut_as_text() -> None:
    passages = read(JsonStrings(), ["please write to \\u00c9mile Zola. then stop"])

    assert [each.text for each in passages if each.context is not None] == ["Émile Zola."]


@pytest.mark.parametrize(
    "raw", ['{"a": "Ann \\', '{"a": "Ann \\u00', '{"a": "Ann', '{"a": "\\uzzzz Ann"', '"\\x"']
)
def test_what_is_no_json_or_not_yet_leaves_all_the_same(raw: str) -> None:
    passages = read(JsonStrings(), [raw])
    assert "".join(each.part(0, len(each.text)) for each in passages) == raw
