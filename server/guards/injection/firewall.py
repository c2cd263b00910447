"""The firewall: what comes in is examined in threads, within a time, and gets a verdict.

The verdict on a text depends on the text, where it comes from, its plan's policy, and what its session
has tried before: not on the way it came, nor on whether the answer is streamed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.guards.injection.base import Action, Detector, DetectorFailed, Origin, Passage, Verdict
from unbroken.server.guards.injection.examiner import Examination, Examiner, step
from unbroken.server.guards.injection.policy import Policies, Policy
from unbroken.server.guards.injection.suspicion import LEAST, Suspicion, raised
from unbroken.server.guards.plan import DEFAULT_PLAN, PlanOf
from unbroken.server.metrics import Metrics
from unbroken.server.throttle import Throttle
from unbroken.sessions.clock import Clock
from unbroken.sessions.ids import PrincipalId, SessionId

__all__ = ["Firewall", "FirewallLimits", "Unchecked"]

_log: FilteringBoundLogger = structlog.get_logger(__name__)

_REMEMBERED: Final = 10_000
"""Texts that passed, so that one that is sent again after a lost connection passes again."""


_LINES: Final = 120
"""Lines of one kind that are logged within a minute."""

_MOST_PASSAGES: Final = 8
"""Passages of one input that are looked at each by itself."""


class Unchecked(Exception):
    """There was no verdict in time, and what isn't checked doesn't pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallLimits:
    """What the firewall may take."""

    timeout: float = 2.0
    """Seconds until there has to be a verdict, a heavier detector's time included."""
    waiting: int = 256
    """Inputs that are examined or wait for it. What comes beyond that is unchecked."""
    share: float = 0.25
    """How many of these may be one principal's: nobody keeps out all others."""
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
        self._waiting: Counter[PrincipalId] = Counter()
        self._throttle = Throttle(clock, lines=_LINES)
        self._passed: OrderedDict[bytes, None] = OrderedDict()

    async def screen(
        self, passages: Sequence[Passage], session_id: SessionId, principal: PrincipalId, before: str = ""
    ) -> Verdict:
        """Return what is to become of *passages*, which come together: the weightiest verdict on one of them.

        *before* is what the same speaker said last. Blocks nothing where the plan's mode is ``shadow``.

        Raises:
            Unchecked: There is no verdict, and the firewall fails closed.

        """
        passages = _bundled([each for each in passages if each.text and not self._is_allowed(each.text)])
        policy = self._policies.of(await self._plan_of(principal)) if passages else None
        if policy is None or policy.mode == "off":
            return _NOTHING
        digest = _digest(session_id, passages, before)
        if digest in self._passed:
            self._passed.move_to_end(digest)
            return _NOTHING
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._limits.timeout):
                found = await self._examine(passages, principal, before)
                verdict = await self._verdict(passages, found, policy, session_id)
        except TimeoutError:
            return self._unchecked("It took too long.", passages, policy, session_id)
        except DetectorFailed as exc:
            return self._unchecked(str(exc), passages, policy, session_id)
        except Exception as exc:  # noqa: BLE001 - a bug of ours: what couldn't be checked is dealt with as set
            reason = f"The examination failed ({type(exc).__name__})."  # its text may quote what was examined
            return self._unchecked(reason, passages, policy, session_id)
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
        self,
        passages: Sequence[Passage],
        examinations: Sequence[Examination],
        policy: Policy,
        session_id: SessionId,
    ) -> Verdict:
        worst, found = passages[0], _HARMLESS
        for passage, examination in zip(passages, examinations, strict=True):
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

    async def _examine(
        self, passages: Sequence[Passage], principal: PrincipalId, before: str
    ) -> list[Examination]:
        """Examine *passages* in a thread, part by part: a short text doesn't wait for a whole long one."""
        most = self._limits.waiting
        if self._waiting.total() >= most or self._waiting[principal] >= max(1, most * self._limits.share):
            raise DetectorFailed("Too much waits to be examined.")
        self._waiting[principal] += 1
        try:
            return [
                await self._examined(passage, before if passage.origin is Origin.USER else "")
                for passage in passages
            ]
        finally:
            self._waiting[principal] -= 1
            if not self._waiting[principal]:
                del self._waiting[principal]

    async def _examined(self, passage: Passage, before: str) -> Examination:
        loop, steps = asyncio.get_running_loop(), self._examiner.steps(passage, before)
        examination: Examination | None = None
        while examination is None:
            examination = await loop.run_in_executor(self._threads, step, steps)
        return examination

    async def _ask(self, passage: Passage) -> tuple[str, float]:
        """Return the first answer of a heavier detector, with who gave it."""
        failure: DetectorFailed | None = None
        for detector in self._detectors:
            try:
                score = await detector.score(passage)
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

    def _unchecked(
        self, reason: str, passages: Sequence[Passage], policy: Policy, session_id: SessionId
    ) -> Verdict:
        self._metrics.firewall_verdicts.labels(passages[0].origin.value, "unchecked").inc()
        self._note(logging.WARNING, "input not checked", session_id=session_id, reason=reason)
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
            self._note(
                logging.INFO,
                "input suspected",
                session_id=session_id,
                outcome=name,
                origin=verdict.origin.value,
                score=round(verdict.score, 2),
                reasons=verdict.reasons,
            )

    def _note(self, level: int, event: str, **fields: object) -> None:
        """Log it, unless others have it logged all the time: that must not fill the log."""
        if (unsaid := self._throttle.admit(event)) is not None:
            _log.log(level, event, **fields, **({"unsaid": unsaid} if unsaid else {}))

    async def close(self) -> None:
        """Release what detectors hold."""
        for detector in self._detectors:
            await detector.close()


_NOTHING: Final = Verdict(Action.ALLOW, 0.0)
_HARMLESS: Final = Examination(0.0, ())
_OUTCOMES: Final = {Action.ALLOW: "allow", Action.FLAG: "flag", Action.BLOCK: "block"}


async def _no_plan(_principal: PrincipalId) -> str:
    return DEFAULT_PLAN


def _digest(session_id: SessionId, passages: Sequence[Passage], before: str) -> bytes:
    digest = hashlib.blake2b(session_id.encode(), digest_size=16)
    digest.update(f"\0{len(before)}\0{before}".encode("utf-8", "surrogatepass"))
    for passage in passages:
        text = passage.text.encode("utf-8", "surrogatepass")
        digest.update(f"\0{passage.origin.value}\0{len(text)}\0".encode())
        digest.update(text)
    return digest.digest()


def _bundled(passages: list[Passage]) -> list[Passage]:
    """Return *passages*, or where they are many, those of each origin as one: each by itself has its cost."""
    if len(passages) <= _MOST_PASSAGES:
        return passages
    together: dict[Origin, list[Passage]] = {}
    for passage in passages:
        together.setdefault(passage.origin, []).append(passage)
    return [
        Passage(origin, "\n".join(each.text for each in those), (those[0].param or "").partition("[")[0])
        for origin, those in together.items()
    ]
