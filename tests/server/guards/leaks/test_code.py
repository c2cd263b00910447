"""Ordinary code is full of passwords, tokens and keys by name, and says none. It must leave as it came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.guards.leaks.samples import cut, filtered, leak_filter
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS

TEXT: Final = Path(__file__).with_name("code.txt").read_text("utf-8")
LINES: Final = tuple(line for line in TEXT.splitlines() if line)


def test_there_are_many_lines_in_several_languages() -> None:
    assert len(LINES) >= 120
    assert sum(line.startswith(("# ", "// ")) for line in LINES) >= 9


@pytest.mark.parametrize("line", LINES)
def test_harmless_code_leaves_as_it_came_by_itself_and_however_it_is_cut(line: str) -> None:
    assert filtered([line], DEFAULT_ACTIONS) == line
    assert filtered(list(line), DEFAULT_ACTIONS) == line
    for place in range(1, len(line)):
        assert filtered([line[:place], line[place:]], DEFAULT_ACTIONS) == line


def test_harmless_code_leaves_as_it_came_in_one_file_too() -> None:
    assert filtered([TEXT], DEFAULT_ACTIONS) == TEXT
    assert filtered([TEXT[place : place + 5] for place in range(0, len(TEXT), 5)], DEFAULT_ACTIONS) == TEXT


@pytest.mark.parametrize("line", LINES)
def test_harmless_code_in_the_arguments_of_calls_leaves_as_it_came(line: str) -> None:
    text = json.dumps({"path": "main", "code": f"{line}\n{line}"})
    stream = leak_filter(DEFAULT_ACTIONS, in_json=True)

    assert stream.feed(text) + stream.flush() == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # In quotation marks it isn't a name, however much it looks like one.
        ('token = "user.token2_v1x"', 'token = "[secret]"'),
        # Joined, but not of words.
        ("token = aB3.kQ9zLm2_Px7", "token = [secret]"),
        ("password: k3.Qx9_zLmV2p.", "password: [secret]"),
        # Random letters are no words, with and without what stands behind them.
        ("token = aBxKqLmZpWvRtYuIoPsD", "token = [secret]"),
        ("token: a8F3kQ9zLm2P[1]", "token: [secret][1]"),
        # A path has words.
        ("secret = /bPxRfi3CYz/zAK3EYQ9xLm2", "secret = [secret]"),
        # What people think of.
        ("password: Summer_2024!", "password: [secret]"),
        ("password=hunter2Xy9, user=bob", "password=[secret], user=bob"),
        ("password_file = a; password = hunter2Xy9;", "password_file = a; password = [secret];"),
        ("#token_type=bearer&access_token=a8F3kQ9zLm2P", "#token_type=bearer&access_token=[secret]"),
        ("the secret is sha256x9Kq2LmPz", "the secret is [secret]"),
    ],
)
def test_what_only_looks_like_code_is_found_still(text: str, expected: str) -> None:
    assert filtered([text]) == filtered(list(text)) == expected


PIECES: Final = st.sampled_from(
    [
        *(
            "password",
            "apiKey",
            "token",
            "_url",
            "Type",
            " = ",
            ": ",
            "=",
            ":",
            "=>",
            '"',
            "`",
            "'",
            " ",
            "\n",
        ),
        *(
            "hashlib",
            "sha256",
            "oauth2",
            "Token",
            "user",
            "aB3kQ9",
            "zLm2P",
            "x7",
            "Q",
            "getItem",
            "\u200b",
            "/",
        ),
        *(".", "::", "->", "_", "-", "(", ")", "[", "{", ";", ",", "AbcdEfghIjklMnop", "1 ", "\\", "é", "!"),
    ]
)


@given(
    parts=st.lists(PIECES, max_size=24),
    places=st.lists(st.integers(0, 200), max_size=40),
    before=st.sampled_from(["", "1 2 ", "x" * 1010, "12 " * 30]),
)
def test_code_is_the_same_however_it_is_cut(parts: list[str], places: list[int], before: str) -> None:
    text = f"{before}token = {''.join(parts)}"

    assert filtered(cut(text, places)) == filtered(list(text)) == filtered([text])
