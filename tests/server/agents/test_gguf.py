"""Model files, written here field by field."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from unbroken.server.agents.gguf import is_cut_off, is_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(*, version: int = 3, kind: int = 4, alignment: int = 64) -> tuple[bytes, int]:
    """Return a file with two tensors of a byte each, and where the last one begins."""
    words = struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc")
    nested = struct.pack("<IIQIQ", 9, 9, 2, 0, 3) + b"xyz" + struct.pack("<IQ", 1, 1) + b"w"
    pairs = {
        "general.name": struct.pack("<I", 8) + text("tiny"),
        "general.alignment": struct.pack("<II", kind, alignment),
        "tokenizer.ggml.tokens": words,
        "of.all.kinds": nested,
        "flag": struct.pack("<IB", 7, 1),
        "wide": struct.pack("<Id", 12, 1.0),
    }
    head = b"GGUF" + struct.pack("<IQQ", version, 2, len(pairs))
    head += b"".join(text(name) + value for name, value in pairs.items())
    for name, offset in (("second", alignment), ("first", 0)):
        head += text(name) + struct.pack("<IQQIQ", 2, 1, 1, 0, offset)
    start = -(-len(head) // alignment) * alignment
    return head.ljust(start, b"\0") + b"1".ljust(alignment, b"\0") + b"2", start + alignment


def test_every_beginning_of_a_file_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    whole, last = gguf()
    assert len(whole) == last + 1
    path.write_bytes(whole)
    assert is_gguf(path)
    assert not is_cut_off(path)
    for size in range(4, len(whole)):
        path.write_bytes(whole[:size])
        assert is_cut_off(path), size


@pytest.mark.parametrize("unknown", [{"version": 4}, {"kind": 99}])
def test_what_is_not_understood_is_left_to_llama_cpp(unknown: dict[str, int], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(**unknown)[0][:200])
    assert not is_cut_off(path)


def test_other_files_are_not_taken_for_one(tmp_path: Path) -> None:
    assert not is_gguf(tmp_path)
    with pytest.raises(FileNotFoundError):
        is_gguf(tmp_path / "none")
    (tmp_path / "text").write_text("GG")
    assert not is_gguf(tmp_path / "text")
