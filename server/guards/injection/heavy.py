"""Any ONNX classifier in a folder as a heavier detector: in threads of its own, where all take turns.

It takes hundreds of milliseconds where an examination takes a few: in the same threads, one user's texts
in doubt would hold up everybody's messages.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from unbroken.server.fair_queue import FairQueue, QueueFull, computed
from unbroken.server.guards.injection.base import Classifier, DetectorFailed, Question
from unbroken.server.guards.injection.normal_form import NormalForm
from unbroken.server.guards.injection.reading import Rater, suspected
from unbroken.server.guards.injection.windows import parts

__all__ = ["ModelDetector"]

_WINDOWS: Final = 4


class ModelDetector:
    """A :class:`~unbroken.server.guards.injection.base.Detector` that runs a model, on one text at a time.

    Args:
        classifier: The model.
        rater: Says which windows of a text it reads.
        threads: Where it runs. Somebody else shuts them down.
        aside: Where it runs for those who don't wait; one text at a time there, too.
        waiting: Texts that may wait for their turn, and as many of those for which nobody waits. Half of
            them may be one's.

    """

    def __init__(
        self, classifier: Classifier, rater: Rater, threads: Executor, aside: Executor, *, waiting: int = 256
    ) -> None:
        self._classifier = classifier
        self._rater = rater
        self._turns = _Turns(threads, waiting)
        self._turns_aside = _Turns(aside, waiting)
        self._form = NormalForm()

    @property
    def name(self) -> str:
        """See :attr:`Detector.name`."""
        return self._classifier.name

    async def score(self, question: Question) -> float:
        """See :meth:`Detector.score`."""
        turns = self._turns_aside if question.is_aside else self._turns
        return await turns.done(functools.partial(self._score, question.passage.text), question.name)

    def _score(self, text: str) -> float:
        shown: list[tuple[float, str]] = []
        for part in parts(text):
            shown += suspected(self._rater, self._form.of(part), _WINDOWS)
        windows = [window for _, window in heapq.nlargest(_WINDOWS, shown)]
        return max(self._classifier.scores(windows), default=0.0)

    async def close(self) -> None:
        """See :meth:`Detector.close`. The threads are somebody else's."""


class _Turns:
    """Threads in which one thing is done at a time, and who is next. For one event loop."""

    def __init__(self, threads: Executor, waiting: int) -> None:
        self._threads = threads
        self._queue = FairQueue(slots=1, max_waiting=waiting)

    async def done(self, work: Callable[[], float], name: str) -> float:
        """Return what comes of *work*, done when it is the turn of *name*. Cancelling is safe.

        Raises:
            DetectorFailed: Too much waits; or *work* raised it.

        """
        try:
            ticket = self._queue.join(name)
        except QueueFull:
            raise DetectorFailed("Too much waits for it.") from None
        return await computed(ticket, self._threads, work, ticket.leave)
