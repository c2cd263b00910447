"""National identification numbers drawn at random: from their public definitions, as people write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

__all__ = ["IDS", "SPOILT"]

_TIMES: Final = (  # Verhoeff's multiplication, row by row
    *("0123456789", "1234067895", "2340178956", "3401289567", "4012395678"),
    *("5987604321", "6598710432", "7659821043", "8765932104", "9876543210"),
)
_MOVED: Final = (
    *("0123456789", "1576283094", "5803796142", "8916043527"),
    *("9453126870", "4286573901", "2793806415", "7046913258"),
)
# Of a codice fiscale: what a character in an odd place counts.
_ODD: Final = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _digits(random: Random, count: int) -> str:
    return "".join(random.choices("0123456789", k=count))


def _sum(digits: str, weights: tuple[int, ...]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


def _luhn(body: str) -> str:
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(body))]
    return str(-sum(value // 10 + value % 10 for value in doubled) % 10)


def _date(random: Random, first: int = 1940, last: int = 1999) -> tuple[int, int, int]:
    return random.randint(first, last), random.randint(1, 12), random.randint(1, 28)


def _ssn(random: Random) -> str:
    area = random.choice([n for n in range(1, 900) if n != 666])
    sign = random.choice("---- ")
    return f"{area:03}{sign}{random.randint(1, 99):02}{sign}{random.randint(1, 9999):04}"


def _no_ssn(random: Random) -> str:
    area = random.choice([0, 666, *range(900, 1000)])
    return f"{area:03}-{random.randint(1, 99):02}-{random.randint(1, 9999):04}"


def _sin(random: Random) -> str:
    body = random.choice("1234567") + _digits(random, 7)
    whole, sign = body + _luhn(body), random.choice(["", " ", " ", "-"])
    return sign.join((whole[:3], whole[3:6], whole[6:]))


def _nino(random: Random) -> str:
    while (prefix := random.choice("ABCEGHJKLMNOPRSTWXYZ") + random.choice("ABCEGHJKLMNPRSTWXYZ")) in (
        *("BG", "GB", "NK", "KN", "TN", "NT", "ZZ"),
    ):
        pass
    number, last = _digits(random, 6), random.choice("ABCD")
    if random.random() < 0.5:
        return prefix + number + last
    return f"{prefix} {number[:2]} {number[2:4]} {number[4:]} {last}"


def _no_nino(random: Random) -> str:
    return (
        random.choice(["BG", "GB", "NK", "TN", "ZZ", "DA", "QQ"]) + _digits(random, 6) + random.choice("ABCD")
    )


def _nhs(random: Random) -> str:
    while True:
        body = random.choice("4679") + _digits(random, 8)
        check = -_sum(body, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
        if check < 10:
            break
    sign = random.choice(["", " ", " ", "-"])
    return sign.join((body[:3], body[3:6], f"{body[6:]}{check}"))


def _bsn(random: Random) -> str:
    while True:
        body = random.choice("12345678") + _digits(random, 7)
        check = _sum(body, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
        if check < 10:
            break
    whole = f"{body}{check}"
    return random.choice(
        [whole, whole, f"{whole[:4]}.{whole[4:6]}.{whole[6:]}", f"{whole[:3]} {whole[3:6]} {whole[6:]}"]
    )


def _belgian(random: Random) -> str:
    year, month, day = _date(random, 1940, 2006)
    number = f"{random.randint(1, 997):03}"
    body = f"{year % 100:02}{month:02}{day:02}{number}"
    check = f"{97 - int(('2' if year >= 2000 else '') + body) % 97:02}"
    if random.random() < 0.25:
        return body + check
    return f"{body[:2]}.{body[2:4]}.{body[4:6]}-{number}.{check}"


def _steuer_id(random: Random) -> str:
    # Of its first ten digits one comes twice, and one doesn't come.
    while True:
        digits = random.sample("0123456789", 9)
        digits.append(random.choice(digits))
        random.shuffle(digits)
        body = "".join(digits)
        if body[0] != "0":
            break
    product = 10
    for digit in body:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    whole = f"{body}{(11 - product) % 10}"
    return random.choice([whole, f"{whole[:2]} {whole[2:5]} {whole[5:8]} {whole[8:]}"])


def _nir(random: Random) -> str:
    year, month, _ = _date(random)
    place = random.choice([f"{random.choice([*range(1, 20), *range(21, 96)]):02}", "2A", "2B"])
    body = f"{random.choice('12')}{year % 100:02}{month:02}{place}"
    body += f"{random.randint(1, 900):03}{random.randint(1, 900):03}"
    check = f"{97 - int(body.replace('2A', '19').replace('2B', '18')) % 97:02}"  # Corsica counts so
    if random.random() < 0.3:
        return body + check
    return " ".join((body[0], body[1:3], body[3:5], body[5:7], body[7:10], body[10:], check))


def _dni(random: Random) -> str:
    number = random.randint(1_000_000, 99_999_999)
    letter, whole = "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23], f"{number:08}"
    dotted = f"{whole[:2]}.{whole[2:5]}.{whole[5:]}"
    return random.choice([whole + letter, f"{whole}-{letter}", f"{dotted}-{letter}"])


def _nie(random: Random) -> str:
    first, number = random.randrange(3), _digits(random, 7)
    letter = "TRWAGMYFPDXBNJZSQVHLCKE"[int(f"{first}{number}") % 23]
    return random.choice([f"{'XYZ'[first]}{number}{letter}", f"{'XYZ'[first]}-{number}-{letter}"])


def _codice_fiscale(random: Random) -> str:
    year, _, day = _date(random)
    letters = "".join(random.choices("BCDFGLMNPRSTVZ", k=6))
    place = f"{random.choice('ABCDEFGHL')}{random.randint(1, 999):03}"
    body = f"{letters}{year % 100:02}{random.choice('ABCDEHLMPRST')}{day + random.choice([0, 40]):02}{place}"
    values = [int(c) if c.isdigit() else _LETTERS.index(c) for c in body]
    total = sum(_ODD[value] for value in values[::2]) + sum(values[1::2])
    return body + _LETTERS[total % 26]


def _pesel(random: Random) -> str:
    year, month, day = _date(random, 1940, 2009)
    body = f"{year % 100:02}{month + (20 if year >= 2000 else 0):02}{day:02}{_digits(random, 4)}"
    return f"{body}{-_sum(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10}"


def _personnummer(random: Random) -> str:
    year, month, day = _date(random)
    body = f"{year % 100:02}{month:02}{day:02}{_digits(random, 3)}"
    number = body[6:] + _luhn(body)
    century = random.choice(["", f"{year // 100}"])
    sign = random.choice(["-", "-", "-", ""])
    return f"{century}{body[:6]}{sign}{number}"


def _hetu(random: Random) -> str:
    year, month, day = _date(random, 1940, 2009)
    number = f"{random.randint(2, 899):03}"
    check = "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(f"{day:02}{month:02}{year % 100:02}{number}") % 31]
    return f"{day:02}{month:02}{year % 100:02}{'A' if year >= 2000 else '-'}{number}{check}"


def _ahv(random: Random) -> str:
    body = "756" + _digits(random, 9)
    whole = f"{body}{-_sum(body, (1, 3) * 6) % 10}"
    return random.choice([whole, *[f"{whole[:3]}.{whole[3:7]}.{whole[7:11]}.{whole[11:]}"] * 3])


def _cpf(random: Random) -> str:
    body = _digits(random, 9)
    for first in (10, 11):
        rest = _sum(body, tuple(range(first, 1, -1))) % 11
        body += str(0 if rest < 2 else 11 - rest)
    return random.choice([body, *[f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"] * 2])


def _aadhaar(random: Random) -> str:
    body, value = random.choice("23456789") + _digits(random, 10), 0
    for place, digit in enumerate(reversed(body), 1):
        value = int(_TIMES[value][int(_MOVED[place % 8][int(digit)])])
    check = next(str(n) for n in range(10) if _TIMES[value][n] == "0")
    sign = random.choice([" ", " ", "-", ""])
    return sign.join((body[:4], body[4:8], body[8:] + check))


def _resident_cn(random: Random) -> str:
    year, month, day = _date(random, 1950, 2009)
    province = random.choice([11, 31, 33, 37, 41, 44, 51, 61])
    place = f"{province}{random.randint(1, 12):02}{random.randint(1, 30):02}"
    body = f"{place}{year}{month:02}{day:02}{random.randint(1, 999):03}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[_sum(body, weights) % 11]


def _resident_kr(random: Random) -> str:
    year, month, day = _date(random)
    body = f"{year % 100:02}{month:02}{day:02}{random.choice('12')}{_digits(random, 5)}"
    check = (11 - _sum(body, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)) % 11) % 10
    return f"{body[:6]}-{body[6:]}{check}"


def _no_resident_kr(random: Random) -> str:
    return f"{random.randint(40, 99)}{random.randint(13, 99)}{random.randint(1, 28):02}-{_digits(random, 7)}"


def _tfn(random: Random) -> str:
    while True:
        body = random.choice("123456789") + _digits(random, 7)
        check = _sum(body, (1, 4, 3, 7, 5, 8, 6, 9)) % 11  # a tenth weight of 10 is -1 modulo 11
        if check < 10:
            break
    whole, sign = f"{body}{check}", random.choice(["", " ", " "])
    return sign.join((whole[:3], whole[3:6], whole[6:]))


IDS: Final[Mapping[str, Callable[[Random], str]]] = MappingProxyType(
    {
        "aadhaar": _aadhaar,
        "ahv": _ahv,
        "belgian": _belgian,
        "bsn": _bsn,
        "codice_fiscale": _codice_fiscale,
        "cpf": _cpf,
        "dni": _dni,
        "hetu": _hetu,
        "nhs": _nhs,
        "nie": _nie,
        "nino": _nino,
        "nir": _nir,
        "personnummer": _personnummer,
        "pesel": _pesel,
        "resident_cn": _resident_cn,
        "resident_kr": _resident_kr,
        "sin": _sin,
        "ssn": _ssn,
        "steuer_id": _steuer_id,
        "tfn": _tfn,
    }
)
"""By name."""


def _spoilt(draw: Callable[[Random], str]) -> Callable[[Random], str]:
    """Return what draws the same with another check digit, or letter, in the end."""

    def drawn(random: Random) -> str:
        value = draw(random)
        others = "0123456789" if value[-1].isdigit() else _LETTERS.replace("I", "").replace("O", "")
        return value[:-1] + random.choice(others.replace(value[-1], ""))

    return drawn


SPOILT: Final[Mapping[str, Callable[[Random], str]]] = MappingProxyType(
    {
        **{name: _spoilt(draw) for name, draw in IDS.items()},
        # These have no check digit, or one that new numbers are without.
        "nino": _no_nino,
        "resident_kr": _no_resident_kr,
        "ssn": _no_ssn,
    }
)
"""What looks like an id, and can't be one, by the id's name."""
