from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from unbroken.server.files.names import clean_name, disposition


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.png", "photo.png"),
        ("/", ""),
        ("..", ".."),
        ("a\r\nset-cookie: x\x00.png", "aset-cookie: x.png"),
        ("invoice\u202egnp.exe", "invoicegnp.exe"),
        ("Größe €.txt", "Größe €.txt"),
        ("half \ud800 a character", "half  a character"),
        ("x" * 500 + ".png", "x" * 196 + ".png"),
        ("/" * 5000, ""),
    ],
)
def test_a_name_is_one_line_without_folders(given_name: str, kept: str) -> None:
    assert clean_name(given_name) == kept


@given(st.text())
def test_whatever_a_name_is_its_header_is_one_that_has_a_file_saved(name: str) -> None:
    clean = clean_name(name)
    header = disposition(clean)

    assert header.isascii()
    assert header.isprintable()
    assert header.startswith('attachment; filename="')
    assert header.count('"') == 2
    assert Headers({"content-disposition": header})["content-disposition"] == header
    assert clean_name(clean) == clean
