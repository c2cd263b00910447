"""From what texts look like to a verdict: what a session has tried counts, and detectors are asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from unbroken.server.guards.injection.base import (
    Action,
    Detector,
    DetectorFailed,
    Origin,
    Passage,
    Question,
    Verdict,
)
from unbroken.server.guards.injection.examiner import Examination
from unbroken.server.guards.injection.inquiry import Inquiry
from unbroken.server.guards.injection.suspicion import LEAST, Suspicion, raised
from unbroken.server.metrics import Metrics

__all__ = ["Judge", "Note"]

Note: TypeAlias = Callable[..., None]
"""Logs: takes a level, an event, and fields by name."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one passage comes to."""

    passage: Passage
    score: float
    reasons: tuple[str, ...]
    part: str = ""

    def verdict(self, action: Action) -> Verdict:
        return Verdict(action, self.score, self.reasons, self.passage.param, self.passage.origin)


class Judge:
    """Gives verdicts on what was examined. Takes as long as detectors do: somebody else has a time-out.

    Args:
        suspicion: What sessions have tried before.
        detectors: Asked in order about each passage between flag and block; the first answer decides.
        metrics: Where figures go.
        note: Where detectors that fail are told of.

    """

    def __init__(
        self, suspicion: Suspicion, detectors: Sequence[Detector], metrics: Metrics, note: Note
    ) -> None:
        self._suspicion = suspicion
        self._detectors = tuple(detectors)
        self._metrics = metrics
        self._note = note

    async def verdict(self, inquiry: Inquiry, examinations: Sequence[Examination], name: str) -> Verdict:
        """Return the weightiest verdict on a passage of *inquiry*; *examinations* are of each of them.

        Where detectors have those who ask take turns, it is asked under *name*.

        Raises:
            DetectorFailed: No detector has an answer about one of them.

        """
        findings = [
            _Finding(passage, examination.score, examination.reasons, examination.part)
            for passage, examination in zip(inquiry.passages, examinations, strict=True)
        ]
        findings = await self._suspected(findings, inquiry)
        findings.sort(key=lambda each: -each.score)
        action = inquiry.policy.action(findings[0].score)
        if action is not Action.FLAG or not self._detectors:
            return findings[0].verdict(action)
        flagged = [each for each in findings if inquiry.policy.action(each.score) is Action.FLAG]
        is_aside = inquiry.policy.mode == "shadow"
        return await self._second_verdict(flagged, name, is_aside=is_aside)

    async def _suspected(self, findings: list[_Finding], inquiry: Inquiry) -> list[_Finding]:
        """Return *findings* with the user's raised by what the session has tried. The worst is remembered."""
        worst = max((each.score for each in findings if each.passage.origin is Origin.USER), default=0.0)
        if worst < LEAST:
            return findings
        before = await self._suspicion.add(inquiry.session_id, worst)
        return [
            replace(each, score=raised(each.score, before))
            if each.passage.origin is Origin.USER and each.score >= LEAST
            else each
            for each in findings
        ]

    async def _second_verdict(self, flagged: Sequence[_Finding], name: str, *, is_aside: bool) -> Verdict:
        """Return what detectors make of *flagged*: one that is worse for us may be harmless for them.

        The first of which they say that it is an attack decides. It passes only if all do.
        """
        answers: dict[tuple[Origin, str], _Finding] = {}
        for each in flagged:
            passage = each.passage
            if (passage.origin, passage.text) in answers:
                continue  # the same was sent twice
            who, score = await self._ask(Question(passage, each.part, name, is_aside))
            answer = _Finding(passage, score, (who, *each.reasons))
            if score >= 0.5:
                return answer.verdict(Action.BLOCK)
            answers[passage.origin, passage.text] = answer
        return next(iter(answers.values())).verdict(Action.ALLOW)

    async def _ask(self, question: Question) -> tuple[str, float]:
        """Return the first answer of a heavier detector, with who gave it."""
        failure: DetectorFailed | None = None
        for detector in self._detectors:
            try:
                score = await detector.score(question)
            except DetectorFailed as exc:
                failure = exc
                self._metrics.firewall_detectors.labels("failed").inc()
                self._note(logging.WARNING, "detector failed", detector=detector.name, reason=str(exc))
            except asyncio.CancelledError:
                self._metrics.firewall_detectors.labels("timeout").inc()
                raise
            else:
                self._metrics.firewall_detectors.labels("answered").inc()
                return detector.name, score
        assert failure is not None
        raise failure

    async def close(self) -> None:
        """Release what detectors hold."""
        for detector in self._detectors:
            await detector.close()
