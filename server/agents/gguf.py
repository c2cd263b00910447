"""Looking at a model file before it is loaded: llama.cpp says too late, and not why, that it can't be.

A GGUF file is a header, keys with values, the list of the tensors with where
each begins, and the tensors. See ``docs/gguf.md`` in the ggml project.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

__all__ = ["is_cut_off", "is_gguf"]

_MAGIC: Final = b"GGUF"
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by the number of its type. Two types have no size of their own:"""
_STRING: Final = 8
_ARRAY: Final = 9


def is_gguf(path: Path) -> bool:
    """Whether *path* is a file that begins as GGUF does.

    Raises:
        OSError: It can't be read.

    """
    if not path.is_file():  # opening a pipe would wait for somebody who writes
        path.stat()
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def is_cut_off(path: Path) -> bool:
    """Whether the GGUF file ends before its last tensor begins. No tensor is read.

    What isn't understood counts as whole: llama.cpp may know better.

    Raises:
        OSError: It can't be read.

    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Reader(data).last_tensor() >= len(data)
        except (struct.error, IndexError):  # the end came within the header
            return True
        except (KeyError, UnicodeDecodeError):
            return False


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(_MAGIC)

    def last_tensor(self) -> int:
        """Return where the last tensor begins."""
        if self._number("<I") not in (2, 3):
            return -1
        tensors, pairs = self._number("<Q"), self._number("<Q")
        alignment = 32
        for _ in range(pairs):
            key = self._text()
            kind = self._number("<I")
            if key == b"general.alignment" and _SIZES.get(kind) == 4:
                alignment = self._number("<I")
            else:
                self._skip(kind, 1)
        last = 0
        for _ in range(tensors):
            self._text()
            dimensions = self._number("<I")
            self._at += 8 * dimensions + 4
            last = max(last, self._number("<Q"))
        return -(-self._at // max(1, alignment)) * max(1, alignment) + last

    def _number(self, form: str) -> int:
        number: int
        (number,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return number

    def _text(self) -> bytes:
        size = self._number("<Q")
        self._at += size
        return self._data[self._at - size : self._at]

    def _skip(self, kind: int, count: int) -> None:
        if kind == _STRING:
            data, at, size = self._data, self._at, struct.Struct("<Q")
            for _ in range(count):  # a vocabulary: hundreds of thousands
                at += 8 + size.unpack_from(data, at)[0]
            self._at = at
        elif kind == _ARRAY:
            for _ in range(count):
                inner = self._number("<I")
                self._skip(inner, self._number("<Q"))
        else:
            self._at += _SIZES[kind] * count
