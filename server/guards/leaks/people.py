"""Says which of what a model took for people are names, and where they begin and end. Pure.

The label PERSON counts, and nothing else: no place, organisation or nationality is a name. Small models
also call products, months and headings people; those that are met most often are left out, and so is
what isn't written like a name. A title before a name counts for one by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from unbroken.server.guards.leaks.addresses import Label
from unbroken.server.guards.leaks.sentences import ORDINARY

__all__ = ["is_worth_reading", "people"]

_NAME_WORD: Final = r"[^\W\d_a-z](?:[\w'\u2019-]{0,30}[^\W\d_])?"
_TITLED: Final = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor)\b\.?\s"
    rf"(?P<name>(?:[A-Z]\.\s?){{0,3}}{_NAME_WORD}(?:\s(?:[A-Z]\.\s)?{_NAME_WORD}){{0,2}})"
)
_WORD: Final = re.compile(r"[^\W_][\w'\u2019.-]*+")
_POSSESSIVE: Final = re.compile(r"['\u2019]s?\Z")
_STRANGE: Final = re.compile(r"[^\w\s'\u2019.,-]|[\d_]")
_ARTICLE: Final = re.compile(r"\b(?:the|an?)\s\Z", re.IGNORECASE)
_TITLES_WORDS: Final = """
mr mrs ms miss mx dr prof professor sir madam hi hello dear hey thanks
"""
_TITLES: Final = frozenset(_TITLES_WORDS.split())

_NO_PEOPLE_WORDS: Final = """
monday tuesday wednesday thursday friday saturday sunday january february march april may june july
august september october november december christmas easter ramadan diwali hanukkah halloween docker
kubernetes redis kafka postgres postgresql sqlite mysql mongodb mongo nginx apache git github gitlab
linux ubuntu debian windows android python java javascript typescript rust golang ruby perl scala
kotlin swift haskell react angular vue svelte django flask fastapi spring node numpy pandas pytorch
tensorflow keras jupyter terraform ansible jenkins grafana prometheus elasticsearch celery webpack
vite markdown excel word outlook slack zoom teams siri alexa cortana gemini claude llama mistral
copilot chatgpt websocket json yaml html css sql http settings privacy dashboard profile account
menu file edit view help home search save cancel submit delete open close click press select choose
enter note important warning tip example summary overview introduction conclusion getting started
step chapter section figure table yes no ok okay sure great
"""
_NO_PEOPLE: Final = frozenset(_NO_PEOPLE_WORDS.split())
"""In lower case: what is called a person now and then."""


def is_worth_reading(text: str) -> bool:
    """Return whether there may be a name or an address in *text*: a word with a capital letter."""
    for word in _WORD.finditer(text):
        if word[0][0].isupper() and word[0].strip(".'\u2019-").lower() not in _DULL:
            return True
    return False


_DULL: Final = ORDINARY | {"i'm", "i'll", "i've", "i'd", "it's", "that's", "you're", "we're", "here's"}
"""With an apostrophe, as such words begin sentences."""


def people(text: str, labels: Sequence[Label]) -> list[tuple[int, int]]:
    """Return where the names of people in *text* are. *labels* is what a model made of it."""
    found = {match.span("name") for match in _TITLED.finditer(text)}
    for label in labels:
        if label.kind == "PERSON":
            found.update(_names(text, label))
    return sorted(found)


def _names(text: str, label: Label) -> Iterator[tuple[int, int]]:
    words = list(_WORD.finditer(text, label.start, label.end))
    while words and (words[0][0].strip(".").lower() in _TITLES | ORDINARY or words[0][0][0].islower()):
        words.pop(0)
    if not words:
        return
    start = words[0].start()
    end = start + len(_POSSESSIVE.sub("", text[start : label.end].rstrip(" .,;:!?\n\t")))
    span = text[start:end]
    bare = [word[0].strip(".").lower() for word in words]
    if (
        not span
        or _STRANGE.search(span) is not None
        or all(_POSSESSIVE.sub("", word) in _NO_PEOPLE for word in bare)
    ):
        return
    if len(words) == 1:
        if len(span) < 2 or span.isupper():
            return  # an initial, or letters that stand for something
        if _ARTICLE.search(text, max(start - 4, 0), start) is not None:
            return
    yield start, end
