"""What is no id, no secret and no place, and looks like one: order numbers, hashes, versions, measures."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

__all__ = ["ORDINARY"]

_HEX: Final = "0123456789abcdef"
_COUNTS: Final = (4, 6, 8, 9, 10, 11, 12, 13, 15, 18)


def _digits(count: int) -> Callable[[Random], str]:
    return lambda random: random.choice("123456789") + "".join(random.choices("0123456789", k=count - 1))


def _hex(count: int) -> Callable[[Random], str]:
    return lambda random: "".join(random.choices(_HEX, k=count))


def _decimal(low: float, high: float, places: int) -> Callable[[Random], str]:
    return lambda random: f"{random.uniform(low, high):.{places}f}"


def _base64(count: int) -> Callable[[Random], str]:
    return lambda random: base64.b64encode(random.randbytes(count)).decode()


def _day(form: str) -> Callable[[Random], str]:
    return lambda random: form.format(
        year=random.randint(1990, 2026), month=random.randint(1, 12), day=random.randint(1, 28)
    )


def _ean(random: Random) -> str:
    body = random.choice(["400", "761", "978", "540"]) + "".join(random.choices("0123456789", k=9))
    return f"{body}{-sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(body)) % 10}"


def _order(random: Random) -> str:
    number = "".join(random.choices("0123456789", k=7))
    return random.choice(
        [f"2025-{number}", f"A-{number}", f"{number[:3]}-{number}", f"PO{number}", f"#{number}"]
    )


def _version(random: Random) -> str:
    return ".".join(str(random.randint(0, 40)) for _ in range(random.choice([3, 3, 4])))


def _placeholder(random: Random) -> str:
    name = random.choice(["API_KEY", "DB_PASSWORD", "AUTH_TOKEN", "CLIENT_SECRET"])
    return random.choice(
        [
            f"${{{name}}}",
            f"${name}",
            f"<{name.lower()}>",
            f"your-{name.lower().replace('_', '-')}-here",
            f"YOUR_{name}",
            "****************",
            "xxxxxxxxxxxxxxxx",
            f"{{{{ {name.lower()} }}}}",
            f'os.environ["{name}"]',
            f"process.env.{name}",
        ]
    )


ORDINARY: Final[Mapping[str, Callable[[Random], str]]] = MappingProxyType(
    {
        **{f"digits{count}": _digits(count) for count in _COUNTS},
        "base64": _base64(33),
        "dotted_date": _day("{day:02}.{month:02}.{year}"),
        "ean": _ean,
        "file_hash": _hex(8),
        "image_digest": lambda random: "sha256:" + _hex(64)(random),
        "integrity": lambda random: "sha512-" + _base64(64)(random),
        "iso_date": _day("{year}-{month:02}-{day:02}"),
        "md5": _hex(32),
        "measure": _decimal(1, 90, 3),
        "order": _order,
        "placeholder": _placeholder,
        "price": _decimal(2, 900, 2),
        "score": _decimal(0, 1, 4),
        "sha": _hex(40),
        "short_sha": _hex(7),
        "slash_date": _day("{day:02}/{month:02}/{year}"),
        "time": lambda random: (
            f"{random.randint(0, 23):02}:{random.randint(0, 59):02}:{random.randint(0, 59):02}"
        ),
        "too_far": lambda random: f"{random.uniform(181, 900):.5f}",
        "uuid": lambda random: str(uuid.UUID(int=random.getrandbits(128), version=4)),
        "version": _version,
    }
)
"""By name."""
