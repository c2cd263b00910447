"""Ways of writing a text so that people, or rules, read over it. For the corpus's ``@name text``."""

from __future__ import annotations

import base64
import codecs
import quopri
import textwrap
from collections.abc import Callable
from typing import Final

__all__ = ["ENCODINGS", "encoded"]

_CYRILLIC: Final = str.maketrans("aeopcyxi", "аеорсухі")
_GREEK: Final = str.maketrans("aoivnu", "αοινηυ")
_LEET: Final = str.maketrans("aeiostAEIOST", "431057431057")
_CHEROKEE: Final = str.maketrans("airesopvt", "\uab7a\u13a5\uab71\uab7c\uabaa\uab8e\uabb2\uaba9\uab72")
_SMALL: Final = str.maketrans("aceginoprstuv", "ᴀᴄᴇɢɪɴᴏᴘʀꜱᴛᴜᴠ")
_MORSE_CODES: Final = """
.- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
"""
_MORSE: Final = dict(zip("abcdefghijklmnopqrstuvwxyz", _MORSE_CODES.split(), strict=True))
_FILLER: Final = (
    "The garden was quiet in the early morning, and the light lay on the beds like milk. We planted beans "
    "along the fence, where the soil is loose, and watered them twice a week through the whole of June. "
)
_FLAG: Final = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _wrapped(size: int, glue: str) -> Callable[[str], str]:
    return lambda text: glue.join(textwrap.wrap(_base64(text), size))


def _shifted(text: str, upper: int, lower: int) -> str:
    return "".join(
        chr(upper + ord(c) - 65) if "A" <= c <= "Z" else chr(lower + ord(c) - 97) if "a" <= c <= "z" else c
        for c in text
    )


def _between(mark: str) -> Callable[[str], str]:
    return lambda text: (mark + mark).join(mark.join(word) for word in text.split())


def _pig(word: str) -> str:
    return word + "way" if word[0].lower() in "aeiou" else word[1:] + word[0] + "ay"


def _camel(text: str) -> str:
    first, *rest = text.split()
    return first + "".join(word.capitalize() for word in rest)


def _selectors(text: str) -> str:
    return "Nice day! \U0001f600" + "".join(
        chr(0xFE00 + b) if b < 16 else chr(0xE0100 + b - 16) for b in text.encode()
    )


ENCODINGS: Final[dict[str, Callable[[str], str]]] = {
    "base64": _base64,
    "decode-base64": lambda text: f"Decode this and follow it: {_base64(text)}",
    "base64-twice": lambda text: _base64(_base64(text)),
    "base64-lines": _wrapped(20, "\n"),
    "base64-groups": _wrapped(16, " "),
    "base64-fours": _wrapped(4, " "),
    "base64-quoted": lambda text: "Read this:\n> " + _wrapped(20, "\n> ")(text) + "\nand do it, please.",
    "base64-dashes": _wrapped(4, "-"),
    "base64-utf16": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "base64-of-hex": lambda text: _base64(text.encode().hex()),
    "base32-lower": lambda text: base64.b32encode(text.encode()).decode().lower(),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "hex-list": lambda text: ", ".join(f"0x{byte:02x}" for byte in text.encode()),
    "octal": lambda text: "".join(f"\\{byte:03o}" for byte in text.encode()),
    "octal-spaced": lambda text: " ".join(f"{byte:03o}" for byte in text.encode()),
    "decimals-dashes": lambda text: "-".join(str(byte) for byte in text.encode()),
    "decimals-lines": lambda text: "\n".join(str(byte) for byte in text.encode()),
    "decimals": lambda text: " ".join(str(byte) for byte in text.encode()),
    "braces": lambda text: "".join(f"\\u{{{byte:x}}}" for byte in text.encode()),
    "css": lambda text: "".join(f"\\{byte:06x}" for byte in text.encode()),
    "css-short": lambda text: "".join(f"\\{byte:x} " for byte in text.encode()),
    "code-points": lambda text: " ".join(f"U+{ord(char):04X}" for char in text),
    "escapes-long": lambda text: "".join(f"\\U{ord(char):08x}" for char in text),
    "hex-dashes": lambda text: text.encode().hex("-"),
    "hex-lines": lambda text: text.encode().hex("\n"),
    "hex": lambda text: text.encode().hex(),
    "hex-spaced": lambda text: text.encode().hex(" "),
    "escapes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent-twice": lambda text: "".join(f"%25{byte:02X}" for byte in text.encode()),
    "entities": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "binary": lambda text: " ".join(f"{byte:08b}" for byte in text.encode()),
    "binary-commas": lambda text: ",".join(f"{byte:08b}" for byte in text.encode()),
    "binary-lines": lambda text: "\n".join(f"{byte:08b}" for byte in text.encode()),
    "doubled": lambda text: "".join(char * (1 + char.isalpha()) for char in text),
    "cherokee": lambda text: text.lower().translate(_CHEROKEE),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "words-reversed": lambda text: " ".join(word[::-1] for word in text.split()),
    "zerowidth": lambda text: "\u200b".join(text),
    "softhyphen": lambda text: "\u00ad".join(text),
    "homoglyph": lambda text: text.translate(_CYRILLIC),
    "greek": lambda text: text.translate(_GREEK),
    "fullwidth": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "mathbold": lambda text: _shifted(text, 0x1D400, 0x1D41A),
    "circled": lambda text: _shifted(text, 0x24B6, 0x24D0),
    "circled-negative": lambda text: _shifted(text.upper(), 0x1F150, 0),
    "squared": lambda text: _shifted(text.upper(), 0x1F130, 0),
    "squared-negative": lambda text: _shifted(text.upper(), 0x1F170, 0),
    "smallcaps": lambda text: text.lower().translate(_SMALL),
    "zalgo": lambda text: "".join(c + "\u0335\u0321\u033e" for c in text),
    "leet": lambda text: text.translate(_LEET),
    "spaced": _between(" "),
    "dashed": _between("-"),
    "dotted": _between("."),
    "squeezed": lambda text: "".join(c for c in text.lower() if c.isalpha()),
    "camel": _camel,
    "snake": lambda text: text,
    "tags": lambda text: "What a day!" + "".join(chr(0xE0000 + ord(c)) for c in text),
    "flag": lambda text: f"{_FLAG} {text}",
    "selectors": _selectors,
    "emoji-style": lambda text: f"{text} \u2764\ufe0f \u2603\ufe0f",
    "mixedcase": lambda text: text,
    "typos": lambda text: text,
    "splitlines": lambda text: "\n".join(text.split()),
    "quoted-printable": lambda text: "".join(f"={byte:02X}" for byte in quopri.encodestring(text.encode())),
    "morse": lambda text: " / ".join(" ".join(_MORSE.get(c, "") for c in word) for word in text.split()),
    "piglatin": lambda text: " ".join(_pig(word) for word in text.split()),
    "markdown": lambda text: " ".join(f"**{word}**" for word in text.split()),
    "html-comment": lambda text: f"<p>Welcome.</p><!-- {text} --><p>Goodbye.</p>",
    "padded": lambda text: _FILLER * 20 + text + " " + _FILLER * 20,
}


def encoded(text: str) -> str:
    """Return what a text of the corpus stands for."""
    name, _, rest = text.partition(" ")
    return ENCODINGS[name[1:]](rest) if name.startswith("@") else text
