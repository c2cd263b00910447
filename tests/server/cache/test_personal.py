from __future__ import annotations

import importlib
import re
from typing import Any, Final

import pytest

from unbroken.server.cache.first_person import speaks_of_the_asker
from unbroken.server.cache.personal import AT_ONCE, LONGEST, PATTERNS, is_passing, is_personal, parts_of

PERSONAL = [
    "Write to ada@example.org",
    "Call +49 170 1234567",
    "My card is 4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
    "It runs on 10.0.0.1",
    "Born 01.02.1990",
    "Use sk-abcdefghijkl1234",
    "My name is Ada, what is yours?",
    "I live in Ulm",
    "What do you know about me?",
]

PASSING = [
    "What time is it?",
    "What's the weather in Ulm?",
    "Who is the current king?",
    "Say it again",
    "News?",
]

NEITHER = [
    "How do I reset my router?",
    "What is 7 times 8?",
    "Why is the sky blue?",
    "Which king died in 1066?",
]

OF_THE_ASKER = [
    "What is my balance?",
    "Am I eligible?",
    "Which plan am I on?",
    "Where's OUR order?",
    "I\u2019m pregnant, is aspirin safe?",
    "Did you charge me twice?",
    "Can I upgrade?",
    "How do I reset my router?",
    "How much do I owe?",
    "Is the blue one mine?",
    "When will it reach us?",
    "WHAT DOES IT COST US?",
    "Mein Kontostand?",
    "Wie ist mein Kontostand?",
    "Bin ich berechtigt?",
    "Wie hei\u00dfe ich?",
    "Wann kommt unsere Bestellung?",
    "Wurde mir zu viel berechnet?",
    "\u00bfCu\u00e1l es mi saldo?",
    "\u00bfTengo mensajes?",
    "\u00bfD\u00f3nde est\u00e1 nuestro pedido?",
    "Est-ce que je suis \u00e9ligible\u00a0?",
    "O\u00f9 est ma commande?",
    "Ai-je des messages?",
    "Qu'est-ce que j\u2019ai command\u00e9?",
    "Qual \u00e8 il mio saldo?",
    "Sono idoneo?",
    "Qual \u00e9 o meu saldo?",
    "Tenho mensagens?",
]

OF_ANYBODY = [
    "How do I reset a router?",
    "how can i reset a router",
    "Where can I find the manual?",
    "Tell me about tides",
    "I would like to know why the sky is blue",
    "What is the capital of the US?",
    "What is a CI pipeline?",
    "What is mining?",
    "Wie kann ich einen Router neu starten?",
    "Sag mir, warum der Himmel blau ist",
    "Comment puis-je recharger un routeur\u00a0?",
    "Dis-moi pourquoi le ciel est bleu",
    "\u00bfC\u00f3mo puedo reiniciar un router?",
    "Come posso riavviare un router?",
    "Como posso reiniciar um roteador?",
]


def of_the_asker(text: str) -> bool:
    return any(map(speaks_of_the_asker, parts_of(text)))


@pytest.mark.parametrize("text", OF_THE_ASKER)
def test_who_speaks_of_himself_is_seen(text: str) -> None:
    assert of_the_asker(text)
    for before in range(AT_ONCE - len(text) - 2, AT_ONCE + 3):
        assert of_the_asker("1" * (before - 1) + f" {text} " + "1" * AT_ONCE), before


@pytest.mark.parametrize("text", OF_ANYBODY)
def test_an_i_of_rhetoric_is_nobody(text: str) -> None:
    assert not of_the_asker(text)


def personal(text: str) -> bool:
    return any(map(is_personal, parts_of(text)))


def passing(text: str) -> bool:
    return any(map(is_passing, parts_of(text)))


@pytest.mark.parametrize("text", PERSONAL)
def test_somebody_s_data_is_seen(text: str) -> None:
    assert personal(text)


@pytest.mark.parametrize("text", PASSING)
def test_what_changes_by_itself_is_seen(text: str) -> None:
    assert passing(text)


@pytest.mark.parametrize("text", NEITHER)
def test_a_plain_question_is_neither(text: str) -> None:
    assert not (personal(text) or passing(text))


@pytest.mark.parametrize("text", [*PERSONAL, *PASSING, *NEITHER])
def test_in_a_long_text_the_same_is_seen_wherever_it_stands(text: str) -> None:
    expected = personal(text), passing(text)
    for before in range(AT_ONCE - len(text) - 2, AT_ONCE + 3):
        long = "x" * (before - 1) + f" {text} " + "x" * AT_ONCE
        assert (personal(long), passing(long)) == expected, before


@pytest.mark.parametrize(
    "text", ["Tommy name", "about means", "ask-abcdefghijkl1234", "x10.0.0.1", "knowhow", "x1.2.1990"]
)
def test_no_part_begins_or_ends_a_word_that_the_text_does_not(text: str) -> None:
    for before in range(AT_ONCE - len(text) - 2, AT_ONCE + 3):
        long = "x" * (before - 1) + f" {text} " + "x" * AT_ONCE
        assert not (personal(long) or passing(long)), before


_parser: Final[Any] = importlib.import_module("re._parser")


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.pattern[:12])
def test_no_pattern_is_tried_where_its_first_character_is_not(pattern: re.Pattern[str]) -> None:
    """One that began with a repetition, or with a look around, would be tried at every place."""
    parsed = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
    first, operand = str(parsed[0][0]), parsed[0][1]
    while first in ("BRANCH", "SUBPATTERN"):
        operand = operand[-1]
        chosen = operand[0] if isinstance(operand, list) else operand
        first, operand = str(chosen[0][0]), chosen[0][1]

    assert first in ("LITERAL", "IN")
    assert parsed.getwidth()[1] < LONGEST
