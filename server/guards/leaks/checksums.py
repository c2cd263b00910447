"""Check digits, each as its standard says. All take what has the right length and alphabet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["ean13", "iban", "luhn", "mod11_10", "verhoeff", "weighted"]

# By a digit's code, the digits' sum of its double.
_DOUBLED: Final = bytes(48) + bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)) + bytes(198)

# The dihedral group D5: its multiplication, and the powers of the permutation that Verhoeff chose.
_D5: Final = tuple(
    tuple(
        (5 if (a < 5) != (b < 5) else 0) + ((a % 5 + b % 5) % 5 if a < 5 else (a % 5 - b % 5) % 5)
        for b in range(10)
    )
    for a in range(10)
)
_STEP: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def luhn(digits: str) -> bool:
    """Return whether *digits* satisfy ISO/IEC 7812-1, annex B."""
    codes = digits.encode("ascii")
    alone = codes[::-2]
    return (sum(alone) - 48 * len(alone) + sum(codes[-2::-2].translate(_DOUBLED))) % 10 == 0


def iban(text: str) -> bool:
    """Return whether *text*, upper-case letters and digits, satisfies ISO 13616: 1 modulo 97."""
    moved = text[4:] + text[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


def verhoeff(digits: str) -> bool:
    """Return whether *digits* satisfy Verhoeff's scheme."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        number = ord(digit) - 48
        for _ in range(place % 8):
            number = _STEP[number]
        check = _D5[check][number]
    return check == 0


def mod11_10(digits: str) -> bool:
    """Return whether *digits* satisfy ISO/IEC 7064, MOD 11,10."""
    product = 10
    for digit in digits[:-1]:
        total = (ord(digit) - 48 + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == ord(digits[-1]) - 48


def weighted(digits: str, weights: Sequence[int], modulus: int) -> int:
    """Return the sum of *digits*, each with its weight, modulo *modulus*."""
    return sum((ord(digit) - 48) * weight for digit, weight in zip(digits, weights, strict=False)) % modulus


def ean13(digits: str) -> bool:
    """Return whether thirteen *digits* satisfy GS1's check digit."""
    return weighted(digits, (1, 3) * 7, 10) == 0
