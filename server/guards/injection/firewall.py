"""The firewall: what comes in is examined in threads, within a time, and gets a verdict.

Where verdicts are acted upon, what comes in waits for its own. In shadow nobody waits: it is examined
beside what goes on, when there is time, and comes late at worst.

The verdict on a text depends on the text, where it comes from, its plan's policy, and what its session
has tried before: not on the way it came, nor on whether the answer is streamed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from unbroken.server.fair_names import FairName
from unbroken.server.guards.injection.base import Action, Detector, DetectorFailed, Origin, Passage, Verdict
from unbroken.server.guards.injection.examiner import Examination, Examiner
from unbroken.server.guards.injection.inquiry import Inquiry, bundled
from unbroken.server.guards.injection.judging import Judge
from unbroken.server.guards.injection.places import Places
from unbroken.server.guards.injection.policy import Policies
from unbroken.server.guards.injection.suspicion import Suspicion
from unbroken.server.guards.injection.turns import Spent, Turns
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


class Unchecked(Exception):
    """There was no verdict in time, and what isn't checked doesn't pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallLimits:
    """What the firewall may take."""

    timeout: float = 2.0
    """Seconds until there has to be a verdict, a heavier detector's time included. In shadow what
    an input waits for its turns isn't counted."""
    waiting: int = 256
    """Inputs that are examined or wait for it. More are unchecked. As many again in shadow, where
    a long one counts for each of its parts."""
    share: float = 0.25
    """How many of these may be taken under one name: nobody keeps out all others."""
    threads: int = 1
    """How many are examined at once, and how many at once in shadow."""
    later: float = 0.025
    """Seconds after which it is begun to examine what nobody waits for: a question goes on its way first,
    which it otherwise does that much later, where both have one core."""
    fails_closed: bool = True
    """Whether what couldn't be checked is refused, rather than let in."""


class Firewall:
    """Gives verdicts.

    Args:
        examiner: What computes scores.
        policies: What is done about them.
        suspicion: What sessions have tried before.
        threads: Where it is computed. Somebody else shuts them down.
        aside: Where that is done for which nobody waits. None: there, too.
        metrics: Where figures go.
        clock: Where time comes from.
        detectors: See :class:`~unbroken.server.guards.injection.judging.Judge`.
        limits: What it may take.
        allowed: SHA-256 digests, in hexadecimal, of texts that always pass.
        fair_name: Says under which name a principal waits, and has a share.

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
        aside: Executor | None = None,
        detectors: Sequence[Detector] = (),
        limits: FirewallLimits | None = None,
        allowed: frozenset[str] = frozenset(),
        fair_name: FairName = str,
    ) -> None:
        self._examiner = examiner
        self._policies = policies
        self._judge = Judge(suspicion, detectors, metrics, self._note)
        self._metrics = metrics
        self._clock = clock
        self._limits = limits = limits or FirewallLimits()
        self._fair_name = fair_name
        self._allowed = allowed
        self._places = Places(limits.waiting, limits.share)
        self._places_aside = Places(limits.waiting, limits.share)
        self._aside: set[asyncio.Task[Verdict]] = set()
        size = (limits.threads, limits.waiting)
        self._turns = Turns(threads, clock, *size)
        self._turns_aside = Turns(aside or threads, clock, *size, timeout=limits.timeout, is_aside=True)
        self._throttle = Throttle(clock, lines=_LINES)
        self._passed: OrderedDict[bytes, None] = OrderedDict()

    async def screen(
        self,
        passages: Sequence[Passage],
        session_id: SessionId,
        principal: PrincipalId,
        before: str = "",
        after: str = "",
        *,
        plan: str,
    ) -> Verdict:
        """Return what is to become of *passages*, which come together: the weightiest verdict on one of them.

        *before* and *after* are what the same speaker said that stands around it. *plan* is the one by which
        they come, whichever others *principal* may have. Where its mode is ``shadow``, it allows everything,
        at once: there is a verdict later, which is counted and logged.

        Raises:
            Unchecked: There is no verdict, and the firewall fails closed.

        """
        passages = bundled([each for each in passages if each.text and not self._is_allowed(each.text)])
        policy = self._policies.of(plan) if passages else None
        if policy is None or policy.mode == "off":
            return _NOTHING
        inquiry = Inquiry(passages, before, policy, session_id, after)
        digest = inquiry.digest()
        if digest in self._passed:
            self._passed.move_to_end(digest)
            return _NOTHING
        name = self._fair_name(principal)
        if policy.mode == "shadow":
            self._look_aside(inquiry, name)
            return _NOTHING
        if not self._places.take(name):
            return self._unchecked(_FULL, inquiry)
        try:
            return await self._looked_at(inquiry, name)
        finally:
            self._places.leave(name)

    def looks_at(self, plan: str) -> bool:
        """Return whether anything is looked at that comes by *plan*."""
        return self._policies.of(plan).mode != "off"

    def unread(self, reason: str, origin: Origin, session_id: SessionId, plan: str) -> None:
        """Deal with what comes by *plan*, and can't be read, as with what couldn't be checked.

        Raises:
            Unchecked: The firewall fails closed.

        """
        policy = self._policies.of(plan)
        self._unchecked(reason, Inquiry([Passage(origin, "")], "", policy, session_id))

    def _look_aside(self, inquiry: Inquiry, name: str) -> None:
        """Have *inquiry* looked at when there is time. Nobody waits for it."""
        parts = inquiry.parts()
        if not self._places_aside.take(name, parts):
            self._unchecked(_FULL, inquiry)
            return
        task = asyncio.create_task(self._looked_at_later(inquiry, name))
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
        task.add_done_callback(lambda _: self._places_aside.leave(name, parts))

    async def _looked_at_later(self, inquiry: Inquiry, name: str) -> Verdict:
        await asyncio.sleep(self._limits.later)
        return await self._looked_at(inquiry, name)

    async def _looked_at(self, inquiry: Inquiry, name: str) -> Verdict:
        """Return a verdict, counted and logged.

        Raises:
            Unchecked: See :meth:`screen`.

        """
        started, spent = self._clock.monotonic(), Spent()
        try:
            verdict = await self._judged(inquiry, name, spent)
        except TimeoutError:
            return self._unchecked("It took too long.", inquiry)
        except DetectorFailed as exc:
            return self._unchecked(str(exc), inquiry)
        except Exception as exc:  # noqa: BLE001 - a bug of ours: what couldn't be checked is dealt with as set
            reason = f"The examination failed ({type(exc).__name__})."  # its text may quote what was examined
            return self._unchecked(reason, inquiry)
        finally:
            took = spent.seconds if inquiry.policy.mode == "shadow" else self._clock.monotonic() - started
            self._metrics.firewall_seconds.observe(took)
        self._tell(verdict, inquiry)
        if verdict.action is not Action.BLOCK:
            self._passed[inquiry.digest()] = None
            if len(self._passed) > _REMEMBERED:
                self._passed.popitem(last=False)
        return verdict

    def _is_allowed(self, text: str) -> bool:
        return (
            bool(self._allowed)
            and hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() in self._allowed
        )

    async def _judged(self, inquiry: Inquiry, name: str, spent: Spent) -> Verdict:
        if inquiry.policy.mode == "shadow":
            examinations = await self._examine(inquiry, self._turns_aside, name, spent)
            began = self._clock.monotonic()
            try:
                async with asyncio.timeout(self._limits.timeout):
                    return await self._judge.verdict(inquiry, examinations, name)
            finally:
                spent.seconds += self._clock.monotonic() - began
        async with asyncio.timeout(self._limits.timeout):
            examinations = await self._examine(inquiry, self._turns, name, spent)
            return await self._judge.verdict(inquiry, examinations, name)

    async def _examine(self, inquiry: Inquiry, turns: Turns, name: str, spent: Spent) -> list[Examination]:
        """Examine it in a thread, part by part: a short text doesn't wait for a whole long one."""
        examinations = []
        for passage in inquiry.passages:
            is_said = passage.origin is Origin.USER
            around = (inquiry.before, inquiry.after) if is_said else ("", "")
            steps = self._examiner.steps(passage, *around)
            examinations.append(await turns.examined(steps, name, spent))
        return examinations

    def _unchecked(self, reason: str, inquiry: Inquiry) -> Verdict:
        self._metrics.firewall_verdicts.labels(inquiry.passages[0].origin.value, "unchecked").inc()
        self._note(logging.WARNING, "input not checked", session_id=inquiry.session_id, reason=reason)
        if self._limits.fails_closed and inquiry.policy.mode == "on":
            raise Unchecked
        return _NOTHING

    def _tell(self, verdict: Verdict, inquiry: Inquiry) -> None:
        assert verdict.origin is not None
        name = _OUTCOMES[verdict.action]
        if verdict.action is Action.BLOCK and inquiry.policy.mode == "shadow":
            name = "would_block"
        self._metrics.firewall_verdicts.labels(verdict.origin.value, name).inc()
        if verdict.action is not Action.ALLOW:
            self._note(
                logging.INFO,
                "input suspected",
                session_id=inquiry.session_id,
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
        """Look at nothing any more, and release what detectors hold."""
        for task in self._aside:
            task.cancel()
        await asyncio.gather(*self._aside, return_exceptions=True)
        await self._judge.close()


_FULL: Final = "Too much waits to be examined."
_NOTHING: Final = Verdict(Action.ALLOW, 0.0)
_OUTCOMES: Final = {Action.ALLOW: "allow", Action.FLAG: "flag", Action.BLOCK: "block"}
