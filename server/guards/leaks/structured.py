"""Detectors of what has a form: addresses and numbers. Pure.

Each is given a text, of which it may read all, and where to begin: what lies before that is
context, which has left already. It reads each character a bounded number of times: no
pattern can go back over a repetition that has no small bound.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from unbroken.server.guards.leaks.checksums import iban, luhn
from unbroken.server.guards.leaks.entities import Match

__all__ = ["LETTER", "cards", "emails", "ibans", "ips", "phones"]

LETTER: Final = "￾"
"""What stands in flat text for a letter that isn't ASCII's, or an accent. See the scanner."""

# RFC 6531: letters of other scripts too.
_LOCAL: Final = (
    f"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+/=?^_`{{|}}~.-{LETTER}"
)
_LONGEST_LOCAL: Final = 64
_HOST: Final = re.compile(
    rf"[A-Za-z0-9{LETTER}-]{{1,63}}+(?>(?:\.[A-Za-z0-9{LETTER}-]{{1,63}}+){{1,8}})", re.ASCII
)
# It has no hyphen: behind it a dash is one of the sentence. In sr_RS@latin.UTF-8 it is an encoding's.
_TLD: Final = re.compile(
    rf"[Xx][Nn]--[A-Za-z0-9-]{{0,58}}[A-Za-z0-9]|(?![Uu][Tt][Ff]-)[A-Za-z{LETTER}]{{2,24}}(?![A-Za-z0-9{LETTER}])"
)

# Groups of digits with at most one separator between two.
_GROUPS: Final = re.compile(r"(?<![A-Za-z0-9])\d++(?>(?:[ ./-]\d++)*)", re.ASCII)
_GROUP: Final = re.compile(r"\d++", re.ASCII)

_MOST_GROUPS: Final = 5
"""Of a card: four of four digits, and three more."""
_SHORTEST_CARD: Final = 12
"""Digits."""

_ISSUERS: Final = re.compile(r"[3-6]|2[2-7]|2131|1800")

_IBAN_HEAD: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d", re.ASCII)
_IBAN_REST: Final = re.compile(r"(?>(?:[ -]?[A-Za-z0-9]){11,30})", re.ASCII)
_IBAN_LENGTHS: Final = {
    found[0]: int(found[1])
    for found in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
        "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
        "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
        "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
        "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
"""The registry of ISO 13616: how long each country's are."""

_IPV4: Final = re.compile(
    r"(?<![\w.])(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}(?![\w]|\.\d)", re.ASCII
)
_IPV6: Final = re.compile(
    r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{2,39}+(?:\.\d{1,3}){0,3}(?!\w)", re.ASCII
)

# A telephone number: an optional country, an optional prefix in brackets or before a slash, groups.
_PHONE: Final = re.compile(
    r"(?<![\w.#$€£/-])(?<!\d[ .,-])"
    r"(?:(?P<area>(?:\+\d{1,3}|00\d{1,3})[ ./-]?(?:\(0\) ?)?\d{1,5}|0\d{1,5}|\(0\d{1,5}\)) ?/ ?"
    r"|(?:\+\d{1,3}|00\d{1,3}|[18](?=[ .-]?\(\d{3}))?[ .-]?(?:\(\d{1,5}\)[ .-]?)?)"
    r"\d{1,12}+(?>(?:[ .-]\d{2,9}+){0,5})(?:x\d{1,6})?"
    r"(?![A-Za-z0-9]|[.,:/-]\d|[%€£])",
    re.ASCII,
)
_FRENCH: Final = re.compile(r"(?<![\w.#$€£/-])0\d(?:/\d\d){4}(?![\w/])", re.ASCII)
"""In five groups of two, with slashes."""
_FEWEST_LOCAL: Final = 5
"""Digits behind an area code's slash: four are an hour, or a year."""
_SHORTEST_PHONE: Final = 7
"""Digits."""
_PHONE_WORDS: Final = re.compile(
    r"(?:phone|tel|telephone|mobile|cell|call|fax|reach|contact|text|number|whatsapp|sms|dial)\b",
    re.IGNORECASE,
)
_DATE: Final = re.compile(
    r"(?:19|20)\d\d([-. /])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])|"
    r"(?:0?[1-9]|[12]\d|3[01])([-. /])(?:0?[1-9]|[12]\d|3[01])\2(?:19|20)?\d\d",
    re.ASCII,
)


def emails(text: str, start: int) -> Iterator[Match]:
    """Find e-mail addresses: a local part of up to 64 characters, and a host with a dot."""
    at = text.find("@", start)
    while at >= 0:
        before = text[max(at - _LONGEST_LOCAL, 0) : at]
        length = len(before) - len(before.rstrip(_LOCAL))
        host = _HOST.match(text, at + 1)
        if length and host is not None:
            end = host.end()
            last = host[0].rpartition(".")[2]
            if (tld := _TLD.match(last)) is not None:
                # Quotes and brackets of any sort around it aren't part of it.
                local = before[len(before) - length :].lstrip("'`*/=?{|}~.&!#$%^")
                if local:
                    yield Match(at - len(local), end - len(last) + tld.end(), "email")
        at = text.find("@", at + 1)


def cards(text: str, start: int) -> Iterator[Match]:
    """Find card numbers: 12 to 19 digits, in one piece or in usual groups, that satisfy Luhn."""
    for run in _GROUPS.finditer(text, start):
        if run.end() - run.start() < _SHORTEST_CARD:
            continue
        groups = [found.span() for found in _GROUP.finditer(text, run.start(), run.end())]
        sizes = [end - begin for begin, end in groups]
        next_free = 0
        for first, (begin, _) in enumerate(groups):
            if first < next_free or _ISSUERS.match(text, begin) is None:
                continue
            for last in _last_groups(sizes, first):
                if _is_card(text, groups[first : last + 1]):
                    yield Match(begin, groups[last][1], "card")
                    next_free = last + 1
                    break


def _last_groups(sizes: list[int], first: int) -> Iterator[int]:
    """Yield up to which groups a card may go whose first is *first*: the longest before others."""
    if sizes[first] == 4:
        fours = first  # up to which all have four digits
        most = min(first + _MOST_GROUPS, len(sizes))
        while fours + 1 < most and sizes[fours + 1] == 4:
            fours += 1
        last = fours + 1 if fours + 1 < most and sizes[fours + 1] < 4 else fours
        while last > first + 1:
            if 12 <= sum(sizes[first : last + 1]) <= 19:
                yield last
            last -= 1
        if sizes[first + 1 : first + 3] in ([6, 5], [6, 4]):
            yield first + 2
    elif 12 <= sizes[first] <= 19:
        yield first


def _is_card(text: str, groups: list[tuple[int, int]]) -> bool:
    begin = groups[0][0]
    if begin > 1 and text[begin - 1] in ".," and text[begin - 2].isdigit():
        return False  # a fraction
    if len(groups) > 2 and len({text[end] for _, end in groups[:-1]}) > 1:
        return False
    digits = "".join([text[start:end] for start, end in groups])
    return luhn(digits) and len(set(digits)) > 1


def ibans(text: str, start: int) -> Iterator[Match]:
    """Find IBANs: a registered country, its length, and 1 modulo 97."""
    head = _IBAN_HEAD.search(text, start)
    while head is not None:
        end = head.end()
        length = _IBAN_LENGTHS.get(head[0][:2].upper())
        rest = None if length is None else _IBAN_REST.match(text, end)
        if length is not None and rest is not None:
            chars = head[0]
            for place in range(rest.start(), rest.end()):
                if text[place] not in " -":
                    chars += text[place]
                    if len(chars) == length:
                        ends = place + 1 == len(text) or not text[place + 1].isalnum()
                        if ends and iban(chars.upper()):
                            yield Match(head.start(), place + 1, "iban")
                            end = place + 1
                        break
        head = _IBAN_HEAD.search(text, end)


def ips(text: str, start: int) -> Iterator[Match]:
    """Find IP addresses of both versions. One of version 6 has at least two colons, and a digit."""
    if text.find(".", start) >= 0:
        for found in _IPV4.finditer(text, start):
            yield Match(found.start(), found.end(), "ip")
    if text.find(":", start) >= 0:
        for found in _IPV6.finditer(text, start):
            address = found[0].rstrip(":") if not found[0].endswith("::") else found[0]
            if address.count(":") < 2 or not any(map(str.isdigit, address)):
                continue
            try:
                ipaddress.IPv6Address(address)
            except ValueError:
                continue
            yield Match(found.start(), found.start() + len(address), "ip")


def phones(text: str, start: int) -> Iterator[Match]:
    """Find telephone numbers: 7 to 15 digits that are grouped, or have a country, or a word before them."""
    if text.find("/", start) >= 0:
        for found in _FRENCH.finditer(text, start):
            yield Match(found.start(), found.end(), "phone")
    for found in _PHONE.finditer(text, start):
        number = found[0]
        if len(number) < _SHORTEST_PHONE:
            continue
        if found["area"] is not None and not _is_area(
            found["area"], number, text[found.end() : found.end() + 2]
        ):
            continue
        lead = len(number) - len(number.lstrip(" .-"))
        number = number[lead:]
        main = number.partition("x")[0]
        digits = sum(map(str.isdigit, main))
        if not _SHORTEST_PHONE <= digits <= 15 or _DATE.fullmatch(main) is not None:
            continue
        groups = _GROUP.findall(main)
        if len(groups) == 1 and "(" not in main and not main.startswith(("+", "00")):
            is_national = digits == 10 or (digits == 11 and main[0] in "01")
            if not (is_national and _PHONE_WORDS.search(text, 0, found.start())):
                continue
        elif max(map(len, groups)) > 8 and not main.startswith(("+", "00")):
            continue
        elif len(groups) == 2 and main[0] not in "+(0":
            # Two groups are a house number and what follows, a decimal number, a code, more often than not.
            is_usual = [len(group) for group in groups] in ([3, 4], [2, 6]) and "." not in main
            if not (is_usual and _PHONE_WORDS.search(text, 0, found.start())):
                continue
        yield Match(found.start() + lead, found.end(), "phone")


def _is_area(area: str, number: str, following: str) -> bool:
    """Return whether a slash stands behind an *area* code: no date, no part of a path, nothing short."""
    groups = _GROUP.findall(number[len(area) :].partition("x")[0])
    digits, head = sum(map(len, groups)), groups[0]
    if digits < _FEWEST_LOCAL or (following[:1] == "/" and following[1:].isalnum()):
        return False
    is_like_a_month = len(area) == 2
    is_like_a_year = len(head) == 4 and head.startswith(("19", "20"))
    return not (is_like_a_month and (len(head) < 3 or is_like_a_year))
