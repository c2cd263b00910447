"""The firewall: what comes in is examined in threads, within a time, and gets a verdict.

The verdict on a text depends on the text, where it comes from, its plan's policy, and what its session
has tried before: not on the way it came, nor on whether the answer is streamed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.guards.injection.base import Action, Detector, DetectorFailed, Origin, Passage, Verdict
from unbroken.server.guards.injection.examiner import Examination, Examiner
from unbroken.server.guards.injection.policy import Policies, Policy
from unbroken.server.guards.injection.suspicion import LEAST, Suspicion, raised
from unbroken.server.guards.plan import DEFAULT_PLAN, PlanOf
from unbroken.server.metrics import Metrics
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import PrincipalId, SessionId

__all__ = ["Firewall", "FirewallLimits", "Unchecked"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

_REMEMBERED: Final = 10_000
"""Texts that passed, so that one that is sent again after a lost connection passes again."""


class Unchecked(Exception):
    """There was no verdict in time, and what isn't checked doesn't pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallLimits:
    """What the firewall may take."""

    timeout: float = 2.0
    """Seconds until there has to be a verdict, a heavier detector's time included."""
    waiting: int = 64
    """Texts that are examined or wait for it. What comes beyond that is unchecked."""
    fails_closed: bool = True
    """Whether what couldn't be checked is refused, rather than let in."""


class Firewall:
    """Gives verdicts.

    Args:
        examiner: What computes scores.
        policies: What is done about them.
        suspicion: What sessions have tried before.
        threads: Where it is computed. Somebody else shuts them down.
        metrics: Where figures go.
        clock: Where time comes from.
        detectors: Asked in order, where a score is between flag and block; the first answer decides.
        limits: What it may take.
        plan_of: Which plan a principal has.
        allowed: SHA-256 digests, in hexadecimal, of texts that always pass.

    """

    def __init__(
        self,
        examiner: Examiner,
        policies: Policies,
        suspicion: Suspicion,
        threads: Executor,
        metrics: Metrics,
        clock: Clock,
        *,
        detectors: Sequence[Detector] = (),
        limits: FirewallLimits | None = None,
        plan_of: PlanOf | None = None,
        allowed: frozenset[str] = frozenset(),
    ) -> None:
        self._examiner = examiner
        self._policies = policies
        self._suspicion = suspicion
        self._threads = threads
        self._metrics = metrics
        self._clock = clock
        self._detectors = tuple(detectors)
        self._limits = limits or FirewallLimits()
        self._plan_of = plan_of or _no_plan
        self._allowed = allowed
        self._waiting = 0
        self._passed: OrderedDict[bytes, None] = OrderedDict()

    async def screen(
        self, passages: Sequence[Passage], session_id: SessionId, principal: PrincipalId, before: str = ""
    ) -> Verdict:
        """Return what is to become of *passages*, which come together: the weightiest verdict on one of them.

        *before* is what the same speaker said last. Blocks nothing where the plan's mode is ``shadow``.

        Raises:
            Unchecked: There is no verdict, and the firewall fails closed.

        """
        passages = [passage for passage in passages if passage.text and not self._is_allowed(passage.text)]
        policy = self._policies.of(await self._plan_of(principal)) if passages else None
        if policy is None or policy.mode == "off":
            return _NOTHING
        digest = _digest(session_id, passages)
        if digest in self._passed:
            self._passed.move_to_end(digest)
            return _NOTHING
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._limits.timeout):
                verdict = await self._verdict(passages, policy, session_id, before)
        except (TimeoutError, DetectorFailed) as exc:
            return self._unchecked(exc, passages, policy, session_id)
        finally:
            self._metrics.firewall_seconds.observe(self._clock.monotonic() - started)
        self._tell(verdict, policy, session_id)
        if verdict.action is Action.BLOCK:
            return verdict if policy.mode == "on" else _NOTHING
        self._passed[digest] = None
        if len(self._passed) > _REMEMBERED:
            self._passed.popitem(last=False)
        return verdict

    def _is_allowed(self, text: str) -> bool:
        return (
            bool(self._allowed)
            and hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() in self._allowed
        )

    async def _verdict(
        self, passages: Sequence[Passage], policy: Policy, session_id: SessionId, before: str
    ) -> Verdict:
        worst, found = passages[0], _HARMLESS
        for passage, examination in zip(passages, await self._examine(passages, before), strict=True):
            if examination.score > found.score:
                worst, found = passage, examination
        score = found.score
        if worst.origin is Origin.USER and score >= LEAST:
            score = raised(score, await self._suspicion.add(session_id, score))
        action, reasons = policy.action(score), found.reasons
        if action is Action.FLAG and self._detectors:
            name, heavier = await self._ask(worst)
            action = Action.BLOCK if heavier >= 0.5 else Action.ALLOW
            score, reasons = heavier, (name, *reasons)
        return Verdict(action, score, reasons, worst.param, worst.origin)

    async def _examine(self, passages: Sequence[Passage], before: str) -> list[Examination]:
        if self._waiting >= self._limits.waiting:
            raise DetectorFailed("Too much waits to be examined.")
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._examine_all, passages, before)
        work.add_done_callback(self._examined)  # also where nobody waits for it any more
        return await work

    def _examined(self, work: asyncio.Future[list[Examination]]) -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # looked at, should nobody else have

    def _examine_all(self, passages: Sequence[Passage], before: str) -> list[Examination]:
        return [
            self._examiner.examine(passage, before if passage.origin is Origin.USER else "")
            for passage in passages
        ]

    async def _ask(self, passage: Passage) -> tuple[str, float]:
        """Return the first answer of a heavier detector, with who gave it."""
        failure: DetectorFailed | None = None
        for detector in self._detectors:
            try:
                score = await detector.score(passage)
            except DetectorFailed as exc:
                failure = exc
                self._metrics.firewall_detectors.labels("failed").inc()
                _log.warning("detector failed", detector=detector.name, reason=str(exc))
            except asyncio.CancelledError:
                self._metrics.firewall_detectors.labels("timeout").inc()
                raise
            else:
                self._metrics.firewall_detectors.labels("answered").inc()
                return detector.name, score
        assert failure is not None
        raise failure

    def _unchecked(
        self, exc: Exception, passages: Sequence[Passage], policy: Policy, session_id: SessionId
    ) -> Verdict:
        self._metrics.firewall_verdicts.labels(passages[0].origin.value, "unchecked").inc()
        reason = str(exc) or "It took too long."
        _log.warning("input not checked", session_id=session_id, reason=reason)
        if self._limits.fails_closed and policy.mode == "on":
            raise Unchecked
        return _NOTHING

    def _tell(self, verdict: Verdict, policy: Policy, session_id: SessionId) -> None:
        assert verdict.origin is not None
        name = _OUTCOMES[verdict.action]
        if verdict.action is Action.BLOCK and policy.mode == "shadow":
            name = "would_block"
        self._metrics.firewall_verdicts.labels(verdict.origin.value, name).inc()
        if verdict.action is not Action.ALLOW:
            _log.info(
                "input suspected",
                session_id=session_id,
                outcome=name,
                origin=verdict.origin.value,
                score=round(verdict.score, 2),
                reasons=verdict.reasons,
            )

    async def close(self) -> None:
        """Release what detectors hold."""
        for detector in self._detectors:
            await detector.close()


_NOTHING: Final = Verdict(Action.ALLOW, 0.0)
_HARMLESS: Final = Examination(0.0, ())
_OUTCOMES: Final = {Action.ALLOW: "allow", Action.FLAG: "flag", Action.BLOCK: "block"}


async def _no_plan(_principal: PrincipalId) -> str:
    return DEFAULT_PLAN


def _digest(session_id: SessionId, passages: Sequence[Passage]) -> bytes:
    digest = hashlib.blake2b(session_id.encode(), digest_size=16)
    for passage in passages:
        text = passage.text.encode("utf-8", "surrogatepass")
        digest.update(f"\0{passage.origin.value}\0{len(text)}\0".encode())
        digest.update(text)
    return digest.digest()
