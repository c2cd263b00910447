"""What is nothing for a cache, seen from the words: somebody's data, and what is true only for a while.

Coarse on purpose: a question that is asked again for nothing costs little. It
is no filter: what may leave the server at all is decided elsewhere.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_passing", "is_personal"]

_PERSONAL: Final = re.compile(
    r"""
      [^\s@]{1,64}@[^\s@.]{1,64}\.[^\s@]{2}                  # an e-mail address
    | (?:\d[ \-./()]{0,2}){7}                                # a phone's, card's or account's number
    | \b[A-Z]{2}\d{2}[ ]?(?:[A-Z0-9]{4}[ ]?){3}              # an IBAN
    | \b\d{1,3}(?:\.\d{1,3}){3}\b                            # an IP address
    | \b\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d{2})\b            # a date of birth, or another
    | \b(?:sk|pk|ghp|xox[abp]|eyJ|AKIA)[-_]?[A-Za-z0-9]{12}  # a key
    | (?i:\bmy\ (?:full\ |first\ |last\ )?name\b | \bcall\ me\b | \bi\ live\ (?:in|at|on)\b
        | \bi\ was\ born\b | \bmy\ (?:date\ of\ birth|birthday|password|pin|ssn|passport\ number|address)\b
        | \bwho\ am\ i\b | \babout\ me\b | \bremember\ (?:that|me|my)\b)
    """,
    re.VERBOSE,
)

_PASSING: Final = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|now|nowadays|currently|current|latest|newest|recent|recently|"
    r"this (?:morning|afternoon|evening|week|weekend|month|year|minute)|"
    r"(?:last|next) (?:week|weekend|month|year|night)|"
    r"what (?:time|day|date|year) is|what's the (?:time|date)|weather|forecast|news|headlines|"
    r"stock price|exchange rate|at the moment|so far|still|yet|random|again|once more)\b",
    re.IGNORECASE,
)


def is_personal(text: str) -> bool:
    """Whether *text* holds what looks like somebody's data, or speaks of who is speaking."""
    return _PERSONAL.search(text) is not None


def is_passing(text: str) -> bool:
    """Whether the answer to *text* depends on when it is asked, or isn't to be the same each time."""
    return _PASSING.search(text) is not None
