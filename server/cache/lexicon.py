"""English words, by what they do in a question. For :mod:`unbroken.server.cache.guards`."""

from __future__ import annotations

from typing import Final

__all__ = ["AMOUNTS", "ASKING", "DATES", "EMPTY", "EQUAL", "FIRST", "NEGATIONS", "NUMBERS", "OPEN", "SECOND"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _by_first(groups: str) -> dict[str, str]:
    lines = (line.split() for line in groups.strip().splitlines())
    return {word: words[0] for words in lines for word in words}


NUMBERS: Final = {
    "zero": "0",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
    "million": "1000000",
    "billion": "1000000000",
    "dozen": "12",
    "half": "0.5",
    "twice": "2x",
    "double": "2x",
    "triple": "3x",
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
}
"""In figures. *One* is none of them: it stands for anybody."""

DATES: Final = _words(
    """
    monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thurs fri sat sun
    january february march april may june july august september october november december jan feb mar
    apr jun jul aug sep sept oct nov dec today tomorrow yesterday tonight now morning afternoon evening
    night midnight noon weekend weekday spring summer autumn fall winter easter christmas year years
    month months week weeks day days hour hours minute minutes second seconds annual annually yearly
    monthly weekly daily hourly
    """
)

NEGATIONS: Final = _words(
    """
    not no never none nobody nothing nowhere neither nor without cannot hardly barely except unless lack
    """
)

ASKING: Final = _words("who whom whose when where why")
"""Question words that no other stands for: *how*, *what* and *which* are said for each other."""

OPEN: Final = ASKING | {"how", "what", "whats", "which"}
"""What asks for more than yes or no."""

AMOUNTS: Final = _words("much many long often far old big tall fast soon")
"""What makes *how* another question."""

EMPTY: Final = _words(
    """
    a an the this that these those it its there here i me my mine you your yours we us our one ones
    someone somebody anyone anybody is are am was were be been being do does did done doing have has
    having had can could would should shall will may might must to of in on at for by with as and so
    what whats which how if then than please hi hello hey um uh er like just really actually basically
    kindly thanks thank ok okay tell let know explain way ways get got go going any some way about want
    wanna need possible able exactly especially usual usually
    """
)
"""Words that two ways of asking the same may have more or fewer of."""

FIRST: Final = _words("i me my mine we us our")
SECOND: Final = _words("you your yours")

EQUAL: Final = _by_first(
    """
    begin start commence
    buy purchase
    cost price charge fee
    earlier previous prior
    large big huge
    quick fast rapid
    receive obtain
    child kid
    film movie
    phone telephone
    photo picture
    vacation holiday
    difference differ
    learn study
    favorite favourite
    color colour
    center centre
    organize organise
    quotation quote
    help assist
    fix repair
    job position
    car automobile
    error mistake
    create set
    submit file
    email mail e-mail
    people person
    good great
    increase raise
    """
)
"""Words that are said for each other, by the first of each line. Few: a wrong one makes wrong answers."""
