"""What is found, kind by kind, and what isn't."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.guards.leaks.samples import ALL, JWT, filtered
from unbroken.server.guards.leaks import (
    addresses,
    arguments,
    coordinates,
    json_text,
    people,
    private_key,
    secrets,
    sentences,
    stream,
    structured,
    verbatim,
)
from unbroken.server.guards.leaks import national_ids as leaks_ids
from unbroken.server.guards.leaks.checksums import ean13, iban, luhn, mod11_10, verhoeff
from unbroken.server.guards.leaks.entities import DEFAULT_ACTIONS, ENTITIES, Match, merged
from unbroken.server.guards.leaks.national_ids import NATIONAL_IDS, national_ids
from unbroken.server.guards.leaks.scanner import Scanner
from unbroken.server.guards.leaks.secret_rules import SECRET_RULES, SecretRule
from unbroken.server.guards.leaks.stream import LeakFilter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<alice@example.com>", "<[email]>"),
        ("(bob@example.org).", "([email])."),
        ("mailto:a.b-c@x-y.example.museum?subject=x", "mailto:[email]?subject=x"),
        ("a@b, user@localhost and 3@4.5", "a@b, user@localhost and 3@4.5"),
        ("git@github.com:org/repo", "[email]:org/repo"),
        ("card:4111111111111111,", "card:[card],"),
        ("4111111111111112", "4111111111111112"),
        ("0000000000000000 1111111111111111", "0000000000000000 1111111111111111"),
        ("4111 1111 1111 1111 123", "[card] 123"),
        ("9 4111-1111-1111-1111", "9 [card]"),
        ("GB82WEST12345698765433", "GB82WEST12345698765433"),
        ("gb82 west 1234 5698 7654 32.", "[iban]."),
        ("NL91ABNA0417164300 next", "[iban] next"),
        ("IBAN: DE89 3704 0044 0532 0130 00", "IBAN: [iban]"),
        ("on 2024-05-17 and 17.05.2024, at 12:30:45", "on 2024-05-17 and 17.05.2024, at 12:30:45"),
        ("version 1.2.3, 256.1.1.1, 1.2.3.4.5", "version 1.2.3, 256.1.1.1, 1.2.3.4.5"),
        ("10.0.0.1:8080 and fe80::1%eth0 or [::1]", "[ip]:8080 and [ip]%eth0 or [[ip]]"),
        ("std::vector a::b 12::", "std::vector a::b [ip]"),
        ("call 2125550187 now", "call [phone] now"),
        ("there were 2125550187 of them", "there were 2125550187 of them"),
        ("$1,234,567.89 or 1.234.567", "$1,234,567.89 or 1.234.567"),
        ("pi is 3.14159, 2.71828", "pi is [coordinates]"),
        ("000-12-3456 and 666-12-3456", "000-12-3456 and 666-12-3456"),
        ("ssn 460899847", "ssn [national_id]"),
        ("order 460899847", "order 460899847"),
    ],
)
def test_what_has_a_form_is_told_from_what_only_looks_so(text: str, expected: str) -> None:
    without_phones = (
        {**ALL, "phone": "redact"} if "call" in text or "of them" in text else {**ALL, "phone": "flag"}
    )
    assert filtered([text], without_phones) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ana.Mu\u00f1oz@example.es", "[email]"),
        ("an Ana.Mun\u0303oz@example.es, bitte", "an [email], bitte"),
        ("Mail j\u00f6rg@example.com.", "Mail [email]."),
        ("anna@m\u00fcnchen.de", "[email]"),
        ("\u0430\u043d\u043d\u0430@\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444", "[email]"),
        ("\u0645\u062d\u0645\u062f@example.com", "[email]"),
        ("alice@example.com\u2014we answer", "[email]\u2014we answer"),
        ("alice@example.com\u20143 days", "[email]\u20143 days"),
        ("\u90ae\u7bb1alice@example.com\u3002", "\u90ae\u7bb1[email]\u3002"),
        ("caf\u00e9@home and a\u00f1o@2.5", "caf\u00e9@home and a\u00f1o@2.5"),
        ("contrase\u00f1a: password=\u00e4b4rz9XkQ7", "contrase\u00f1a: password=[secret]"),
        ("1 (800) 555-0199", "[phone]"),
        ("Call 1 (800) 555-0199 now", "Call [phone] now"),
        ("1(800)555-0199", "[phone]"),
        ("1-(800)-555-0199", "[phone]"),
        ("8 (495) 123-45-67", "[phone]"),
        ("Tel. 030/1234567", "Tel. [phone]"),
        ("Tel: 030 / 123 45 67.", "Tel: [phone]."),
        ("0171/1234567", "[phone]"),
        ("0171 / 12 34 567", "[phone]"),
        ("(030) / 1234567", "[phone]"),
        ("(030)/1234567", "[phone]"),
        ("+49 30/1234567", "[phone]"),
        ("+49/30/1234567", "[phone]"),
        ("+49 (0)30/1234567", "[phone]"),
        ("01/23/45/67/89", "[phone]"),
        ("02/123 45 67", "[phone]"),
        ("4111/1111/1111/1111", "[card]"),
    ],
)
def test_ordinary_forms_are_found_whole(text: str, expected: str) -> None:
    assert filtered([text]) == expected
    assert filtered(list(text)) == expected
    for place in range(len(text)):
        assert filtered([text[:place], text[place:]]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "on 03/04/2025 and 04/2025, 03/04/25, 03/04 2025 or 02/2024 1500 units",
        "1/2 cup, 3 / 4 of 1000000, 0.5/1234567 and 01/02/03",
        "8 (4) and 1 (2) of 10000000",
        "from 0800/1600 to 0600 / 1800, 24/7/365",
        "see /api/0123/456789, 0123/456789/x and a/0123/456789",
        "12/34/56/78/90 and 1234/5678/9012",
        "2024 /etc/passwd and 5 / word",
        "LANG=sr_RS@latin.UTF-8 and x@y.utf-16",
    ],
)
def test_dates_fractions_and_paths_are_no_phone_numbers_nor_locales_addresses(text: str) -> None:
    assert filtered([text]) == text
    assert filtered(list(text)) == text


def test_addresses_that_differ_by_a_letter_are_known_apart() -> None:
    known: list[str] = []
    for text in ("j\u00f6rg@example.com", "j\u00fcrg@example.com", "J\u00d6RG@example.com"):
        stream = LeakFilter(Scanner(ALL), ALL, lambda _, name: name)
        known.append(stream.feed(text) + stream.flush())
    assert known[0] == known[2] != known[1]


@pytest.mark.parametrize(
    "token",
    [f"{head}_" + "Ab3-_cD5" * 5 + "xY9" for head in ("ub", "ek", "tk")]
    + ["rt_" + "0a1b2c3d" * 5 + "4e5f_" + "Ab3-_cD5" * 2 + "xY9-_z"],
)
def test_our_own_tokens_are_secrets(token: str) -> None:
    for text in (f"so: {token} on", f"so: GET /?ticket={token}", f'{{"value": "{token}"}}'):
        assert filtered([text]) == filtered(list(text)) == text.replace(token, "[secret]")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("us_ssn", "460-89-9847"), ("uk_nino", "AB123456C"),
        ("uk_nino", "NI number AB 12 34 56 C"), ("uk_nhs", "nhs 943 476 5919"),
        ("ca_sin", "SIN 046 454 286"), ("au_tfn", "TFN 123 456 782"), ("in_aadhaar", "2345 6789 0124"),
        ("es_dni", "12345678Z"), ("es_dni", "X1234567L"), ("it_codice_fiscale", "RSSMRA85T10A562S"),
        ("fr_nir", "2 55 08 14 168 025 38"), ("de_steuer_id", "Steuer-ID 86 095 742 719"),
        ("br_cpf", "111.444.777-35"),
        ("nl_bsn", "BSN 111222333"), ("pl_pesel", "PESEL 44051401359"), ("se_personnummer", "811218-9876"),
        ("be_rijksregister", "85.07.30-033.28"), ("cn_resident_id", "11010519491231002X"),
        ("kr_rrn", "800901-1234563"), ("fi_hetu", "131052-308T"), ("ch_ahv", "756.9217.0769.85"),
    ],
)  # fmt: skip
def test_a_national_id_is_found_and_with_another_digit_it_is_not(name: str, good: str) -> None:
    kinds = [kind for kind in NATIONAL_IDS if kind.name == name]
    actions = {**dict.fromkeys(ENTITIES, "ignore"), "national_id": "redact"}
    assert kinds
    assert "[national_id]" in filtered([f"It is {good} here"], actions)  # type: ignore[arg-type]
    if name in ("us_ssn", "uk_nino"):  # these have no check digit
        return
    place = max(place for place, char in enumerate(good) if char.isdigit())
    for change in (1, 3):
        wrong = good[:place] + str((int(good[place]) + change) % 10) + good[place + 1 :]
        assert filtered([f"It is {wrong} here"], actions) == f"It is {wrong} here"  # type: ignore[arg-type]


GROUPED: Final = """
0 1 2 3 4 5 6 7 8 9 12 123 4111 1111 411 6011 822463 10005 1000 900 4111111111111111 460-89-9847 943 476 5919
2345 6789 0124 111.444.777-35 12345678Z AB nhs ssn
"""
GROUPS: Final = st.sampled_from(GROUPED.split())
NUMBERS: Final = st.lists(
    st.tuples(GROUPS, st.sampled_from([" ", " ", "-", ".", ", ", "", "\n"])), max_size=16
).map(lambda parts: "".join(map("".join, parts)))


@given(text=NUMBERS, start=st.integers(0, 40))
def test_national_ids_are_those_of_each_kind_by_itself(text: str, start: int) -> None:
    expected = []
    for kind in NATIONAL_IDS:
        for found in kind.form.finditer(text, start):
            bare = "".join(filter(str.isalnum, found[0])).upper()
            if kind.is_valid(bare) and (kind.words is None or kind.words.search(text, 0, found.start())):
                expected.append(Match(*found.span(), "national_id"))

    assert sorted(national_ids(text, start)) == sorted(expected)


@pytest.mark.parametrize(
    "text",
    [
        "Mon num\u00e9ro d'assurance sociale est le {046 454 286}",
        "DNI {12.345.678-Z}",
        "Mijn BSN is {111 222 333}",
        "Rijksregisternummer: {85073003328}",
        "Num\u00e9ro national {85073003328}",
        "personnummer {19811218-9876}",
        "Personnumret \u00e4r {198112189876}, personal identity number {8112189876}",
        "{7569217076985}, 7569217076986",
        "the tax identification number is {86095742719}",
        '{"nhs_number": "{943 476 5919}", "nhsNumber": "{9434765919}", "customer_ssn": "{460899847}"}',
        "SSNs: {460899847}, {460899848} and {460899849}",
        "Social security no. {460899847}",
        "SSN {460899847}? The case is 460899848. SSN {460899847}, case 460899849",
        "Aadhaar {5969 5127 5301} and {441010196902109826} are no cards",
    ],
)
def test_an_id_is_found_as_people_write_it_and_nothing_else_that_stands_by(text: str) -> None:
    plain = re.sub(r"\{(\w[\w .-]*)\}", r"\1", text)
    assert filtered([plain]) == filtered(list(plain)) == re.sub(r"\{(\w[\w .-]*)\}", "[national_id]", text)


def is_card(groups: list[str], separators: list[str]) -> bool:
    sizes, digits = [len(group) for group in groups], "".join(groups)
    is_usual = len(sizes) == 1 or sizes in ([4, 6, 5], [4, 6, 4])
    is_usual = is_usual or (set(sizes[:-1]) == {4} and sizes[-1] <= 4)
    is_issued = re.match("[3-6]|2[2-7]|2131|1800", digits) is not None
    is_number = 12 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)
    return is_usual and is_issued and is_number and len(set(separators)) < 2


@given(
    groups=st.lists(
        st.sampled_from(["4111", "1111", "4", "61", "822463", "10005", "3782", "0004", "5500"]),
        min_size=1,
        max_size=9,
    ),
    separator=st.sampled_from(" -"),
    other=st.integers(0, 9),
)
def test_cards_are_the_longest_of_usual_groups(groups: list[str], separator: str, other: int) -> None:
    separators = [
        " -".replace(separator, "") if number == other else separator for number in range(len(groups))
    ]
    text = "".join(map("".join, zip(groups, separators, strict=True)))[:-1]
    expected: list[tuple[str, ...]] = []
    first = 0
    while first < len(groups):
        lasts = range(min(first + 5, len(groups)), first, -1)
        last = next((end for end in lasts if is_card(groups[first:end], separators[first : end - 1])), None)
        expected += [] if last is None else [tuple(groups[first:last])]
        first = last or first + 1

    found = [text[match.start : match.end] for match in structured.cards(text, 0)]
    assert [tuple(re.split("[-. ]", card)) for card in found] == expected


@pytest.mark.parametrize("text", ["1 " * 48, "1234 " * 19, "12. " * 24, "123, " * 19, "1/2 " * 24])
def test_of_numbers_that_are_no_cards_no_check_digit_is_looked_at(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such lists are common, and each number begins some fifteen ways of grouping those that follow."""
    monkeypatch.setattr(structured, "luhn", lambda _: pytest.fail("looked at"))
    assert list(structured.cards(text, 0)) == []


def test_check_digits_are_as_their_standards_say() -> None:
    """The standards' own examples."""
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert iban("GB82WEST12345698765432")
    assert verhoeff("2363")
    assert not verhoeff("2364")
    assert mod11_10("0794" + "0") is False
    assert mod11_10("07945")
    assert ean13("4006381333931")


def made(rule: SecretRule) -> Iterator[str]:
    """Yield a token of each head, of characters that the rule takes."""
    kind = re.compile(f"[{rule.alphabet}]")
    chars = [char for char in map(chr, range(33, 127)) if kind.match(char) and char.isalnum()] * 8
    chars = [chars[place * 7 % len(chars)] for place in range(len(chars))]
    for head in rule.heads:
        body = "".join((chars * 8)[: rule.least])
        yield head + body


@pytest.mark.parametrize("rule", [rule for rule in SECRET_RULES if not rule.then], ids=lambda rule: rule.name)
def test_what_has_a_providers_format_is_found_and_what_is_shorter_is_not(rule: SecretRule) -> None:
    for token in made(rule):
        assert filtered([f"so: {token} on"]) == "so: [secret] on", token
        assert rule.pattern.fullmatch(token[:-1]) is None


def test_there_are_rules_for_many_providers_each_with_a_name_of_its_own() -> None:
    names = [rule.name for rule in SECRET_RULES]

    assert len(set(names)) == len(names) >= 40
    assert all(len(head) >= 2 for rule in SECRET_RULES for head in rule.heads)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password: hunter2Xy9", "password: [secret]"),
        ('"api_key" : "a8F3kQ9zLm2P"', '"api_key" : "[secret]"'),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzAK3EYQ9x", "AWS_SECRET_ACCESS_KEY=[secret]"),
        ("Authorization: Bearer 4fQz8LmN2pRtVwXy6ZaB", "Authorization: Bearer [secret]"),
        ("postgres://app:s3cr3t!pw@db:5432/x", "postgres://app:[secret]@db:5432/x"),
        ("https://bob:pa55word@host.example.com/x", "https://bob:[secret]@host.example.com/x"),
        (f"https://x:github_pat_{'4fQz8LmN2pRt' * 7}@example.com/x", "https://x:[secret]@example.com/x"),
        (
            '{"url":"http://host:80","email":"bob@example.com"}',
            '{"url":"http://host:80","email":"[email]"}',
        ),
        ("<http://host:8080>,bob@example.com", "<http://host:8080>,[email]"),
        # No password is found there: too short, or a word that stands for one.
        ("http://x:jd@example.com", "http://x:[email]"),
        ("http://x:test.user@example.com", "http://x:[email]"),
        ("ldap://dir:my.name@example.com", "ldap://dir:[email]"),
        ("http://host:8080,bob@example.com", "http://host:[email]"),
        ("ssh://git@example.com:22 and x:bob@example.com", "ssh://[email]:22 and x:[email]"),
        ("the token is a8F3kQ9zLm2P", "the token is [secret]"),
        (f"token {JWT}", "token [secret]"),
        ("password = your_password_1", "password = your_password_1"),
        ("api_key = os.environ['API_KEY1']", "api_key = os.environ['API_KEY1']"),
        ("token: ${TOKEN_2_VALUE}", "token: ${TOKEN_2_VALUE}"),
        ("The password is wrong, the secret is out.", "The password is wrong, the secret is out."),
        ("max_tokens: 4096, token = undefined", "max_tokens: 4096, token = undefined"),
        ("a desk-lamp-with-a-long-name-of-many-words", "a desk-lamp-with-a-long-name-of-many-words"),
    ],
)  # fmt: skip
def test_what_is_assigned_to_a_telling_name_is_found_if_it_is_random(text: str, expected: str) -> None:
    assert filtered([text]) == expected
    assert filtered(list(text)) == expected


def test_of_two_that_overlap_the_weightier_names_both() -> None:
    actions = {**DEFAULT_ACTIONS, "email": "redact", "ip": "block"}
    card, mail, address = Match(0, 10, "card"), Match(5, 30, "email"), Match(28, 31, "ip")

    assert merged([mail, card], actions) == [Match(0, 30, "email")]
    assert merged([mail, card, address], actions) == [Match(0, 31, "ip")]
    assert merged([Match(0, 9, "phone"), Match(0, 9, "national_id")], ALL) == [Match(0, 9, "national_id")]
    assert merged([Match(0, 30, "email"), Match(5, 9, "card")], DEFAULT_ACTIONS) == [Match(5, 9, "card")]


def test_what_is_ignored_is_not_looked_for() -> None:
    scanner = Scanner(dict.fromkeys(ENTITIES, "ignore"))

    assert scanner.find("", "alice@example.com 4111111111111111 192.168.0.1") == []


_constants: Final[Any] = importlib.import_module("re._constants")
_parser: Final[Any] = importlib.import_module("re._parser")

FEW: Final = 64
"""Repetitions that a pattern may give back."""


MODULES: Final = (
    addresses, arguments, coordinates, json_text, leaks_ids, people, private_key, secrets, sentences,
    stream, structured, verbatim,
)  # fmt: skip


def patterns() -> Iterator[re.Pattern[str]]:
    yield from (rule.pattern for rule in SECRET_RULES)
    for kind in NATIONAL_IDS:
        yield kind.form
        if kind.words is not None:
            yield kind.words
    for module in MODULES:
        for value in vars(module).values():
            pattern = getattr(value, "__self__", value)
            if isinstance(pattern, re.Pattern):
                yield pattern


def repetitions(tree: Any) -> Iterator[tuple[Any, int]]:
    """Yield each repetition in a parsed pattern that can give back, and how often it repeats at most."""
    for operation, argument in tree:
        if operation in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            _, most, inner = argument
            yield inner, int(most)
            yield from repetitions(inner)
        elif operation is _constants.POSSESSIVE_REPEAT:
            yield from repetitions(argument[2])
        elif operation is _constants.BRANCH:
            for branch in argument[1]:
                yield from repetitions(branch)
        elif operation is _constants.SUBPATTERN:
            yield from repetitions(argument[-1])
        elif operation in (_constants.ASSERT, _constants.ASSERT_NOT):
            yield from repetitions(argument[1])


def test_no_pattern_can_go_back_over_more_than_a_few_characters() -> None:
    """Whatever has no small bound is possessive: a search takes time in proportion to what it searches."""
    checked = 0
    for pattern in patterns():
        for _, most in repetitions(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)):
            is_lazy_line = pattern is private_key._LINE  # up to the first line's end, in a window
            assert most <= FEW or is_lazy_line, pattern.pattern
        checked += 1

    assert checked > 100


def test_an_address_is_a_login_only_where_as_much_is_done_about_its_password() -> None:
    text = "https://shop.example:8080?mail=john.doe@example.com"
    assert filtered([text], {"email": "redact"}).endswith(":[email]")
    assert filtered([text], {"email": "redact", "secret": "flag"}).endswith(":[email]")
    assert filtered([text], {"email": "flag", "secret": "redact"}).endswith("[secret]@example.com")
