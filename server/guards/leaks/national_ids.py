"""National identification numbers: their forms, their check digits, and which need a word beside them.

A form that ordinary numbers have too, and that one in ten of them satisfies, counts only
where the text before it says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from unbroken.server.guards.leaks.checksums import ean13, luhn, mod11_10, verhoeff, weighted
from unbroken.server.guards.leaks.entities import Match

__all__ = ["NATIONAL_IDS", "NationalId", "national_ids"]

_DNI_LETTERS: Final = "TRWAGMYFPDXBNJZSQVHLCKE"
_HETU_LETTERS: Final = "0123456789ABCDEFHJKLMNPRSTUVWXY"
# Of an Italian tax code: what a character in an odd place counts, by its letter or digit.
_ODD: Final = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


_BEFORE: Final = r"(?<![A-Za-z0-9])(?<!\d[.,-])"
_BEHIND: Final = r"(?![A-Za-z0-9])"
_FIELD: Final = r"(?:number|num|no|nr|id)?(?![A-Za-z0-9])"
_NEAR: Final = (
    r"(?>(?:[^0-9.?!;]|[.?!;](?!\s)){0,40})"
    r"(?:[0-9-]{9,11}[\s,;\"'`|]{1,4}(?:and |or )?(?:[-*] )?){0,9}\Z"
)
"""Of what has neither a form nor a check digit the word stands in the same sentence, and no number
between but those of the same sort."""


@dataclass(frozen=True, slots=True)
class NationalId:
    """One kind.

    Args:
        name: Country and kind.
        form: What it looks like, without what stands around it.
        is_valid: Told its letters and digits, in upper case.
        words: One of these has to stand before it. None: it is told by its form.
        word: The same in lower case, without what stands around and behind it.

    """

    name: str
    form: re.Pattern[str]
    is_valid: Callable[[str], bool]
    words: re.Pattern[str] | None = None
    word: str = ""


def _kind(
    name: str, form: str, is_valid: Callable[[str], bool], words: str | None = None, between: str = ""
) -> NationalId:
    pattern = re.compile(rf"{_BEFORE}(?:{form}){_BEHIND}", re.IGNORECASE | re.ASCII)
    if words is None:
        return NationalId(name, pattern, is_valid)
    # Names of fields, too: nhs_number, nhsNumber.
    named = rf"(?<![A-Za-z0-9])(?:{words}){_FIELD}{between}"
    return NationalId(name, pattern, is_valid, re.compile(named, re.IGNORECASE | re.ASCII), words)


def _is_date(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _ssn(text: str) -> bool:
    return text[:3] not in ("000", "666") and text[0] != "9" and text[3:5] != "00" and text[5:] != "0000"


def _dni(text: str) -> bool:
    digits = {"X": "0", "Y": "1", "Z": "2"}.get(text[0], text[0]) + text[1:-1]
    return _DNI_LETTERS[int(digits) % 23] == text[-1]


def _codice_fiscale(text: str) -> bool:
    values = [int(char, 36) for char in text[:15]]
    numbers = [value if value < 10 else value - 10 for value in values]
    total = sum(_ODD[number] for number in numbers[::2]) + sum(numbers[1::2])
    return total % 26 == ord(text[15]) - 65


def _nir(text: str) -> bool:
    # Corsica has letters: 2A counts as 19, 2B as 18.
    return 97 - int(text[:13].replace("2A", "19").replace("2B", "18")) % 97 == int(text[13:])


def _cpf(text: str) -> bool:
    if len(set(text)) == 1:
        return False
    first = weighted(text, range(10, 1, -1), 11)
    second = weighted(text, range(11, 1, -1), 11)
    expected = [0 if rest < 2 else 11 - rest for rest in (first, second)]
    return expected == [int(text[9]), int(text[10])]


def _bsn(text: str) -> bool:
    return int(text) > 0 and weighted(text, (9, 8, 7, 6, 5, 4, 3, 2, -1), 11) == 0


def _nhs(text: str) -> bool:
    return (11 - weighted(text, range(10, 1, -1), 11)) % 11 == int(text[9])


def _tfn(text: str) -> bool:
    return weighted(text, (1, 4, 3, 7, 5, 8, 6, 9, 10), 11) == 0


def _pesel(text: str) -> bool:
    month = int(text[2:4]) % 20
    has_date = _is_date(str(month), text[4:6])
    return has_date and weighted(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10) == 0


def _personnummer(text: str) -> bool:
    text = text[-10:]  # the century says nothing
    day = int(text[4:6])  # a coordination number has 60 added
    return _is_date(text[2:4], str(day - 60 if day > 60 else day)) and luhn(text)


def _rijksregister(text: str) -> bool:
    given = int(text[9:])
    return given in (97 - int(text[:9]) % 97, 97 - int("2" + text[:9]) % 97)


def _resident_id(text: str) -> bool:
    weights = tuple(2**place % 11 for place in range(17, 0, -1))
    return _is_date(text[10:12], text[12:14]) and "10X98765432"[weighted(text[:17], weights, 11)] == text[17]


def _rrn(text: str) -> bool:
    rest = weighted(text, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), 11)
    return _is_date(text[2:4], text[4:6]) and (11 - rest) % 10 == int(text[12])


def _hetu(text: str) -> bool:
    digits = text[:6] + text[-4:-1]
    return _is_date(text[2:4], text[:2]) and _HETU_LETTERS[int(digits) % 31] == text[-1]


def _steuer_id(text: str) -> bool:
    # Of the first ten digits exactly one comes twice, or three times.
    return text[0] != "0" and len(set(text[:10])) in (8, 9) and mod11_10(text)


NATIONAL_IDS: Final = (
    _kind("us_ssn", r"\d{3}([- ])\d\d\1\d{4}", _ssn),
    _kind("us_ssn", r"\d{9}", _ssn, r"ssns?|social security(?: numbers?| no\.)?", _NEAR),
    _kind(
        "uk_nino",
        r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d(?: ?[A-D])?",
        lambda text: len(text) == 9,
    ),
    # In groups its first two letters have left as a word, and the last is another: they say next to nothing.
    _kind(
        "uk_nino",
        r"(?<=[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] )\d\d \d\d \d\d",
        lambda text: len(text) == 6,
        r"ni|nino|national insurance(?: number| no)?",
    ),
    _kind("uk_nhs", r"\d{3}[- ]?\d{3}[- ]?\d{4}", _nhs, r"nhs"),
    _kind(
        "ca_sin",
        r"\d{3}[- ]?\d{3}[- ]?\d{3}",
        luhn,
        r"sin|nas|social insurance(?: number| no)?|assurance sociale",
    ),
    _kind("au_tfn", r"\d{3} ?\d{3} ?\d{3}", _tfn, r"tfn|tax file(?: number| no)?"),
    _kind("in_aadhaar", r"(?<!\d[ -])[2-9]\d{3}([- ])\d{4}\1\d{4}(?![ -]\d)", verhoeff),
    _kind("in_aadhaar", r"[2-9]\d{11}", verhoeff, r"aadhaar|aadhar|uidai"),
    _kind("es_dni", r"\d{8}-?[A-Z]|\d\d\.\d{3}\.\d{3}-?[A-Z]|[XYZ]-?\d{7}-?[A-Z]", _dni),
    _kind("it_codice_fiscale", r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]", _codice_fiscale),
    _kind("fr_nir", r"[12] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d", _nir),
    _kind(
        "de_steuer_id",
        r"\d\d ?\d{3} ?\d{3} ?\d{3}",
        _steuer_id,
        r"steuer\S{0,30}|idnr|tax id(?:entification)?(?: number| no)?",
    ),
    _kind("br_cpf", r"\d{3}\.\d{3}\.\d{3}-\d\d", _cpf),
    _kind("br_cpf", r"\d{11}", _cpf, r"cpf"),
    _kind("nl_bsn", r"\d{9}|\d{3} \d{3} \d{3}|\d{4}\.\d\d\.\d{3}", _bsn, r"bsn|burgerservicenummer|sofi"),
    _kind("pl_pesel", r"\d{11}", _pesel, r"pesel"),
    _kind("se_personnummer", r"(?:19|20)?\d{6}[-+]\d{4}", _personnummer),
    _kind(
        "se_personnummer",
        r"(?:19|20)?\d{10}",
        _personnummer,
        r"personn\w{1,10}|pnr|personal (?:identity )?number",
    ),
    _kind("be_rijksregister", r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", _rijksregister),
    _kind(
        "be_rijksregister",
        r"\d{11}",
        _rijksregister,
        r"rijksregister\w{0,10}|insz|niss|registre national|num\Sro national|national (?:register )?number",
    ),
    _kind("cn_resident_id", r"[1-9]\d{5}(?:19|20)\d{9}[\dX]", _resident_id),
    _kind("kr_rrn", r"\d{6}-[1-8]\d{6}", _rrn),
    _kind("fi_hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]", _hetu),
    # Nothing that is sold has a number that begins with this country's.
    _kind("ch_ahv", r"756\.\d{4}\.\d{4}\.\d\d|756\d{10}", ean13),
)
"""All kinds. Behind those that are told by their form there may be one that needs a word."""


def _begins(kinds: tuple[NationalId, ...]) -> re.Pattern[str]:
    # Two separators that are the same are two: which group is meant, no one pattern could say.
    bare = [kind.form.pattern.removeprefix(_BEFORE).removesuffix(_BEHIND) for kind in kinds]
    forms = [form.replace("([- ])", "[- ]").replace(r"\1", "[- ]") for form in bare]
    return re.compile(rf"{_BEFORE}(?=(?:{'|'.join(forms)}){_BEHIND})", re.IGNORECASE | re.ASCII)


_BY_FORM: Final = tuple(kind for kind in NATIONAL_IDS if kind.words is None)
_BY_WORD: Final = tuple(kind for kind in NATIONAL_IDS if kind.words is not None)
_FORM_BEGINS: Final = _begins(_BY_FORM)
_WORD_BEGINS: Final = _begins(_BY_WORD)
# In text that has been made lower case: words are then looked for by their first letters.
_ANY_WORD: Final = re.compile(f"(?:{'|'.join(kind.word for kind in _BY_WORD)}){_FIELD}", re.ASCII)


def national_ids(text: str, start: int) -> Iterator[Match]:
    """Find national identification numbers.

    Text without any is looked at once or twice for where one of any kind may begin, not for each kind.
    """
    yield from _found(text, start, _FORM_BEGINS, _BY_FORM)
    if _ANY_WORD.search(text.lower()) is not None:
        yield from _found(text, start, _WORD_BEGINS, _BY_WORD)


def _found(text: str, start: int, begins: re.Pattern[str], kinds: tuple[NationalId, ...]) -> Iterator[Match]:
    ends = [start] * len(kinds)
    for place in begins.finditer(text, start):
        begin = place.start()
        for number, kind in enumerate(kinds):
            found = kind.form.match(text, begin) if begin >= ends[number] else None
            if found is None:
                continue
            ends[number] = found.end()
            bare = "".join(filter(str.isalnum, found[0])).upper()
            if kind.is_valid(bare) and (kind.words is None or kind.words.search(text, 0, begin)):
                yield Match(begin, found.end(), "national_id")
