from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.files.contents import GIF, HTML, JPEG, PDF, PNG, TEXT, WEBP
from unbroken.server.files.kinds import Kind, UnsupportedKind, kind_of

KNOWN = {
    "image/png": PNG,
    "image/jpeg": JPEG,
    "image/gif": GIF,
    "image/webp": WEBP,
    "application/pdf": PDF,
    "text/plain": TEXT,
}


@pytest.mark.parametrize("kind", KNOWN)
def test_content_says_what_it_is(kind: str) -> None:
    assert kind_of(KNOWN[kind]) == kind


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"MZ\x90\x00\x03",
        b"\x7fELF\x02\x01\x01",
        b"PK\x03\x04",
        b"text\x00with a null",
        b"text\x1bwith an escape",
        b"caf\xe9 in Latin-1",
        "half a character €".encode()[:-1],
        "UTF-16".encode("utf-16"),
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(UnsupportedKind, match="PNG, JPEG, GIF or WebP"):
        kind_of(content)


@pytest.mark.parametrize("content", [HTML, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"])
def test_what_a_browser_would_run_is_text(content: bytes) -> None:
    assert kind_of(content) == "text/plain"


@pytest.mark.parametrize(
    ("start", "kind"), [(GIF, "image/gif"), (PDF, "application/pdf"), (PNG, "image/png")]
)
def test_a_polyglot_is_what_it_begins_as(start: bytes, kind: str) -> None:
    assert kind_of(start + HTML + b"PK\x03\x04") == kind


def test_what_cannot_be_text_any_more_is_refused_before_its_end() -> None:
    kind = Kind()
    kind.feed(b"so far it is text ")
    with pytest.raises(UnsupportedKind):
        kind.feed(b"\x00")


CONTENTS = st.sampled_from([*KNOWN.values(), HTML, b"", b"\x00\x01", TEXT * 50, b"\xff\xfe\x00"]) | st.binary(
    max_size=64
)


@given(CONTENTS, st.lists(st.integers(0, 40), max_size=20))
def test_in_whatever_pieces_it_comes_the_outcome_is_the_same(content: bytes, sizes: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> str:
        kind = Kind()
        try:
            for piece in pieces:
                kind.feed(piece)
            return kind.finish()
        except UnsupportedKind:
            return "none"

    pieces, rest = [], content
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]

    assert outcome([*pieces, rest]) == outcome([content])
