"""One text, examined: rules over all its views, models over what could be read there, one score.

No I/O, no clock. It computes, and belongs in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from unbroken.server.guards.injection.base import Evidence, Origin, Passage
from unbroken.server.guards.injection.normal_form import NormalForm
from unbroken.server.guards.injection.reading import Reading
from unbroken.server.guards.injection.rulebook import Rulebook, read_rules
from unbroken.server.guards.injection.views import View, Views, legible
from unbroken.server.guards.injection.windows import PART, SHARED, parts

__all__ = ["Examination", "Examiner", "Steps", "step"]

_READ_BY_MODELS: Final = frozenset(
    {
        "text",
        "spaced",
        "base64",
        "base32",
        "hex",
        "decimals",
        "binary",
        "escapes",
        "percent",
        "printable",
        "entities",
        "tags",
        "selectors",
    }
)
"""Views that read as somebody wrote them: the others are made up here, and models know no such thing."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What a text looks like."""

    score: float
    evidence: tuple[Evidence, ...]
    """The weightiest first."""
    part: str = ""
    """Of a text of several parts, the one in which the weightiest was found, as it is."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of what was found, with the view where it isn't plain to see."""
        return tuple(
            each.rule if each.view == "text" else f"{each.rule}:{each.view}" for each in self.evidence[:8]
        )


Steps: TypeAlias = Generator[None, None, Examination]
"""An examination under way."""


def step(steps: Steps) -> Examination | None:
    """Go on with an examination: for milliseconds. Return what came of it; None: it isn't over."""
    try:
        next(steps)
    except StopIteration as ended:
        examination: Examination = ended.value
        return examination
    return None


class Examiner:
    """Looks at texts. Immutable: any number of threads use it.

    Args:
        reading: The models. None: rules alone.
        without: Ids of rules, and names of marks, that don't count.
        least: Scores below it are all the same to whoever asks: models aren't asked for them.

    """

    def __init__(
        self,
        reading: Reading | None = None,
        *,
        without: frozenset[str] = frozenset(),
        least: float = 0.0,
    ) -> None:
        self._form = NormalForm()
        self.rulebook = Rulebook(read_rules(), self._form, without=without)
        self._views = Views(self._form, self.rulebook.vocabulary)
        self._reading = reading
        self._least = least

    def examine(self, passage: Passage, before: str = "", after: str = "") -> Examination:
        """Return what *passage* looks like.

        *before* and *after* are what the same speaker said that stands around it: an attack may come
        in pieces.

        Raises:
            DetectorFailed: A model can't be run.

        """
        examination: Examination | None = None
        steps = self.steps(passage, before, after)
        while examination is None:
            examination = step(steps)
        return examination

    def steps(self, passage: Passage, before: str = "", after: str = "") -> Steps:
        """Do the same in steps, each of some milliseconds: others may have their turn in between."""
        best: dict[str, Evidence] = {}
        places: dict[str, str] = {}  # by rule, in which part it was found
        suspects: list[tuple[float, str]] = []
        worst = _NO_SUSPECT
        plain, looked_at = "", 0
        for part in parts(passage.text):
            for view in self._views.of(part):
                if looked_at > _STEP:
                    looked_at = 0
                    yield
                looked_at += len(view.text) + _VIEW
                plain = plain or view.text  # of the first part, the first view
                places |= dict.fromkeys(_keep(best, self.rulebook.examine(view, passage.origin)), part)
                if self._reading is not None and view.name in _READ_BY_MODELS:
                    readable = view.text if view.is_decoded else legible(view.text)
                    suspects += (found := self._reading.suspected(readable, passage.origin))
                    if (suspect := max(found, default=_NO_SUSPECT)) > worst:
                        worst, places[self._reading.name] = suspect, part
        if len(passage.text) <= PART and _doubt(best) > _NO_DOUBT:
            for view in self._views.turned(plain):
                _keep(best, self.rulebook.examine(view, passage.origin))
        if (before or after) and _doubt(best) > _NO_DOUBT:
            _keep(best, self._across(before, passage, after))
        self._ask_models(suspects, best)
        evidence = tuple(sorted(best.values(), key=lambda each: (-each.weight, each.rule)))
        doubt = math.prod(1 - each.weight for each in evidence)
        is_long = bool(evidence) and len(passage.text) > PART
        return Examination(1 - doubt, evidence, places.get(evidence[0].rule, "") if is_long else "")

    def _across(self, before: str, passage: Passage, after: str) -> Iterator[Evidence]:
        """Yield what is found only where texts are read as one."""
        text, origin = passage.text, passage.origin
        is_short = len(text) <= SHARED
        rows = [(before, text, after)] if is_short else [(before, text[:SHARED]), (text[-SHARED:], after)]
        alone = {each.rule for known in (before, after) for each in self._plainly(known, origin)}
        for row in rows:
            said = [each for each in row if each]
            for glue in (" ", "") if len(said) > 1 else ():
                for each in self._plainly(glue.join(said), origin):
                    if each.rule not in alone:
                        yield Evidence(each.rule, each.weight, "turns")

    def _plainly(self, text: str, origin: Origin) -> tuple[Evidence, ...]:
        return self.rulebook.examine(View("text", self._form.of(text)), origin)

    def _ask_models(self, suspects: list[tuple[float, str]], best: dict[str, Evidence]) -> None:
        doubt = _doubt(best)
        if self._reading is None or doubt < _NO_DOUBT:
            return
        # What rules found may come to the least score by itself: then any more raises it.
        weight = self._reading.weight(suspects, max(0.0, 1 - (1 - self._least) / doubt))
        if weight > 0:
            _keep(best, [Evidence(self._reading.name, weight)])


_STEP: Final = 3072
"""Characters of views that are looked at in one step, but for those of the last view."""

_VIEW: Final = 256
"""Characters that cost as much as a view does whatever its length."""

_NO_DOUBT: Final = 0.1
"""What rules are that sure of, models aren't asked about."""


def _doubt(best: dict[str, Evidence]) -> float:
    return math.prod(1 - each.weight for each in best.values())


_NO_SUSPECT: Final = (-math.inf, "")


def _keep(best: dict[str, Evidence], evidence: Iterable[Evidence]) -> list[str]:
    """Keep the weightiest of each rule in *best*, and return for which rules that is new."""
    kept = []
    for each in evidence:
        if each.rule not in best or best[each.rule].weight < each.weight:
            best[each.rule] = each
            kept.append(each.rule)
    return kept
