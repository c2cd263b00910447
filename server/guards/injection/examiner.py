"""One text, examined: rules over all its views, the model over its most suspicious windows, one score.

No I/O, no clock. It computes, and belongs in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from unbroken.server.guards.injection.base import Classifier, Evidence, Origin, Passage
from unbroken.server.guards.injection.normal_form import NormalForm
from unbroken.server.guards.injection.rulebook import Rulebook, read_rules
from unbroken.server.guards.injection.views import View, Views
from unbroken.server.guards.injection.windows import WINDOW, ranked

__all__ = ["Certainty", "Examination", "Examiner"]

_PART: Final = 16 * 1024
_SHARED: Final = 1024
"""Characters that two parts of a long text share: no attack that rules know is longer."""

_READ_BY_MODEL: Final = frozenset(
    {"base64", "hex", "binary", "escapes", "percent", "entities", "tags", "selectors"}
)
"""Views whose text was put there by somebody, and not made up here."""


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure the model has to be, for texts of one origin."""

    flag: float
    """The probability that by itself comes to a score of 0.5."""
    block: float
    """The one that comes to 0.8."""
    windows: int
    """Windows of one text that it reads at most."""

    def weight(self, probability: float) -> float:
        """Return what the model's *probability* weighs as evidence, from 0 to 1."""
        if probability < self.flag:
            return max(0.0, 0.5 - 0.3 * (self.flag - probability) / (self.block - self.flag))
        if probability < self.block:
            return 0.5 + 0.3 * (probability - self.flag) / (self.block - self.flag)
        return 0.8 + 0.2 * (probability - self.block) / (1 - self.block)


# For the model of the extra `guards`. Blocking users: one ordinary message in a hundred, on sources that are
# otherwise not measured on. What tools return: the vendor's preset for that. See docs/guards.md.
_CERTAINTY: Final = {
    Origin.USER: Certainty(flag=0.7, block=0.85, windows=2),
    Origin.TOOL: Certainty(flag=0.65, block=0.77, windows=6),
}


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


class Examiner:
    """Looks at texts. Immutable: any number of threads use it.

    Args:
        classifier: The local model. None: rules alone.
        without: Ids of rules, and names of marks, that don't count.
        certainty: How sure the model has to be. Instructions aren't shown to it: they instruct.

    """

    def __init__(
        self,
        classifier: Classifier | None = None,
        *,
        without: frozenset[str] = frozenset(),
        certainty: Mapping[Origin, Certainty] = _CERTAINTY,
    ) -> None:
        self._form = NormalForm()
        rules, triggers = read_rules()
        self.rulebook = Rulebook(rules, triggers, self._form, without=without)
        self._views = Views(self._form, self.rulebook.vocabulary)
        self._classifier = classifier
        self._certainty = certainty

    def examine(self, passage: Passage, before: str = "") -> Examination:
        """Return what *passage* looks like.

        *before* is what the same speaker said last: an attack may come in pieces.

        Raises:
            DetectorFailed: The model can't be run.

        """
        best: dict[str, Evidence] = {}
        suspects: list[tuple[View, tuple[int, ...]]] = []
        for part in _parts(passage.text):
            for view in self._views.of(part):
                found = self.rulebook.examine(view, passage.origin)
                _keep(best, found.evidence)
                if view.name == "text" or view.name in _READ_BY_MODEL:
                    suspects.append((view, found.triggers))
        if len(passage.text) <= _PART and not best:
            for view in self._views.turned(passage.text):
                _keep(best, self.rulebook.examine(view, passage.origin).evidence)
        if before and not best:
            _keep(best, self._across(before, passage))
        self._ask_model(passage.origin, suspects, best)
        evidence = tuple(sorted(best.values(), key=lambda each: (-each.weight, each.rule)))
        doubt = math.prod(1 - each.weight for each in evidence)
        return Examination(1 - doubt, evidence)

    def _across(self, before: str, passage: Passage) -> Iterator[Evidence]:
        """Yield what is found only where both texts are read as one."""
        head = passage.text[:_SHARED]
        alone = {each.rule for each in self._plainly(before, passage.origin)}
        for glue in (" ", ""):
            for each in self._plainly(f"{before}{glue}{head}", passage.origin):
                if each.rule not in alone:
                    yield Evidence(each.rule, each.weight, "turns")

    def _plainly(self, text: str, origin: Origin) -> tuple[Evidence, ...]:
        return self.rulebook.examine(View("text", self._form.of(text)), origin).evidence

    def _ask_model(
        self, origin: Origin, suspects: list[tuple[View, tuple[int, ...]]], best: dict[str, Evidence]
    ) -> None:
        certainty = self._certainty.get(origin)
        if self._classifier is None or certainty is None:
            return
        if math.prod(1 - each.weight for each in best.values()) < _NO_DOUBT:
            return
        # What was decoded first: nobody encodes small talk. Then the beginning, then the rest by its words.
        candidates: list[tuple[int, int, str]] = []
        for number, (view, places) in enumerate(suspects):
            for rank, window in ranked(view.text, places):
                is_beginning = rank == WINDOW and (view.is_decoded or number == 0)
                candidates.append((2 * view.is_decoded + is_beginning, rank % WINDOW, window))
        candidates.sort(key=lambda each: each[:2], reverse=True)
        shown = [window for _, _, window in candidates[: certainty.windows]]
        if not shown:
            return
        weight = certainty.weight(max(self._classifier.scores(shown)))
        if weight > 0:
            _keep(best, [Evidence(self._classifier.name, weight)])


_NO_DOUBT: Final = 0.1
"""What rules are that sure of, the model isn't asked about."""


def _keep(best: dict[str, Evidence], evidence: Iterable[Evidence]) -> None:
    for each in evidence:
        if each.rule not in best or best[each.rule].weight < each.weight:
            best[each.rule] = each


def _parts(text: str) -> Iterator[str]:
    """Cut a long text, so that nothing holds the interpreter for longer than some milliseconds."""
    start = 0
    while True:
        yield text[start : start + _PART]
        if start + _PART >= len(text):
            return
        start += _PART - _SHARED
