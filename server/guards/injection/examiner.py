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
    {"text", "spaced", "base64", "hex", "binary", "escapes", "percent", "entities", "tags", "selectors"}
)
"""Views that read as somebody wrote them: the others are made up here, and models know no such thing."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What a text looks like."""

    score: float
    evidence: tuple[Evidence, ...]
    """The weightiest first."""

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

    """

    def __init__(
        self,
        reading: Reading | None = None,
        *,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self._form = NormalForm()
        self.rulebook = Rulebook(read_rules(), self._form, without=without)
        self._views = Views(self._form, self.rulebook.vocabulary)
        self._reading = reading

    def examine(self, passage: Passage, before: str = "") -> Examination:
        """Return what *passage* looks like.

        *before* is what the same speaker said last: an attack may come in pieces.

        Raises:
            DetectorFailed: A model can't be run.

        """
        examination: Examination | None = None
        steps = self.steps(passage, before)
        while examination is None:
            examination = step(steps)
        return examination

    def steps(self, passage: Passage, before: str = "") -> Steps:
        """Do the same in steps, one for each part of a long text: others may have their turn in between."""
        best: dict[str, Evidence] = {}
        suspects: list[tuple[float, str]] = []
        plain = ""
        for number, part in enumerate(parts(passage.text)):
            if number:
                yield
            for view in self._views.of(part):
                plain = plain or view.text  # of the first part, the first view
                _keep(best, self.rulebook.examine(view, passage.origin))
                if self._reading is not None and view.name in _READ_BY_MODELS:
                    readable = view.text if view.is_decoded else legible(view.text)
                    suspects += self._reading.suspected(readable, passage.origin)
        if len(passage.text) <= PART and _doubt(best) > _NO_DOUBT:
            for view in self._views.turned(plain):
                _keep(best, self.rulebook.examine(view, passage.origin))
        if before and _doubt(best) > _NO_DOUBT:
            _keep(best, self._across(before, passage))
        self._ask_models(suspects, best)
        evidence = tuple(sorted(best.values(), key=lambda each: (-each.weight, each.rule)))
        doubt = math.prod(1 - each.weight for each in evidence)
        return Examination(1 - doubt, evidence)

    def _across(self, before: str, passage: Passage) -> Iterator[Evidence]:
        """Yield what is found only where both texts are read as one."""
        head = passage.text[:SHARED]
        alone = {each.rule for each in self._plainly(before, passage.origin)}
        for glue in (" ", ""):
            for each in self._plainly(f"{before}{glue}{head}", passage.origin):
                if each.rule not in alone:
                    yield Evidence(each.rule, each.weight, "turns")

    def _plainly(self, text: str, origin: Origin) -> tuple[Evidence, ...]:
        return self.rulebook.examine(View("text", self._form.of(text)), origin)

    def _ask_models(self, suspects: list[tuple[float, str]], best: dict[str, Evidence]) -> None:
        if self._reading is None or _doubt(best) < _NO_DOUBT:
            return
        weight = self._reading.weight(suspects)
        if weight > 0:
            _keep(best, [Evidence(self._reading.name, weight)])


_NO_DOUBT: Final = 0.1
"""What rules are that sure of, models aren't asked about."""


def _doubt(best: dict[str, Evidence]) -> float:
    return math.prod(1 - each.weight for each in best.values())


def _keep(best: dict[str, Evidence], evidence: Iterable[Evidence]) -> None:
    for each in evidence:
        if each.rule not in best or best[each.rule].weight < each.weight:
            best[each.rule] = each
