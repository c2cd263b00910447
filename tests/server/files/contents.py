"""Content of each kind that is taken, and some of kinds that aren't."""

from __future__ import annotations

from base64 import b64decode

__all__ = ["GIF", "HTML", "JPEG", "PDF", "PNG", "TEXT", "WEBP"]

PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00 not a whole one"
GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00"
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 "
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n"
TEXT = "Größe: 5 €\nline two\r\n\ttabbed".encode()
HTML = b"<!doctype html><script>alert(1)</script>"
