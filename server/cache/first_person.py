"""Who speaks of himself: whose question is answered for him alone, also where others share what they ask.

Any word of the first person does, in six languages, but where it is rhetoric: "how do I" and "tell me"
ask for all. Words that mean something else in another of the languages count all the same. What names nobody
("the balance?"), what leaves the word out, and other languages aren't seen.
"""

from __future__ import annotations

import re
from itertools import chain, product
from typing import Final

from unbroken.server.cache.personal import Part

__all__ = ["speaks_of_the_asker"]

_WORD: Final = re.compile(r"[^\W\d_]+'?")
"""A word, with an apostrophe behind it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(lines: str) -> frozenset[tuple[str, ...]]:
    """Return what *lines* say, one phrase each, with a stroke between words of which any may stand there."""
    phrases = ([word.split("/") for word in line.split()] for line in lines.strip().splitlines())
    return frozenset(chain.from_iterable(product(*phrase) for phrase in phrases))


_SELVES: Final = _words(
    """
    i i' me my mine myself we we' us our ours ourselves
    ich mir mich mein meine meiner meinem meinen meines meins wir uns unser unsere unserer unserem unseren
    unseres unsre unsern
    je j' moi m' mon ma mes mien mienne miens miennes nous notre nos nôtre nôtres
    yo mi mí mis mío mía míos mías conmigo nos nosotros nosotras nuestro nuestra nuestros nuestras
    tengo soy estoy puedo debo quiero necesito vivo voy hago recibí pedí pagué
    io mi mio mia miei mie noi ci nostro nostra nostri nostre ho sono posso devo voglio vivo vado faccio
    eu mim meu minha meus minhas comigo nós nos nosso nossa nossos nossas
    tenho sou estou posso devo quero preciso moro vou faço recebi pedi paguei
    """
)
"""The first person, in English, German, French, Spanish, Italian and Portuguese. The last three say it by
the verb: the most usual of these."""

_ACRONYMS: Final = _words("US CI MA MIS HO")
"""None of these, where not all is in capitals."""

_RHETORIC: Final = _phrases(
    """
    how do/can/could/should/would/might i/we
    where can/could i/we
    tell/show/teach/give/help/let me/us
    explain to me
    i want to know
    i would like to know
    i wonder
    wie kann/könnte/soll/sollte/muss ich/wir
    wo kann/finde ich/wir
    sag/sage/sagen/zeig/zeige/erklär/erkläre mir/uns
    kannst du mir
    können sie mir
    ich möchte wissen
    comment/où puis je
    comment pouvons nous
    comment je peux
    dis/dites/donne/donnez/montre/montrez/explique/expliquez/aide/aidez moi
    cómo/como/dónde puedo
    cómo hago
    come/dove/como/onde posso
    como eu posso
    come faccio
    como faço
    """
)
"""Phrases with such a word that anybody says."""

_SIZES: Final = {
    first: sorted({len(phrase) for phrase in _RHETORIC if phrase[0] == first})
    for first in {phrase[0] for phrase in _RHETORIC}
}
"""Words of phrases, by the first."""


def speaks_of_the_asker(part: Part) -> bool:
    """Whether in *part* a word of the first person begins that isn't rhetoric.

    One whose phrase begins in the part before counts: that is asked again for nothing.
    """
    text = part.text.replace("\u2019", "'")
    written = [found for found in _WORD.finditer(text) if found.start() < part.stop]
    words = [found[0].casefold().rstrip("'") for found in written]
    is_loud = text.isupper()
    is_rhetoric_until = 0
    for at, found in enumerate(written):
        for size in _SIZES.get(words[at], ()):
            if tuple(words[at : at + size]) in _RHETORIC:
                is_rhetoric_until = max(is_rhetoric_until, at + size)
        if at < is_rhetoric_until or found.start() < part.start:
            continue
        if (found[0].casefold() in _SELVES or words[at] in _SELVES) and (
            is_loud or found[0] not in _ACRONYMS
        ):
            return True
    return False
