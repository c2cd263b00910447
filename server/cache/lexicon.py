"""English words, by what they do in a question. For :mod:`unbroken.server.cache.guards`."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ARTICLES",
    "CONTRACTIONS",
    "ENGLISH",
    "EQUAL",
    "NUMBERS",
    "OWN_ARTICLE",
    "PLACES",
    "PLURALS_APART",
    "RELATIONS",
    "SUFFIXED_S",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _by_first(groups: str) -> dict[str, str]:
    lines = (line.split() for line in groups.strip().splitlines())
    return {word: words[0] for words in lines for word in words}


NUMBERS: Final = {
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "eleven": "11",
    "twelve": "12",
    "thirteen": "13",
    "fourteen": "14",
    "fifteen": "15",
    "sixteen": "16",
    "seventeen": "17",
    "eighteen": "18",
    "nineteen": "19",
    "twenty": "20",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
}
"""In figures."""

ARTICLES: Final = _words("a an the")

OWN_ARTICLE: Final = _words(
    """
    a an the and or but mean means few little lot of to in on at for by with from is are was were do does
    did can come comes go goes stand stands before after
    """
)
"""Before these an article is spoken of ("when is it *a* and when *the*?"), or says something ("a few")."""

PLACES: Final = _words("in on at for with during about")
"""With which a clause begins that may as well come first."""

RELATIONS: Final = _words("if when unless because than before after until to from")
"""Words by which it matters what comes first."""

ENGLISH: Final = _words("the what how which who where when why does my your and with should could would of")
"""One of these, and a question is in English, as far as plurals go. In Spanish *tienes* isn't *tiene*."""

CONTRACTIONS: Final = {
    "cannot": "can not",
    "can't": "can not",
    "cant": "can not",
    "won't": "will not",
    "wont": "will not",
    "shan't": "shall not",
    "dont": "do not",
    "doesnt": "does not",
    "didnt": "did not",
    "isnt": "is not",
    "arent": "are not",
    "wasnt": "was not",
    "werent": "were not",
    "hasnt": "has not",
    "havent": "have not",
    "shouldnt": "should not",
    "couldnt": "could not",
    "wouldnt": "would not",
    "mustnt": "must not",
    "whats": "what is",
    "wheres": "where is",
    "whos": "who is",
    "hows": "how is",
    "im": "i am",
}
"""Written out. Those in *n't* are taken apart anyway."""

PLURALS_APART: Final = _words(
    """
    news goods customs arms means glasses works savings earnings spirits contents minutes briefs hers ours
    yours theirs sometimes besides brakes clothes woods waters
    """
)
"""These mean something else than the same without their *s*; as do those in *ics*."""

SUFFIXED_S: Final = _words("what where who when how why which that there here it he she this everything")
"""Words behind which *'s* is short for *is*. Behind others it says whose something is."""

EQUAL: Final = _by_first(
    """
    is are am
    was were
    do does
    have has
    this these
    that those
    begin commence start
    buy purchase
    cost price
    earlier previous prior
    large big
    quick fast rapid
    child children kid
    film movie
    phone telephone
    photo photograph
    favorite favourite
    color colour
    center centre
    organize organise
    quotation quote
    help assist
    fix repair
    car automobile
    error mistake
    """
)
"""Words that are said for each other, by the first of each line. Few: a wrong one makes wrong answers.

Of *to be*, *to do* and *to have*, only what the number of the subject makes of them.
"""
