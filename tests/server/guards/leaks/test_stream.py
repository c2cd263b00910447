from __future__ import annotations

from itertools import accumulate, cycle, islice
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.guards.leaks.samples import ALL, BODY, JWT, PRIVATE_KEY, SAMPLES, cut, filtered, leak_filter
from unbroken.server.guards.leaks.canary import SpelledOut
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, Actions
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.secret_rules import SECRET_RULES
from unbroken.server.guards.leaks.stream import LONGEST_ORDINARY, MOST_HELD, MOST_HELD_NUMBERS, LeakFilter

ARABIC: Final = {ord(str(digit)): chr(0x660 + digit) for digit in range(10)}


def wide(text: str) -> str:
    """Return *text* in full-width letters, digits and signs."""
    return "".join(char if char == " " else chr(ord(char) + 0xFEE0) for char in text)


ORDINARY: Final = st.sampled_from(
    [
        "the",
        "word",
        "US",
        "Note:",
        "well-known",
        "in",
        "2024",
        "12",
        "3.5",
        "C++",
        "é",
        "Größe",
        "ñ@é.es",
        "/",
        "用户",
        "😀",
        "\ud83d",
        "(see",
        "x=1",
        "https://example.org/a?b=c",
        "password",
        "=",
        "is",
        "key",
        "Bearer",
        "-----BEGIN",
        "key-----",
        "ssn",
        "a" * 30,
        "GB82",
        "WEST",
        "1111",
        "4111",
        "+",
        "@",
        "sk-",
        "eyJ",
        "\u200b",
        "\0",
        wide("12"),
        "::",
        "1.2.3",
    ]
)
GAPS: Final = st.sampled_from(["", " ", " ", "  ", "\n", "\n\n", "\t", "\u00a0", ", ", ".", '"', "\\n"])
WORDS: Final = ORDINARY | st.sampled_from([text for _, text in SAMPLES])
TEXTS: Final = st.lists(st.tuples(WORDS, GAPS), max_size=14).map(
    lambda parts: "".join(w + g for w, g in parts)
)
SIGNS: Final = st.text("0123 -.@:=/aAeyJsk_\n\u200b", max_size=300)
PLACES: Final = st.lists(st.integers(0, 900), max_size=40)


@given(text=TEXTS | SIGNS | st.text(max_size=200), places=PLACES)
@settings(max_examples=4 * settings().max_examples)
def test_however_the_text_is_cut_what_leaves_is_the_same(text: str, places: list[int]) -> None:
    assert filtered(cut(text, places)) == filtered([text])


PROSE: Final = st.lists(
    st.sampled_from(["the ", "a", "word ", "it.\n", "1 ", "x@y.zz ", "-", " "]), max_size=40
)


@given(text=PROSE.map("".join) | TEXTS, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=4 * settings().max_examples)
def test_in_pieces_as_small_as_tokens_it_is_the_same(text: str, sizes: list[int]) -> None:
    places = list(accumulate(islice(cycle(sizes), len(text))))

    assert filtered(cut(text, places)) == filtered([text])


LISTS: Final = st.lists(
    st.sampled_from(
        [
            "1 ",
            "12 ",
            "123, ",
            "4111 ",
            "1111 1111 ",
            "(1) ",
            "/ ",
            "030/ ",
            "+1 ",
            "1\t",
            "1  ",
            "1" * 30 + " ",
            "1-----BEGIN ",
            "1111-----BEGIN4671é+",
            "a1 ",
        ]
    ),
    max_size=90,
)


@given(text=LISTS.map("".join), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(max_examples=2 * settings().max_examples, deadline=None)
def test_lists_of_numbers_are_the_same_however_they_come(text: str, sizes: list[int]) -> None:
    places = list(accumulate(islice(cycle(sizes), len(text))))

    assert filtered(cut(text, places)) == filtered([text])


def test_a_key_that_begins_within_a_number_is_the_same_however_it_comes() -> None:
    """How far a long word is looked at together must not depend on how much of it has come."""
    text = "1 1111-----BEGIN4671é+4111 111"

    assert filtered(list(text)) == filtered([text])


@pytest.mark.parametrize("pieces", [["- the", " a", "-b"], ["- the", " a"], ["1 words", " a", ".", "1"]])
def test_what_was_read_closely_and_what_was_not_follow_each_other(pieces: list[str]) -> None:
    assert filtered(pieces) == "".join(pieces)


@given(text=TEXTS | SIGNS)
@settings(max_examples=15 * settings().max_examples // 10)
def test_character_by_character_it_is_the_same_too(text: str) -> None:
    assert filtered(list(text)) == filtered([text])


@pytest.mark.parametrize(("entity", "sample"), SAMPLES)
def test_h1_split_at_every_position_nothing_of_it_leaves(entity: str, sample: str) -> None:
    """Two pieces, at every place; three, around every character."""
    text = f"Well, {sample} it is."
    expected = f"Well, [{entity}] it is."

    assert filtered([text]) == expected
    for place in range(len(text)):
        assert filtered([text[:place], text[place:]]) == expected
        assert filtered([text[:place], text[place : place + 1], text[place + 1 :]]) == expected


@given(
    before=st.sampled_from(["", "It is ", "Say: ", "so,\n", "用户 "]),
    chosen=st.sampled_from(SAMPLES),
    places=PLACES,
    end=st.integers(0, 400),
)
def test_no_prefix_of_a_match_ever_leaves(
    before: str, chosen: tuple[str, str], places: list[int], end: int
) -> None:
    """Whatever has come so far: of what turns out to be a match, nothing is out before."""
    _, sample = chosen
    stream = leak_filter()
    out = ""
    for piece in cut(before + sample, places):
        out += stream.feed(piece)
        assert before.startswith(out) or out.startswith(before + "[")


@given(text=TEXTS | SIGNS | st.text(max_size=3000, alphabet="a1 .-@"), places=PLACES)
def test_no_more_is_held_than_the_bound(text: str, places: list[int]) -> None:
    stream = leak_filter()
    for piece in cut(text, places):
        stream.feed(piece)
        assert stream.held <= MOST_HELD + 1
    stream.flush()

    assert stream.held == 0


def test_numbers_without_an_end_are_held_no_longer_than_numbers_can_be() -> None:
    stream = leak_filter()
    most = 0
    for _ in range(1000):
        stream.feed("12 ")
        most = max(most, stream.held)

    assert most <= MOST_HELD_NUMBERS + 3


@given(text=TEXTS)
def test_what_is_not_found_leaves_as_it_came(text: str) -> None:
    ignoring: Actions = dict.fromkeys(DEFAULT_ACTIONS, "flag")

    assert filtered(list(text), ignoring) == text


@pytest.mark.long
@pytest.mark.parametrize(
    "part",
    [
        "a",
        "1",
        " 1",
        "1 ",
        "@",
        "a@",
        "a@a",
        "a.",
        "sk-",
        "sk-a",
        "eyJ",
        "eyJa.",
        "-----BEGIN ",
        "-",
        ":",
        "1:",
        "1.",
        "password=",
        "://:",
        "GB82",
        "AKIA",
        "=",
        "(1",
        "\u200b",
        "-----END ",
        "0000-",
        "1-",
        "token is ",
        "\\n",
        "é1",
        "é",
        "é@",
        "1 / ",
        "030/",
    ],
)
def test_the_work_grows_no_faster_than_the_text_whatever_it_is(part: str) -> None:
    """Steps are characters looked at, each time one is: the same number for each of twice as many."""
    counts = []
    for size in (10_000, 20_000):
        text = part * (size // len(part))
        stream = leak_filter()
        for place in range(0, len(text), 7):
            stream.feed(text[place : place + 7])
        stream.flush()
        counts.append(stream.steps / len(text))

    assert counts[1] <= counts[0] * 1.05
    assert counts[1] <= 12


def test_h2_ordinary_text_keeps_streaming_a_word_behind() -> None:
    """What is held at any time is the word that is being said."""
    stream = leak_filter()
    out = ""
    for piece in ("The", " quick", " brown", " fox", " jum", "ps", " over"):
        out += stream.feed(piece)
    held = stream.held

    assert out == "The quick brown fox jumps "
    assert held == len("over")


@pytest.mark.parametrize(("entity", "sample"), SAMPLES)
def test_h3_what_is_held_at_the_end_leaves_only_redacted(entity: str, sample: str) -> None:
    assert filtered([f"so {sample}"]) == f"so [{entity}]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A token that would be a mail address's local part.
        ("ghp_4fQz8LmN2pRtVwXy6ZaBcDeFgHiJkLmNoPqR@example.com", "[email]"),
        # A card that begins like a social security number does not end there.
        ("4111 1111 1111 1111", "[card]"),
        # Assigned, and a provider's format: the longer one, once.
        ("api_key=ghp_4fQz8LmN2pRtVwXy6ZaBcDeFgHiJkLmNoPqR;", "api_key=[secret];"),
        ("192.168.100.200", "[ip]"),
    ],
)
def test_h4_of_two_that_overlap_the_longest_counts_and_nothing_of_either_is_left(
    text: str, expected: str
) -> None:
    for place in range(len(text)):
        assert filtered([text[:place], text[place:]]) == expected


def test_h4_what_may_pass_takes_nothing_from_what_may_not() -> None:
    """By default an address is only counted; the password that looks like part of one isn't let through."""
    text = "https://bob:pa55word@host.example.com/x"

    assert filtered([text], DEFAULT_ACTIONS) == "https://bob:[secret]@host.example.com/x"


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        (wide("4111 1111 1111 1111"), "card"),
        ("4111-1111-1111-1111".translate(ARABIC), "card"),
        ("4111\u20111111\u20131111\u22121111", "card"),
        ("41\u200b11 1111\u00a01111 11\u00ad11", "card"),
        ("al\u200bice@exa\u200dmple.c\ufeffom", "email"),
        (wide("alice@example.com"), "email"),
        ("ghp_4fQz8LmN2pRt\u2060VwXy6ZaBcDeFgHiJkLmNoPqR", "secret"),
        ("-----BEGIN PRI\u200bVATE KEY-----\n" + BODY + "\n-----END PRIVATE KEY-----", "secret"),
    ],
)
def test_h4_other_digits_and_what_nobody_sees_hide_nothing(text: str, entity: str) -> None:
    for place in range(len(text)):
        assert filtered(["so ", text[:place], text[place:], " on"]) == f"so [{entity}] on"


@pytest.mark.parametrize("before", ['"', "(", "“", "IBAN:", "--"])
def test_an_iban_in_groups_is_found_behind_what_stands_before_it(before: str) -> None:
    assert filtered(list(f"{before}GB82 WEST 1234 5698 7654 32.")) == f"{before}[iban]."


def test_h12_pieces_are_joined_as_they_are() -> None:
    """What is checked is the text, without anything between its pieces."""
    assert filtered(["ass", "isting al", "ice@exam", "ple.com", "bined"]) == "assisting [email]"
    assert filtered(["4111", "1111", "1111", "1111"]) == "[card]"
    assert filtered(["ass", "isting"]) == "assisting"


def test_a_private_key_without_an_end_ends_with_what_cannot_be_part_of_it() -> None:
    head = PRIVATE_KEY.partition("-----END")[0]

    assert filtered([head + "\nThat was the key. Keep it."]) == "[secret]That was the key. Keep it."
    assert filtered([head]) == "[secret]"


def test_a_private_key_in_one_line_of_json_goes_as_a_whole() -> None:
    text = '{"key": "' + PRIVATE_KEY.replace("\n", "\\n") + '\\n", "id": 7}'

    for size in (1, 5, 400):
        pieces = [text[place : place + size] for place in range(0, len(text), size)]
        assert filtered(pieces) == '{"key": "[secret]\\n", "id": 7}'


def test_a_token_that_is_longer_than_any_window_goes_as_a_whole() -> None:
    head, body, signature = JWT.split(".")
    text = f"{head}.{body + 'aB3_' * 2000}.{signature}"
    stream = leak_filter()
    held = []
    out = ""
    for place in range(0, len(text), 9):
        out += stream.feed(text[place : place + 9])
        held.append(stream.held)

    assert out + stream.feed(" end") + stream.flush() == "[secret] end"
    assert max(held) <= MOST_HELD + 1


def test_what_blocks_lets_nothing_follow() -> None:
    stream = leak_filter({**ALL, "secret": "block"})
    out = (
        stream.feed("It is sk-proj-4fQz8LmN2pRtVwXy6ZaBcD and more")
        + stream.feed(" and more")
        + stream.flush()
    )

    assert (out, stream.is_blocked) == ("It is ", True)
    assert stream.found["secret", "block"] == 1


def test_what_is_flagged_passes_and_is_counted() -> None:
    stream = leak_filter({**ALL, "email": "flag"})

    assert stream.feed("to alice@example.com now") + stream.flush() == "to alice@example.com now"
    assert stream.found["email", "flag"] == 1


def test_a_word_that_has_waited_too_long_leaves_and_the_rest_of_a_match_does_not() -> None:
    stream = leak_filter()
    out = stream.feed("Write to alice") + stream.show()
    rest = stream.feed("@example.com now") + stream.flush()

    assert (out, rest) == ("Write to alice", "[email] now")


def test_a_word_of_other_letters_that_has_waited_too_long_leaves_too() -> None:
    stream = leak_filter()
    out = stream.feed("die Größe") + stream.show()
    rest = stream.feed("n, jö") + stream.show() + stream.feed("rg@example.com now") + stream.flush()

    assert (out, rest) == ("die Größe", "n, jö[email] now")


def test_what_looks_like_a_match_waits_however_long_it_takes() -> None:
    for text in ("alice@exam", "4111 1111", "sk-proj-4f", "x" * 30):
        stream = leak_filter()
        assert stream.feed(text) + stream.show() == ""


@given(text=st.text("abé .,\n", max_size=60), places=PLACES, shown=st.sets(st.integers(0, 60)))
def test_words_that_were_shown_early_do_not_come_again(text: str, places: list[int], shown: set[int]) -> None:
    stream = leak_filter()
    out = ""
    for number, piece in enumerate(cut(text, places)):
        out += stream.feed(piece)
        if number in shown:
            out += stream.show()

    assert out + stream.flush() == text


CANARY: Final = "K7Q-x2mp-99ZT"


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        CANARY.lower().replace("-", ""),
        "k7q_X2MP.99zt",
        "k\u200b7qx2mp99zt",
        CANARY.encode().hex(),
        "SzdRLXgybXAtOTlaVA==",
        "abcSzdRLXgybXAtOTlaVA",
        "eEs3US14Mm1wLTk5WlQ=",
    ],
)
def test_a_canary_is_found_however_it_is_written(text: str) -> None:
    for place in range(len(text)):
        assert "[canary]" in filtered(["so ", text[:place], text[place:], " end"], ALL, (CANARY,))


def test_a_canary_that_is_spelled_out_ends_the_answer_where_it_is_whole() -> None:
    actions: Actions = {**DEFAULT_ACTIONS, "canary": "block"}
    stream = LeakFilter(Scanner(actions, (CANARY,)), actions, lambda *_: "", spelled=SpelledOut((CANARY,)))
    out = "".join(stream.feed(piece) for piece in "K 7 q - x 2 m p, 9 9 Z T and more")

    assert stream.is_blocked
    assert "and" not in out


@given(
    spaces=st.lists(st.sampled_from([" ", ", ", "\n", "-", " - "]), min_size=12, max_size=12),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    before=st.sampled_from(["", "It is ", "7 of 9: "]),
)
def test_a_canary_that_is_spelled_out_is_noticed_however_it_is_cut(
    spaces: list[str], sizes: list[int], before: str
) -> None:
    actions: Actions = {**DEFAULT_ACTIONS, "canary": "block"}
    spelled = "".join(map("".join, zip(CANARY.replace("-", ""), spaces, strict=False)))
    text = f"{before}{spelled}. And then more"
    outs = set()
    for places in (list(accumulate(islice(cycle(sizes), len(text)))), []):
        scanner = Scanner(actions, (CANARY,))
        stream = LeakFilter(scanner, actions, lambda *_: "", spelled=SpelledOut((CANARY,)))
        outs.add("".join(map(stream.feed, cut(text, places))) + stream.flush())
        assert stream.is_blocked

    assert len(outs) == 1
    assert "And" not in outs.pop()


def test_no_secret_is_made_of_few_letters_alone() -> None:
    """Short words without a digit aren't looked at: nothing that is looked for may be one."""
    for rule in SECRET_RULES:
        for head in rule.heads:
            length = len(head) + rule.least + (20 if rule.then else 0)
            assert length > LONGEST_ORDINARY, rule.name


@pytest.mark.parametrize("value", ["AbcdEfghIjklMnop", "abcdEfghIjklMnopqrs", "AbcdEfghIjklMnopqrStu"])
def test_what_is_assigned_is_found_or_not_however_it_comes(value: str) -> None:
    text = f"The password: {value} is it, and the token= {value} too"
    pieces = [piece + " " for piece in text.split(" ")]

    assert filtered(pieces) == filtered([text + " "])
