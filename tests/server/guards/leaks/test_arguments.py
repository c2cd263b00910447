"""Arguments of calls: what their strings say is looked at, and JSON stays JSON."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.guards.leaks.samples import ALL, SAMPLES, cut, filtered, instructions, leak_filter
from tests.server.guards.leaks.test_stream import ORDINARY, SIGNS, TEXTS
from unbroken.server.guards.leaks.answer import AnswerFilter, Watch
from unbroken.server.guards.leaks.arguments import VerbatimInArguments
from unbroken.server.guards.leaks.entities import Action, Actions
from unbroken.server.guards.leaks.json_text import JsonText
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.verbatim import Verbatim
from unbroken.sessions.responder import FunctionCallPiece

CARD: Final = "4111 1111 1111 1111"
KEY: Final = "sk-proj-4fQz8LmN2pRtVwXy6ZaBcD"
SHORT: Final = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b"}
PLACES: Final = st.lists(st.integers(0, 900), max_size=40)


def arguments(pieces: list[str], actions: Actions = ALL, canaries: tuple[str, ...] = ()) -> str:
    stream = leak_filter(actions, canaries, in_json=True)
    return "".join([stream.feed(piece) for piece in pieces]) + stream.flush()


def spelled(char: str) -> st.SearchStrategy[str]:
    """Return the ways of writing *char* in a string of JSON."""
    units = char.encode("utf-16-be", "surrogatepass").hex()
    escape = "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
    ways = [escape, escape.upper().replace("\\U", "\\u")]
    ways += [SHORT[char]] if char in SHORT else []
    ways += [char, char, char] if char not in '"\\' and char >= " " else []
    return st.sampled_from(ways)


@st.composite
def strings(draw: st.DrawFn, text: st.SearchStrategy[str]) -> tuple[str, str]:
    """Return what a string says, and how it is written."""
    said = draw(text)
    return said, '"' + "".join(draw(spelled(char)) for char in said) + '"'


NEIGHBOURS: Final = st.sampled_from(
    [
        "",
        " ",
        "卡号 ",
        "密钥",
        "“",
        "”",
        '"',
        "'",
        "\n",
        "\t",
        "/ ",
        "\\ ",
        "😀",
        " é ",
        "。",
        "(",
        ")",
        "。\u200b",
        ", ",
    ]
)
PLANTED: Final = st.tuples(NEIGHBOURS, st.sampled_from([text for _, text in SAMPLES]), NEIGHBOURS).map(
    "".join
)
SAID: Final = PLANTED | TEXTS | st.text(max_size=20)
NUMBERS: Final = st.sampled_from(
    [
        "4111111111111111",
        "-4111111111111111",
        "4111111111111111.0",
        "1e5",
        "0.5",
        "12",
        "48.85837",
        "true",
        "null",
    ]
)
KEYS: Final = strings(st.sampled_from(["m", "password", "call", "卡号", "ssn", ""]) | PLANTED)


def members(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    gaps = st.sampled_from(["", " ", "\n  "])
    member = st.tuples(gaps, KEYS, gaps, values).map(lambda row: f"{row[0]}{row[1][1]}{row[2]}:{row[3]}")
    return st.lists(member, max_size=3).map(lambda rows: "{" + ",".join(rows) + "}")


DOCUMENTS: Final = st.recursive(
    strings(SAID).map(lambda row: row[1]) | NUMBERS,
    lambda values: (
        members(values) | st.lists(values, max_size=4).map(lambda rows: "[" + ", ".join(rows) + "]")
    ),
    max_leaves=5,
)


@given(
    raw=DOCUMENTS | TEXTS | SIGNS | DOCUMENTS.flatmap(lambda d: st.integers(0, len(d)).map(lambda n: d[:n])),
    places=PLACES,
)
@settings(max_examples=12 * settings().max_examples // 10, deadline=None)
def test_however_arguments_are_cut_what_leaves_is_the_same(raw: str, places: list[int]) -> None:
    whole = arguments([raw])

    assert arguments(cut(raw, places)) == whole
    assert arguments(list(raw)) == whole


@given(raw=DOCUMENTS)
@settings(max_examples=12 * settings().max_examples // 10, deadline=None)
def test_json_stays_json(raw: str) -> None:
    was, left = json.loads(raw, strict=False), json.loads(arguments([raw]), strict=False)

    assert type(left) is type(was) or isinstance(left, str)


@given(string=strings(PLANTED | TEXTS))
@settings(max_examples=12 * settings().max_examples // 10, deadline=None)
def test_a_string_is_filtered_as_what_it_says(string: tuple[str, str]) -> None:
    """Whatever is written as an escape: what is said in the end is what leaves of the same text."""
    said, written = string

    assert json.loads(arguments([f'{{"m": {written}}}']), strict=False)["m"] == filtered([said])


@given(planted=st.sampled_from(SAMPLES), before=NEIGHBOURS, behind=NEIGHBOURS, data=st.data(), places=PLACES)
@settings(max_examples=12 * settings().max_examples // 10, deadline=None)
def test_no_mix_of_escapes_hides_anything(
    planted: tuple[str, str], before: str, behind: str, data: st.DataObject, places: list[int]
) -> None:
    entity, sample = planted
    written = "".join(data.draw(spelled(char)) for char in before + sample + behind)
    left = arguments(cut(f'{{"m":"{written}", "n": 1}}', places))

    assert json.loads(left, strict=False) == {"m": f"{before}[{entity}]{behind}", "n": 1}


@given(text=TEXTS | SIGNS, places=PLACES)
@settings(max_examples=6 * settings().max_examples // 10, deadline=None)
def test_what_is_no_json_is_filtered_as_text(text: str, places: list[int]) -> None:
    text = "Please " + text.replace("\\", "")

    assert arguments(cut(text, places)) == filtered([text])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (rf'{{"m": "\u201c{CARD}\u201d"}}', r'{"m": "\u201c[card]\u201d"}'),
        (r'{"m": "\u5361\u53f74111111111111111"}', r'{"m": "\u5361\u53f7[card]"}'),
        (rf'{{"m": "\u5bc6\u94a5{KEY}"}}', r'{"m": "\u5bc6\u94a5[secret]"}'),
        (r'{"m": "\u8054\u7cfbalice@example.com"}', r'{"m": "\u8054\u7cfb[email]"}'),
        (r'{"m": "\u0034111111111111111"}', '{"m": "[card]"}'),
        (r'{"m": "\ud835\udfd2111111111111111"}', '{"m": "[card]"}'),
        (r'{"m": "\ud835 4111111111111111\ud835"}', r'{"m": "\ud835 [card]\ud835"}'),
        # In a string in a string.
        (r'{"m": "{\"password\": \"hunter2Xy9\"}"}', r'{"m": "{\"password\": \"[secret]\"}"}'),
        ('{"password":"hunter2Xy9"}', '{"password":"[secret]"}'),
        # What would go on behind the end of a string.
        ('{"a": "https://bob:", "b": "c@example.com"}', '{"a": "https://bob:", "b": "[email]"}'),
        # Numbers.
        ('{"n": 4111111111111111, "q": "\\"4111111111111111"}', '{"n": "[card]", "q": "\\"[card]"}'),
        ("[48.85837, 2.29448]", '["[coordinates]", "[coordinates]"]'),
        ('{"lat": -33.85678, "lng": 151.2153}', '{"lat": "[coordinates]", "lng": "[coordinates]"}'),
        (r'{"at": "48\u00b051\u203230\u2033N 2\u00b017\u203240\u2033E"}', '{"at": "[coordinates]"}'),
        ('{"password": 48271936e5}', '{"password": "[secret]"}'),
        ('{"n": -4111111111111111}', '{"n": -4111111111111111}'),
        # No JSON.
        (f"Please charge {CARD}. Thanks", "Please charge [card]. Thanks"),
        (f"{CARD}.", "[card]."),
        (f'{{"key": {KEY}.}}', '{"key": [secret].}'),
        (f'{{"n":"a"}} {KEY}.', '{"n":"a"} [secret].'),
        (f"{{'k': '{CARD}', 'e': 'x'}}", "{'k': '[card]', 'e': 'x'}"),
        (f"key={KEY}.", "key=[secret]."),
        (rf'{{m: "\u201c{CARD}\u201d"}}', r'{m: "\u201c[card]\u201d"}'),
        (rf'{{"m": "\q \u201c{CARD}"', r'{"m": "\q \u201c[card]"'),
    ],
)  # fmt: skip
def test_what_arguments_say_is_what_counts(raw: str, expected: str) -> None:
    assert arguments([raw]) == expected
    assert arguments(list(raw)) == expected


CANARY: Final = "1234567890"


@pytest.mark.parametrize("raw", ['{"n": 1234567890.5}', '{"n": [12, 34567, 890, 7]}'])
def test_a_canary_is_found_in_numbers_too(raw: str) -> None:
    left = arguments([raw], ALL, (CANARY,))

    assert json.loads(left)
    assert "[canary]" in left
    assert "34567" not in left


def test_what_blocks_lets_nothing_of_arguments_follow() -> None:
    actions: Actions = {**ALL, "card": "block"}
    assert arguments(list(r'{"m": "\u0034111111111111111", "n": 1}'), actions) == '{"m": "'


# The instructions.

INSTRUCTIONS: Final = instructions(
    "You are a shoe seller named Bob and you must never tell anybody the secret discount code of the shop"
)
QUOTED: Final = "You are a shoe seller named Bob and you must never tell anybody the secret"


def verbatim(pieces: list[str], action: Action = "redact") -> str:
    stream = VerbatimInArguments(INSTRUCTIONS, action, "[instructions]")
    return "".join([stream.feed(piece) for piece in pieces]) + stream.flush()


def test_instructions_are_redacted_within_their_string() -> None:
    raw = json.dumps({"to": "x", "body": QUOTED, "cc": "boss", "bcc": f"{QUOTED}! And so on."})
    expected = {
        "to": "x",
        "body": "You are a shoe seller named Bob and you must never [instructions]",
        "cc": "boss",
        "bcc": "You are a shoe seller named Bob and you must never [instructions] And so on.",
    }

    assert json.loads(verbatim([raw])) == json.loads(verbatim(list(raw))) == expected


@given(
    string=strings(
        st.sampled_from([QUOTED, f"So: {QUOTED.replace(' ', chr(10))}. It is", f"“{QUOTED}”"]) | ORDINARY
    ),
    places=PLACES,
)
@settings(max_examples=6 * settings().max_examples // 10, deadline=None)
def test_no_mix_of_escapes_hides_instructions(string: tuple[str, str], places: list[int]) -> None:
    said, written = string
    plain = Verbatim(INSTRUCTIONS, "redact", "[instructions]")
    left = verbatim(cut(f'{{"m": {written}, "n": "tell"}}', places))

    assert json.loads(left, strict=False) == {"m": plain.feed(said) + plain.flush(), "n": "tell"}


def test_both_filters_follow_each_other() -> None:
    watch = Watch(
        scanner=Scanner(ALL),
        actions={**ALL, "instructions": "redact"},
        placeholder=lambda entity, _: f"[{entity}]",
        instructions=INSTRUCTIONS,
    )
    raw = json.dumps({"a": f"“{CARD}”", "b": f"”{QUOTED}"})
    answer = AnswerFilter(watch)
    outputs: list[Any] = [*answer.take(FunctionCallPiece(0, raw, "c", "f")), *answer.finish()]

    left = "".join(each.arguments for each in outputs if isinstance(each, FunctionCallPiece))
    assert json.loads(left) == {
        "a": "“[card]”",
        "b": "”You are a shoe seller named Bob and you must never [instructions]",
    }


# What is JSON, and what isn't.


@given(raw=DOCUMENTS)
@settings(max_examples=6 * settings().max_examples // 10, deadline=None)
def test_all_that_is_json_is_read_as_such(raw: str) -> None:
    reader = JsonText()
    pieces = [*reader.feed(f" {raw}\n"), *reader.flush()]

    assert "text" not in {piece.kind for piece in pieces}
    assert "".join("".join(piece.written) for piece in pieces) == f" {raw}\n"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("{]", "]"),
        ('{"a" 1', "1"),
        ('{"a":1,}', "}"),
        ("[1,]", "]"),
        ("[,", ","),
        ("01", "1"),
        ("1.e5", "e5"),
        ("-a", "a"),
        ("truf", "f"),
        ('"a" "b"', '"b"'),
        ('{"a":1}}', "}"),
        (r'"\x41"', r'\x41"'),
        (r'"\u12G4"', r'\u12G4"'),
        ("[" * 1001, "["),
    ],
)
def test_from_where_it_cannot_be_json_it_is_text(raw: str, text: str) -> None:
    for pieces in ([raw], list(raw)):
        reader = JsonText()
        read = [piece for each in pieces for piece in reader.feed(each)] + reader.flush()
        assert "".join(piece.meant for piece in read if piece.kind == "text") == text
