"""What the linear model learns of code, documents and long texts, all of it harmless.

Code is Python's own library, documents are READMEs of packages under licences that ask for little. Long
texts are short ones joined.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tests.guards.corpus import Case, Part
from tests.guards.documents import Text

__all__ = ["chunks", "learned", "licences", "long_texts", "short_ones"]

_PYTHON: Final = "PSF-2.0"
_LIBRARY: Final = frozenset({"python", "scripts of python"})
_PERMISSIVE: Final = re.compile(r"\b(?:MIT|BSD|Apache|ISC|PSF)", re.IGNORECASE)
_OTHERS: Final = re.compile(r"\b(?:L?GPL|MPL|Mozilla|GNU)", re.IGNORECASE)

_CHUNK: Final = 3000
"""Characters of a text that are learnt from as one: of each the pieces that look worst."""

_LEAST: Final = 200
_MOST_CHUNKS: Final = 1500
_TOGETHER: Final = 25
"""Short texts in a long one."""

_SHORT: Final = 400
"""Characters of a short text at most."""


def learned(texts: Iterable[Text]) -> list[Text]:
    """Return what may be trained on of *texts*."""
    return [each for each in texts if each.part is Part.TRAIN and _may_be(each)]


def _may_be(text: Text) -> bool:
    if text.kind in _LIBRARY:
        return True
    return bool(_PERMISSIVE.search(text.licence)) and not _OTHERS.search(text.licence)


def licences(texts: Sequence[Text]) -> dict[str, str]:
    """Return what *texts* are, each with its licence."""
    modules = [each for each in texts if each.kind in _LIBRARY]
    readmes = [each for each in texts if each.kind == "readmes"]
    names = ", ".join(each.name.partition(".dist-info")[0] for each in readmes)
    found = {}
    if modules:
        found[f"{len(modules)} files of Python's library"] = _PYTHON
    if readmes:
        found[f"READMEs of {names}"] = "; ".join(sorted({each.licence for each in readmes}))
    return found


def chunks(texts: Sequence[Text]) -> Iterator[str]:
    """Yield pieces of *texts*, as long as a model's answer to them takes, of each kind a bounded number."""
    for kind in sorted({each.kind for each in texts}):
        found = [
            each.text[start : start + _CHUNK]
            for each in texts
            if each.kind == kind
            for start in range(0, len(each.text), _CHUNK)
        ]
        found = [each for each in found if len(each) > _LEAST]
        yield from found if len(found) <= _MOST_CHUNKS else random.Random(1).sample(found, _MOST_CHUNKS)


def long_texts(short: Mapping[str, Sequence[str]], count: int) -> Iterator[str]:
    """Yield *count* texts for each source in *short*: some of its texts, one after another."""
    for source, texts in short.items():
        drawn = random.Random(source)
        for _ in range(count):
            yield "\n".join(drawn.choice(texts) for _ in range(_TOGETHER))


def short_ones(cases: Iterable[Case]) -> dict[str, list[str]]:
    """Return the harmless texts of *cases* that may be trained on and are short, by source."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.part is Part.TRAIN and not case.is_attack and len(case.turns[0]) < _SHORT:
            found[case.source].append(case.turns[0])
    return dict(found)
